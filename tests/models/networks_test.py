"""Every family of networks, compared with plain PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.models import layers, preact_resnet, resnet, wide_resnet

pytestmark = pytest.mark.usefixtures("quick_compilation")
STATISTICS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
NETWORKS = {
  "resnet_18": functools.partial(resnet.Model, depth=18, **STATISTICS),
  "resnet_50": functools.partial(resnet.Model, depth=50, **STATISTICS),
  "wrn_50_2": functools.partial(
    resnet.Model, depth=50, width_factor=2, **STATISTICS
  ),
  "wrn_10_1": functools.partial(
    wide_resnet.Model, depth=10, widen_factor=1, **STATISTICS
  ),
  "wrn_40_2": functools.partial(wide_resnet.Model, **STATISTICS),
  "wrn_28_10": functools.partial(
    wide_resnet.Model, depth=28, widen_factor=10, **STATISTICS
  ),
  "preact_18": functools.partial(preact_resnet.Model, **STATISTICS),
}


def shapes(model, images):
  return jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))


def randomized(variables):
  """Variables with distinct values, so that any swap is detected."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: (
      jnp.asarray(rng.uniform(0.5, 1.5, x.shape) * (x.ndim == 1))
      + jnp.asarray(rng.normal(0, 0.1, x.shape) * (x.ndim > 1))
    ),
    variables,
  )


class Torch:
  """PyTorch layers that read the variables of a Flax module."""

  def __init__(self, variables):
    import torch

    self.torch = torch
    self.variables = variables

  def read(self, collection, *path):
    leaf = self.variables[collection]
    for part in path:
      leaf = leaf[part]
    return self.torch.tensor(np.asarray(leaf))

  def conv(self, x, *path, stride=1):
    weight = self.read("params", *path, "kernel").permute(3, 2, 0, 1)
    padding = {1: 0, 3: 1}[weight.shape[-1]]
    return self.torch.nn.functional.conv2d(
      x, weight, stride=stride, padding=padding
    )

  def norm(self, x, *path):
    return self.torch.nn.functional.batch_norm(
      x,
      self.read("batch_stats", *path, "mean"),
      self.read("batch_stats", *path, "var"),
      self.read("params", *path, "scale"),
      self.read("params", *path, "bias"),
    )

  def head(self, x):
    kernel = self.read("params", "head", "kernel")
    return x.mean((2, 3)) @ kernel + self.read("params", "head", "bias")

  def images(self, x):
    mean, std = (
      self.torch.tensor(v, dtype=self.torch.float64)
      for v in STATISTICS.values()
    )
    return ((self.torch.tensor(np.asarray(x)) - mean) / std).permute(0, 3, 1, 2)


def post_activation(t, x, path, stride, kernels, activation):
  """torchvision's BasicBlock and Bottleneck."""
  y, act = x, getattr(t.torch.nn.functional, activation)
  for i, kernel in enumerate(kernels):
    s = stride if i == kernels.index(3) else 1
    y = t.norm(t.conv(y, *path, f"conv_{i}", stride=s), *path, f"norm_{i}")
    assert t.read("params", *path, f"conv_{i}", "kernel").shape[0] == kernel
    y = act(y) if i < len(kernels) - 1 else y
  if stride > 1 or x.shape[1] != y.shape[1]:
    x = t.conv(x, *path, "shortcut", stride=stride)
    x = t.norm(x, *path, "shortcut_norm")
  return act(x + y)


def pre_activation(t, x, path, stride):
  """The block of xternalz/WideResNet-pytorch."""
  y = t.norm(x, *path, "norm_0").relu()
  kernel = t.read("params", *path, "conv_0", "kernel")
  same = kernel.shape[2] == kernel.shape[3]
  shortcut = x if same else t.conv(y, *path, "shortcut", stride=stride)
  y = t.conv(y, *path, "conv_0", stride=stride)
  y = t.conv(t.norm(y, *path, "norm_1").relu(), *path, "conv_1")
  return shortcut + y


def torch_wrn_10_1(t, images):
  x = t.conv(t.images(images), "stem")
  for stage in range(3):
    x = pre_activation(t, x, [f"stages_{stage}_0"], 2 if stage else 1)
  return t.head(t.norm(x, "norm").relu())


