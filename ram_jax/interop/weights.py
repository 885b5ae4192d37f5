"""Files of weights: safetensors in and out, PyTorch's in; none runs code."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ram_jax.interop import names, torch_file

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
FORMAT = ".safetensors"
PRODUCER = "ram_jax"
# What wraps a network; `1.` is one after a normalisation in a Sequential.
PREFIXES = ("net.", "module.", "model.", "1.")
# Last parts of the names of a network's own constants: RobustBench's, and
# MadryLab's.
MEANS, STDS = ("mean", "mu", "new_mean"), ("std", "sigma", "new_std")
# robustaugmix/attacks/pgd.py of the paper's author.
AUTHOR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
AUGMIX = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # google-research/augmix, cifar.py


@dataclasses.dataclass(frozen=True)
class Weights:
  """What a file of weights holds.

  Attributes:
    tensors: arrays by PyTorch's names, without prefixes of wrappers and
      without constants of normalisation. Half precision and bfloat16 have
      become float32, which changes no value.
    normalization: mean and standard deviation that the network subtracts and
      divides by, of pixels in [0, 1]; None if the file does not tell.
    origin: whose file it is, in words.
    fingerprint: 'sha256:' and 64 hexadecimal digits, of the file's bytes.
    metadata: what a safetensors file says about itself.
  """

  tensors: dict[str, np.ndarray]
  normalization: Normalization | None
  origin: str
  fingerprint: str
  metadata: dict[str, str]


def read(path: str | os.PathLike) -> Weights:
  """Reads a file of weights without running anything in it.

  Args:
    path: `.safetensors`; or `.pt`, `.pth`, `.tar`, `.ckpt` of torch.save, for
      which PyTorch must be installed.

  Returns:
    The content.

  Raises:
    FileNotFoundError: if there is no such file.
    ModuleNotFoundError: if PyTorch is needed and absent.
    ValueError: if the file is damaged, of another kind, or holds code, or the
      PyTorch that it needs is too old to be safe.
  """
  path = pathlib.Path(os.path.expanduser(path))
  if path.is_dir():
    raise ValueError(f"{path} is a folder: name the file of weights in it")
  if not path.exists():
    raise FileNotFoundError(f"there is no file of weights {path}")
  if path.suffix == FORMAT:
    (tensors, metadata), entries = _read_safetensors(path), ()
  elif path.suffix in torch_file.FORMATS:
    (tensors, entries), metadata = torch_file.read(path), {}
  else:
    raise ValueError(
      f"{path} is no file of weights: give one that ends in "
      f"{', '.join((FORMAT, *torch_file.FORMATS))}"
    )
  tensors, constants = _split(tensors)
  if not tensors:
    raise ValueError(f"{path} holds no weights: give a network's state_dict")
  tensors, removed = _strip(tensors)
  origin, normalization = _origin(tensors, removed, entries)
  if constants:
    origin += ", with its own normalisation"
  if metadata.get("producer") == PRODUCER:
    origin = f"an export of {PRODUCER}, {metadata.get('network')}"
    constants = _constants(path, metadata)
  with open(path, "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  return Weights(
    tensors,
    constants or normalization,
    origin,
    f"sha256:{digest}",
    metadata,
  )


def write(
  path: str | os.PathLike,
  module: nn.Module,
  params: Any,
  batch_stats: Any,
  metadata: Mapping[str, str],
) -> dict[str, str]:
  """Writes a network as a safetensors file of its PyTorch state_dict.

  The file is complete or absent. Only an export may be overwritten by one.

  Args:
    path: the file, `.safetensors`; its folder exists.
    module: the network.
    params: its parameters.
    batch_stats: its running statistics.
    metadata: further strings that the file shall say about itself.

  Returns:
    All the file says about itself: `metadata`, the network, its number of
    classes, and the mean and standard deviation that must be taken from and
    divide pixels in [0, 1], digit for digit.

  Raises:
    ValueError: for another ending, or if the file is another's.
    OSError: if it cannot be written.
  """
  path = pathlib.Path(os.path.expanduser(path))
  if path.suffix != FORMAT:
    raise ValueError(f"{path} must end in {FORMAT}: nothing else is written")
  _check_replaceable(path)
  about = dict(metadata) | {
    "format": "pt",
    "producer": PRODUCER,
    "network": module.label,
    "num_classes": str(module.num_classes),
    "mean": json.dumps([float(x) for x in module.mean]),
    "std": json.dumps([float(x) for x in module.std]),
  }
  part = path.with_name(f"{path.name}.part")
  try:
    save_file(names.to_torch(module, params, batch_stats), part, about)
    os.replace(part, path)
  except SafetensorError as error:
    raise OSError(f"{path} cannot be written: {error}") from error
  finally:
    part.unlink(missing_ok=True)
  return about


def _read_safetensors(
  path: pathlib.Path,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  try:
    with safe_open(path, framework="numpy") as file:
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
      metadata = file.metadata() or {}
  # Types that numpy lacks end in AttributeError or TypeError.
  except (SafetensorError, OSError, AttributeError, TypeError) as error:
    raise ValueError(
      f"{path} is truncated, damaged, no safetensors file, or of a type that "
      f"is not read ({path.stat().st_size} bytes; {_first_line(error)}): get "
      "the file again"
    ) from error
  for name, array in tensors.items():
    if array.dtype.name in ("float16", "bfloat16"):
      tensors[name] = array.astype(np.float32)
  return tensors, metadata


def _split(
  tensors: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], Normalization | None]:
  """Weights, and the normalisation's constants if there is one of each."""
  weights, means, stds = {}, [], []
  for name, array in tensors.items():
    *owners, last = name.split(".")
    if "attacker" in owners:  # MadryLab's wrapper saves the network twice
      continue
    if last in MEANS + STDS:
      values = tuple(float(x) for x in array.ravel())
      (means if last in MEANS else stds).append(values)
    else:
      weights[name] = array
  one = len(means) == len(stds) == 1
  return weights, (means[0], stds[0]) if one else None


