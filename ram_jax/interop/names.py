"""Converts parameters to and from PyTorch's names and layouts."""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from ram_jax.models import preact_resnet, resnet, wide_resnet

# Path of a leaf, such as ('params', 'stages_0_1', 'conv_0', 'kernel').
Path = tuple[str, ...]
SHOWN = 6  # number of names of each kind in a message


@dataclasses.dataclass(frozen=True)
class Naming:
  """How one code base names a network's layers.

  Attributes:
    block: template for the prefix of a block's layers, with `stage`, counted
      from 1, and `index`.
    layers: layer in ram_jax -> PyTorch's, without the prefix of a block.
    unused: prefixes of layers that the PyTorch network has but never runs.
  """

  block: str
  layers: Mapping[str, str]
  unused: tuple[str, ...] = ()

  def names(self, leaves: Iterable[Path]) -> dict[str, Path]:
    """Paths of leaves by PyTorch's names, such as 'layer1.0.conv1.weight'."""
    return {self._translate(path): path for path in leaves}

  def _translate(self, path: Path) -> str:
    _, *block, layer, leaf = path
    prefix = ""
    if block:
      stage, index = map(int, re.findall(r"\d+", block[0]))
      prefix = self.block.format(stage=stage + 1, index=index)
    return f"{prefix}{self.layers[layer]}.{_LEAVES[leaf]}"


_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}
# The only integer tensor; a BatchNorm2d stores one with each _LEAVES["var"].
COUNTER = "num_batches_tracked"
_COMMON = {"stem": "conv1"}
for _j in range(3):
  _COMMON |= {f"conv_{_j}": f"conv{_j + 1}", f"norm_{_j}": f"bn{_j + 1}"}
_RESNET = _COMMON | {"stem_norm": "bn1"}
_WIDE = _COMMON | {"norm": "bn1", "head": "fc"}
_LAYER, _BLOCK = "layer{stage}.{index}.", "block{stage}.layer.{index}."
# For each network: first the names for exports, then others that can be
# imported. The shortcut's second part is its normalization.
NAMINGS: dict[type[nn.Module], tuple[Naming, ...]] = {
  resnet.Model: (
    # torchvision/models/resnet.py
    Naming(
      _LAYER,
      _RESNET
      | {"shortcut": "downsample.0", "shortcut_norm": "downsample.1"}
      | {"head": "fc"},
    ),
    # RobustBench's architectures/resnet.py, MadryLab's cifar_models/resnet.py
    Naming(
      _LAYER,
      _RESNET
      | {"shortcut": "shortcut.0", "shortcut_norm": "shortcut.1"}
      | {"head": "linear"},
    ),
  ),
  wide_resnet.Model: (
    # xternalz/WideResNet-pytorch, RobustBench's architectures/wide_resnet.py.
    # Those derived from TRADES also have an unused copy of the first stage.
    Naming(_BLOCK, _WIDE | {"shortcut": "convShortcut"}, ("sub_block1.",)),
    # google-research/augmix
    Naming(_BLOCK, _WIDE | {"shortcut": "conv_shortcut"}),
  ),
  preact_resnet.Model: (
    # RobustBench's architectures/resnet.py
    Naming(
      _LAYER,
      _COMMON | {"shortcut": "shortcut.0", "norm": "bn", "head": "linear"},
    ),
  ),
}


def to_torch(
  module: nn.Module, params: Any, batch_stats: Any
) -> dict[str, np.ndarray]:
  """Makes a state_dict in the first naming, for load_state_dict(strict=True).

  Args:
    module: the network.
    params: its parameters.
    batch_stats: its running statistics.

  Returns:
    Arrays by PyTorch's names, with bit-identical values: convolutions [out, in,
    H, W], linear weights [out, in]; `num_batches_tracked` is int64 0.

  Raises:
    ValueError: for a network without known PyTorch names.
  """
  leaves, tensors = _leaves(params, batch_stats), {}
  for name, path in _namings(module)[0].names(leaves).items():
    array = np.asarray(leaves[path])
    axes = (3, 2, 0, 1) if array.ndim == 4 else None
    tensors[name] = np.ascontiguousarray(array.transpose(axes))
    if counter := _counter(name):
      tensors[counter] = np.zeros((), np.int64)
  return tensors


def from_torch(
  module: nn.Module,
  image_shape: tuple[int, int, int],
  tensors: Mapping[str, np.ndarray],
) -> tuple[Any, Any]:
  """Converts a PyTorch state_dict to a network's variables, strictly.

  Args:
    module: the network.
    image_shape: (H, W, C) of its images.
    tensors: arrays by PyTorch's names, without a wrapper's prefix. The
      `num_batches_tracked` counters may be absent.

  Returns:
    Parameters and running statistics, numpy arrays in the default float type:
    float32 values are bit-identical.

  Raises:
    ValueError: if a name is missing or unexpected, or a shape differs; the
      message lists these and says which network the tensors look like.
  """
  images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
  init = functools.partial(module.init, train=False)
  made = jax.eval_shape(init, jax.random.key(0), images)
  expected = _leaves(made["params"], made["batch_stats"])
  naming = max(
    _namings(module),
    key=lambda naming: len(naming.names(expected).keys() & tensors.keys()),
  )
  paths = naming.names(expected)
  shapes = {name: _shape(expected[path].shape) for name, path in paths.items()}
  _check(module, shapes, naming.unused, tensors)
  leaves = {}
  for name, path in paths.items():
    array = np.asarray(tensors[name])
    axes = (2, 3, 1, 0) if array.ndim == 4 else None
    leaves[path] = np.ascontiguousarray(
      array.transpose(axes), dtype=expected[path].dtype
    )
  variables = traverse_util.unflatten_dict(leaves)
  return variables["params"], variables["batch_stats"]


