"""ResNet-2B and the results of the original AutoAttack on it, for tests."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file


@flax.struct.dataclass
class ResNet2B:
  """The network of alpha-beta-CROWN; its weights by PyTorch's names."""

  tensors: dict[str, jax.Array]

  def __call__(self, images):
    mean, std = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
    x = (images - np.asarray(mean)) / np.asarray(std)
    x = jax.nn.relu(self._conv("conv1", x, 2))
    y = jax.nn.relu(self._conv("layer1.0.conv1", x, 2))
    y = self._conv("layer1.0.conv2", y)
    x = jax.nn.relu(y + self._conv("layer1.0.shortcut.0", x, 2))
    y = jax.nn.relu(self._conv("layer1.1.conv1", x))
    x = jax.nn.relu(self._conv("layer1.1.conv2", y) + x)
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    return self._dense("linear2", jax.nn.relu(self._dense("linear1", x)))

  def _conv(self, name, x, stride=1):
    kernel = self.tensors[f"{name}.weight"].transpose(2, 3, 1, 0)
    padding = [(len(kernel) // 2,) * 2] * 2
    y = jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride,) * 2,
      padding,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + self.tensors[f"{name}.bias"]

  def _dense(self, name, x):
    return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]


def load(folder, case):
  """The network, its correctly classified images and labels, the results.

  Args:
    folder: of the shared data.
    case: name of a file of results, such as "resnet2b_l2_0.25".

  Returns:
    Network, images [n,32,32,3], labels [n], and arrays by name, [n] each.
  """
  with np.load(folder / "autoattack" / f"{case}.npz") as arrays:
    results = dict(arrays)
  with np.load(folder / "cifar10_lossless.npz") as arrays:
    images = arrays["test_images"][: len(results["clean"])]
    labels = arrays["test_labels"][: len(results["clean"])]
  dtype = jnp.result_type(float)
  tensors = load_file(folder / "autoattack" / "resnet2b.safetensors")
  network = ResNet2B({k: jnp.asarray(v, dtype) for k, v in tensors.items()})
  images = jnp.asarray(images, dtype) / 255
  np.testing.assert_allclose(network(images), results["logits"], atol=1e-4)
  clean = results["clean"]
  some = {name: value[clean] for name, value in results.items()}
  return network, images[clean], jnp.asarray(labels[clean], jnp.int32), some