# interop/names_test.py::test_logits_equal_the_originals covers all networks.
# This test uses an image that is not square.
def test_logits_equal_torch(x64):
  pytest.importorskip("torch")
  model = NETWORKS["wrn_10_1"](7)
  images = jnp.asarray(np.random.default_rng(1).uniform(size=(2, 12, 10, 3)))
  variables = randomized(shapes(model, images))
  actual = jax.jit(lambda v, x: model.apply(v, x, False))(variables, images)
  expected = torch_wrn_10_1(Torch(variables), images)
  assert actual.dtype == jnp.float64
  np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
  ("stride", "activation"), [(1, "relu"), (2, "relu"), (2, "silu")]
)
def test_bottleneck_equals_torch(x64, stride, activation):
  pytest.importorskip("torch")
  block = resnet.Block(((8, 1), (8, 3), (16, 1)), stride, activation=activation)
  x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 6, 4)))
  variables = randomized(shapes(block, x))
  t = Torch(variables)
  reference = t.torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)
  expected = post_activation(t, reference, [], stride, [1, 3, 1], activation)
  actual = jax.jit(lambda v: block.apply(v, x, False))(variables)
  np.testing.assert_allclose(
    actual, expected.permute(0, 2, 3, 1), rtol=1e-12, atol=1e-12
  )


@pytest.mark.parametrize(
  ("name", "millions"),
  [
    # Counted by PyTorch on torchvision's, xternalz's, RobustBench's networks.
    ("resnet_18", 11_173_962),
    ("wrn_50_2", 66_847_050),
    ("wrn_40_2", 2_243_546),
    ("wrn_28_10", 36_479_194),
    ("preact_18", 11_171_146),
  ],
)
def test_parameter_count(name, millions):
  variables = shapes(NETWORKS[name](10), jnp.zeros((1, 32, 32, 3)))
  count = sum(x.size for x in jax.tree.leaves(variables["params"]))
  assert count == millions


@pytest.mark.parametrize(
  ("name", "width", "channels"),
  [("resnet_18", 512, 128), ("wrn_10_1", 64, 32), ("preact_18", 512, 128)],
)
def test_initial_values(name, width, channels):
  model = NETWORKS[name](100)
  variables = jax.jit(
    lambda key: model.init(
      key,
      jnp.zeros((1, 2, 2, channels)),
      jnp.zeros((1, width)),
      jnp.zeros((1, 2, 2, 3)),
      method=lambda m, x, y, z: (
        m.stages[2][0](x, False),
        m.head(y),
        m.stem(z),
      ),
    )
  )(jax.random.key(0))
  params = variables["params"]
  # He: variance 2 / (outputs * 3 * 3), and normal beyond two deviations; but
  # RobustBench's network is left to PyTorch, uniform within 1 / sqrt(fan-in).
  kernel = np.asarray(params["stages_2_0"]["conv_1"]["kernel"])
  fan = 9 * kernel.shape[-1]
  std = np.sqrt((1 / 3 if name == "preact_18" else 2) / fan)
  np.testing.assert_allclose(kernel.std(), std, rtol=0.015)
  assert abs(kernel.mean()) < 0.02 * std
  beyond = (abs(kernel) > 2 * std).mean()
  if name == "preact_18":
    assert beyond == 0 and 0.99 * fan**-0.5 < abs(kernel).max() <= fan**-0.5
  else:  # a normal has 4.55 % beyond two deviations, a truncated one none
    assert 0.04 < beyond < 0.051
  kernel, bias = (np.asarray(params["head"][k]) for k in ("kernel", "bias"))
  bound = 1 / np.sqrt(width)
  assert 0.99 * bound < abs(kernel).max() <= bound
  np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)
  largest = abs(bias).max()
  assert largest == 0 if name == "wrn_10_1" else 0.8 * bound < largest <= bound
  # The stem: PyTorch's default, uniform within 1 / sqrt(3 * 3 * 3), in
  # torchvision's networks after the author's surgery and in RobustBench's; He's
  # 2 / (9 * 16) in the other.
  kernel = np.asarray(params["stem"]["kernel"])
  bound = 27**-0.5
  uniform = 0.99 * bound < abs(kernel).max() <= bound
  assert uniform == (name != "wrn_10_1")
  std = bound / np.sqrt(3) if uniform else np.sqrt(2 / (9 * 16))
  # Three standard errors of 1728 uniform or 432 normal values.
  rtol = 0.033 if uniform else 0.1
  np.testing.assert_allclose(kernel.std(), std, rtol=rtol)
  assert abs(kernel.mean()) < rtol * 2 * std
  norm = params["stages_2_0"]["norm_0"]
  assert (norm["scale"] == 1).all() and (norm["bias"] == 0).all()
  stats = variables["batch_stats"]["stages_2_0"]["norm_0"]
  assert (stats["mean"] == 0).all() and (stats["var"] == 1).all()