def describe(tensors: Mapping[str, np.ndarray]) -> str | None:
  """Says which network a state_dict looks like.

  Args:
    tensors: arrays by PyTorch's names, without a wrapper's prefix.

  Returns:
    Text such as 'WRN-40-2 for 10 classes'; None if nothing is recognized.
  """
  shapes = {name: np.shape(array) for name, array in tensors.items()}
  blocks = sum(bool(_FIRST_CONV.fullmatch(name)) for name in shapes)
  convs = 3 if "layer1.0.conv3.weight" in shapes else 2
  if first := shapes.get("block1.layer.0.conv1.weight"):
    text = f"WRN-{2 * blocks + 4}-{first[0] // 16}"
  elif not (first := shapes.get("layer1.0.conv1.weight")):
    return None
  elif "bn1.weight" not in shapes:
    text = f"PreActResNet-{2 * blocks + 2}"
  elif (width := first[0] // 64) > 1 and convs == 3:
    text = f"WRN-{convs * blocks + 2}-{width}"
  else:
    text = f"ResNet-{convs * blocks + 2}"
  of_preact = text == "PreActResNet-18"
  head = shapes.get("fc.weight") or shapes.get("linear.weight")
  text += f" for {head[0]} classes" if head else ""
  stem = shapes.get("conv1.weight", ())
  if len(stem) == 4 and stem[-1] > 3:
    text += f" with a {stem[-1]}x{stem[-1]} stem for larger images"
  return text + (_preact_names("bn.weight" in shapes) if of_preact else "")


_FIRST_CONV = re.compile(r"(layer|block)\d\.(layer\.)?\d+\.conv1\.weight")


def _preact_names(final_norm: bool) -> str:
  """The config names of the networks with these tensors."""
  alike = [
    f"model={variant.model} ({variant.origin})"
    for variant in preact_resnet.alike(final_norm)
  ]
  if len(alike) == 1:
    return f", {alike[0]}"
  return (
    f", and {len(alike)} networks have these tensors but different logits: "
    f"select one in the config string, {' or '.join(alike)}"
  )


def listed(words: Sequence[str]) -> str:
  """Lists the first few words, and the number of omitted ones.

  Args:
    words: any number of words.
  """
  more = len(words) - SHOWN
  return ", ".join(words[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _namings(module: nn.Module) -> tuple[Naming, ...]:
  if type(module) not in NAMINGS:
    known = ", ".join(cls.__module__ for cls in NAMINGS)
    raise ValueError(
      f"PyTorch's names for {type(module).__module__} are not known, only "
      f"those for {known}: add them to NAMINGS in ram_jax/interop/names.py"
    )
  return NAMINGS[type(module)]


def _leaves(params: Any, batch_stats: Any) -> dict[Path, Any]:
  variables = {"params": params, "batch_stats": batch_stats}
  return traverse_util.flatten_dict(variables)


def _counter(name: str) -> str | None:
  """The counter that belongs to a running variance."""
  prefix, _, leaf = name.rpartition(".")
  return f"{prefix}.{COUNTER}" if leaf == _LEAVES["var"] else None


def _shape(flax_shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape in PyTorch's order of axes."""
  reverse = flax_shape[::-1]
  return (*reverse[:2], *flax_shape[:2]) if len(flax_shape) == 4 else reverse


def _check(
  module: nn.Module,
  expected: Mapping[str, tuple[int, ...]],
  unused: tuple[str, ...],
  tensors: Mapping[str, np.ndarray],
) -> None:
  found = {name: np.shape(array) for name, array in tensors.items()}
  known = {*expected, *map(_counter, expected)}
  both = expected.keys() & found.keys()
  faults = {
    "missing": expected.keys() - both,
    "unexpected": {n for n in found.keys() - known if not n.startswith(unused)},
    "with a different shape": {n for n in both if found[n] != expected[n]},
  }

  def shown(name: str) -> str:
    shapes = [str(list(x[name])) for x in (found, expected) if name in x]
    return f"{name} {' instead of '.join(shapes)}"

  parts = [
    f"{len(rows)} {kind}: {listed([shown(name) for name in sorted(rows)])}"
    for kind, rows in faults.items()
    if rows
  ]
  if parts:
    raise ValueError(
      f"the weights do not fit {module.label} for {module.num_classes} "
      f"classes: {'; '.join(parts)}; they look like "
      f"{describe(tensors) or 'no known network'}: choose the "
      "file's network (config.model, config.dataset), or another file"
    )
