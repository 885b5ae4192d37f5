r"""AutoAttack compared with the original in PyTorch (fra31/auto-attack).

    python -m benchmarks.autoattack --original=FOLDER --data=FOLDER

--original is a checkout of the original. --data contains the test images
(cifar10_lossless.npz) and the weights of ResNet-2B (autoattack/). Both
implementations attack each network alternately, on the same images. Times
include compilation.
"""

import argparse
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

import ram_jax
from benchmarks import timing, torch_step
from benchmarks.torch_reference.networks import NETWORKS
from ram_jax import plugins
from ram_jax.interop import names, weights
from ram_jax.models.classifier import Classifier
from tests.attacks.resnet2b import ResNet2B

RESULTS = timing.FOLDER.parent
WEIGHTS = (
  RESULTS / "cifar10_jpeg_wrn_10_1" / "weights/robust_augmix.safetensors"
)
# Network -> norm and epsilon of the attack.
CASES = {"resnet_2b": ("l2", 0.25), "wrn_10_1": ("l2", 0.5)}
NORMS = {"l2": "L2", "linf": "Linf"}
BATCH = 250  # default of the original
VERSIONS = ("standard", "fast")


class TorchResNet2B(nn.Module):
  """ResNet-2B in PyTorch, with the parameter names of the weights file."""

  def __init__(self) -> None:
    """Builds the layers."""
    super().__init__()
    self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
    self.layer1 = nn.Sequential(_block(8, 2), _block(16, 1))
    self.linear1, self.linear2 = nn.Linear(1024, 100), nn.Linear(100, 10)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
    self.mean, self.std = (
      torch.tensor(values).reshape(3, 1, 1) for values in (mean, std)
    )

  def forward(self, images: torch.Tensor) -> torch.Tensor:
    """Logits [B,10] of pixels [B,3,32,32] in [0,1]."""
    mean, std = self.mean.to(images), self.std.to(images)
    x = self.conv1((images - mean) / std).relu()
    for block in self.layer1:
      shortcut = block["shortcut"](x) if "shortcut" in block else x
      x = (block["conv2"](block["conv1"](x).relu()) + shortcut).relu()
    return self.linear2(self.linear1(x.flatten(1)).relu())


def _block(inputs: int, stride: int) -> nn.ModuleDict:
  layers = {
    "conv1": nn.Conv2d(inputs, 16, 3, stride, 1),
    "conv2": nn.Conv2d(16, 16, 3, 1, 1),
  }
  if stride > 1:
    layers["shortcut"] = nn.Sequential(nn.Conv2d(inputs, 16, 1, stride))
  return nn.ModuleDict(layers)


def networks(name: str, data: pathlib.Path) -> tuple[Any, nn.Module]:
  """Builds the same network in ram_jax and in PyTorch.

  Args:
    name: a key of `CASES`.
    data: folder of the shared data.

  Returns:
    ram_jax's network, a pytree, and PyTorch's; both map pixels in [0,1] to
    logits.
  """
  if name == "resnet_2b":
    file = weights.read(data / "autoattack" / "resnet2b.safetensors")
    ours, theirs = ResNet2B(dict(file.tensors)), TorchResNet2B()
  else:
    file = weights.read(WEIGHTS)
    (mean, std), fields = file.normalization, {"depth": 10, "widen_factor": 1}
    spec = {"name": "wide_resnet", "num_classes": 10} | fields
    module = plugins.build("model", spec, mean=mean, std=std)
    params, means = names.from_torch(module, (32, 32, 3), file.tensors)
    ours = Classifier(params, means, module)
    theirs = NETWORKS["wide_resnet"](10, mean, std, **fields)
  tensors = {key: torch.tensor(value) for key, value in file.tensors.items()}
  theirs.load_state_dict(tensors)
  return ours, theirs.train(False)


def to_torch(images: np.ndarray) -> torch.Tensor:
  """Images [N,H,W,C] as a contiguous tensor [N,C,H,W]."""
  return torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def original(
  network: nn.Module, norm: str, epsilon: float
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """Builds the original AutoAttack (version standard, seed 0) for a network.

  Args:
    network: pixels in [0,1] -> logits.
    norm: "l2" or "linf".
    epsilon: radius of the ball.

  Returns:
    (images [N,H,W,C], labels [N]) -> adversarial images.
  """
  from autoattack import AutoAttack

  def attack(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    where = torch_step.device().type
    suite = AutoAttack(
      network, NORMS[norm], epsilon, seed=0, device=where, verbose=False
    )
    x = to_torch(images)
    found = suite.run_standard_evaluation(x, torch.tensor(labels), bs=BATCH)
    return found.numpy().transpose(0, 2, 3, 1)

  return attack


def measure(
  name: str, data: pathlib.Path, count: int, repeats: int, beside: bool
) -> dict[str, Any]:
  """Attacks one network with ram_jax and, optionally, with the original.

  Args:
    name: a key of `CASES`.
    data: folder of the shared data.
    count: number of test images, from the start of the test set.
    repeats: number of rounds.
    beside: whether to run the original as well.

  Returns:
    Median seconds by side, ratios of the original's seconds to ram_jax's, and
    the numbers of images that are robust and of those that differ.
  """
  norm, epsilon = CASES[name]
  ours, theirs = networks(name, data)
  theirs = theirs.to(torch_step.device())
  with np.load(data / "cifar10_lossless.npz") as arrays:
    images = arrays["test_images"][:count].astype(np.float32) / 255
    labels = arrays["test_labels"][:count].astype(np.int64)
  attack = original(theirs, norm, epsilon)
  taken: dict[str, list[float]] = {}
  robust = {}
  for _ in range(repeats):
    for side in ("original", *VERSIONS) if beside else VERSIONS:
      jax.clear_caches()
      start = time.perf_counter()
      if side == "original":
        moved = to_torch(attack(images, labels)).to(torch_step.device())
        with torch.no_grad():
          kept = theirs(moved).argmax(1).cpu().numpy() == labels
      else:
        found = ram_jax.autoattack(
          ours, images, labels, norm=norm, epsilon=epsilon, version=side
        )
        kept = found.robust
      robust[side] = kept
      taken.setdefault(side, []).append(time.perf_counter() - start)
      print(f"{name} {side}: {taken[side][-1]:.1f} s", flush=True)
  first = next(iter(taken))
  return {
    "model": name,
    "norm": norm,
    "epsilon": epsilon,
    "images": count,
    "clean": int(found.clean.sum()),
    "seconds": {side: statistics.median(row) for side, row in taken.items()},
    "ratio": {
      version: statistics.median(
        a / b for a, b in zip(taken[first], taken[version], strict=True)
      )
      for version in VERSIONS
    },
    "robust": {side: int(flags.sum()) for side, flags in robust.items()},
    "differ": {
      version: int((robust[version] != robust[first]).sum())
      for version in VERSIONS
    },
  }


def main() -> None:
  """Measures each network and writes the results."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--original", help="FOLDER; default: only time ram_jax")
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--networks", default=",".join(CASES))
  parser.add_argument("--images", type=int, default=160)
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  sys.path.insert(0, flags.original or "")
  for name in flags.networks.split(","):
    beside = bool(flags.original)
    row = measure(name, flags.data, flags.images, flags.repeats, beside)
    timing.add("autoattack", row, flags.out)


if __name__ == "__main__":
  main()