@pytest.mark.parametrize(
  ("name", "width"),
  [
    ("resnet_18", 512),
    ("wrn_50_2", 2048),
    ("wrn_10_1", 64),
    ("preact_18", 512),
  ],
)
@pytest.mark.parametrize("size", [8, 33])
def test_shapes_of_features_and_logits(name, width, size):
  model = NETWORKS[name](5)
  for method, columns in (("features", width), ("__call__", 5)):
    out, _ = jax.eval_shape(
      lambda x, m=method: model.init_with_output(
        jax.random.key(0), x, False, method=m
      ),
      jnp.zeros((2, size, size, 3)),
    )
    assert out.shape == (2, columns) and out.dtype == jnp.float32


@pytest.mark.parametrize("name", ["wrn_50_2", "wrn_10_1", "preact_18"])
def test_activation_only_changes_the_name_and_the_logits(name):
  relu, silu = (NETWORKS[name](10, activation=a) for a in ("relu", "silu"))
  assert silu.label == f"{relu.label} (SiLU)"
  images = jnp.zeros((1, 8, 8, 3))
  assert shapes(silu, images) == shapes(relu, images)


def test_bfloat16_is_used_only_between_convolutions():
  model = NETWORKS["wrn_10_1"](10)
  half = model.clone(dtype=jnp.bfloat16)
  images = jnp.asarray(
    np.random.default_rng(1).uniform(size=(4, 16, 16, 3)), jnp.float32
  )
  made = shapes(half, images)
  assert {x.dtype for x in jax.tree.leaves(made)} == {jnp.dtype(jnp.float32)}
  variables = randomized(made)
  # Not compiled: jaxlib 0.12.0's for CPUs makes NaN of sums of two bfloat16
  # convolutions. That type is for accelerators.
  logits, exact = (m.apply(variables, images, False) for m in (half, model))
  assert logits.dtype == jnp.float32
  assert 0 < abs(logits - exact).max() < 0.02 * abs(exact).max()
  text = str(jax.make_jaxpr(lambda v: half.apply(v, images, False))(variables))
  convolutions = [x for x in text.splitlines() if "= conv_general" in x]
  assert len(convolutions) == 9
  assert all("bf16[" in x for x in convolutions)


@pytest.mark.parametrize(
  ("name", "fields"),
  [
    ("resnet_18", {}),
    ("wrn_10_1", {"activation": "silu"}),
    ("preact_18", {"variant": "rice"}),
  ],
)
def test_x64_leaves_nothing_in_single_precision(x64, name, fields):
  model = NETWORKS[name](10, **fields)
  images = jnp.zeros((2, 8, 8, 3))
  variables = shapes(model, images)

  def loss(v, x):
    logits, _ = model.apply(v, x, True, mutable=["batch_stats"])
    return logits.sum()

  text = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(variables, images)
  assert "f32[" not in str(text)


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: NETWORKS["wrn_40_2"](10, depth=50), "give 6 n"),
    (lambda: NETWORKS["wrn_40_2"](10, depth=4), "depth is 4"),
    (lambda: NETWORKS["resnet_18"](10, depth=34), "18 or 50"),
    (lambda: NETWORKS["resnet_18"](10, width_factor=2), "width_factor is 2"),
    (lambda: NETWORKS["resnet_50"](10, width_factor=0), "width_factor is 0"),
    (
      lambda: NETWORKS["preact_18"](10, variant="x"),
      "robustbench or kuangliu or rice or fast",
    ),
  ],
)
def test_invalid_networks(build, message):
  with pytest.raises(ValueError, match=message):
    build()


def test_images_that_are_too_small():
  with pytest.raises(ValueError, match="7x9"):
    layers.normalize(jnp.zeros((2, 7, 9, 3)), **STATISTICS)