def _strip(
  tensors: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], set[str]]:
  """Removes, again and again, a wrapper's prefix that every name has."""
  removed = set()
  while shared := [
    p for p in PREFIXES if all(n.startswith(p) for n in tensors)
  ]:
    tensors = {n.removeprefix(shared[0]): x for n, x in tensors.items()}
    removed.add(shared[0])
  return tensors, removed


def _origin(
  tensors: Mapping[str, np.ndarray], removed: set[str], entries: tuple[str, ...]
) -> tuple[str, Normalization | None]:
  """Whose file it is, and how its author's code normalises, if known."""
  if "net." in removed and {"layer1.0.conv1.weight", "fc.weight"} <= set(
    tensors
  ):
    return "a checkpoint of the paper's author's code", AUTHOR
  # Other code that trains this network on other constants, or on pixels as they
  # are, (xternalz's, TRADES', Carmon's) has neither that name nor that entry.
  wide = "block1.layer.0.conv1.weight" in tensors
  renamed = any(".conv_shortcut." in name for name in tensors)
  saved = "module." in removed and {"state_dict", "best_acc"} <= set(entries)
  if wide and (renamed or saved):
    return "a checkpoint of AugMix's code", AUGMIX
  return "a state_dict of unknown origin", None


def _constants(
  path: pathlib.Path, metadata: Mapping[str, str]
) -> Normalization:
  try:
    mean, std = (json.loads(metadata[name]) for name in ("mean", "std"))
    return tuple(map(float, mean)), tuple(map(float, std))
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path} is an export whose mean and std were changed: export it again"
    ) from error


def _check_replaceable(path: pathlib.Path) -> None:
  if not path.exists():
    return
  try:
    with safe_open(path, framework="numpy") as file:
      ours = (file.metadata() or {}).get("producer") == PRODUCER
  except (SafetensorError, OSError):
    ours = False
  if not ours:
    raise ValueError(
      f"{path} exists and is no export of {PRODUCER}: remove it, or choose "
      "another name"
    )


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
