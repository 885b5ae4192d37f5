"""Files of weights: safetensors in and out, PyTorch's in; none runs code."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ram_jax.data import manifest
from ram_jax.interop import names, networks, normalization, torch_file

FORMAT = ".safetensors"
PRODUCER = "ram_jax"


@dataclasses.dataclass(frozen=True)
class Weights:
  """What a file of weights holds.

  Attributes:
    tensors: arrays by PyTorch's names, without prefixes of wrappers and
      without constants of normalization. Half precision and bfloat16 have
      become float32, which changes no value.
    normalization: mean and standard deviation that the network subtracts and
      divides by, of pixels in [0, 1]; None if the file does not state them.
    stated: what states them, or what there is instead: words to follow the
      file's name.
    notes: what of the file was not taken, one sentence each.
    fingerprint: 'sha256:' and 64 hexadecimal digits, of the file's bytes.
    metadata: what a safetensors file says about itself.
  """

  tensors: dict[str, np.ndarray]
  normalization: normalization.Normalization | None
  stated: str
  notes: tuple[str, ...]
  fingerprint: str
  metadata: dict[str, str]


def read(path: str | os.PathLike, entry: str = "") -> Weights:
  """Reads a file of weights without running anything in it.

  Args:
    path: `.safetensors`; or `.pt`, `.pth`, `.tar`, `.ckpt` of torch.save, for
      which PyTorch must be installed.
    entry: which of the file's networks, as `config.weights.entry`.

  Returns:
    The content.

  Raises:
    FileNotFoundError: if there is no such file.
    ModuleNotFoundError: if PyTorch is needed and absent.
    ValueError: if the file is damaged, of another kind, or holds code, or no
      network or several, or the PyTorch that it needs is too old to be safe.
  """
  path = pathlib.Path(os.path.expanduser(path))
  if path.is_dir():
    raise ValueError(f"{path} is a folder: name the file of weights in it")
  if not path.exists():
    raise FileNotFoundError(f"there is no file of weights {path}")
  if path.suffix == FORMAT:
    tensors, metadata = _read_safetensors(path)
    tables = {"": tensors}
  elif path.suffix in torch_file.FORMATS:
    tables, metadata = torch_file.read(path), {}
  else:
    raise ValueError(
      f"{path} is no file of weights: give one that ends in "
      f"{', '.join((FORMAT, *torch_file.FORMATS))}"
    )
  network, notes = _network(path, tables, entry)
  if metadata.get("producer") == PRODUCER:
    values = _constants(path, metadata)
    stated = f"states {normalization.shown(*values)} (metadata)"
  else:
    values, stated = normalization.stated(network.constants)
  digest = manifest.digest(path)
  return Weights(network.tensors, values, stated, notes, digest, metadata)


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
  if path.exists() and _producer(path) != PRODUCER:
    raise ValueError(
      f"{path} exists and is no export of {PRODUCER}: remove it, or choose "
      "another name"
    )
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
      tensors = {name: _array(file, name) for name in file.keys()}  # noqa: SIM118
      metadata = file.metadata() or {}
  except (SafetensorError, OSError) as error:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    raise ValueError(
      f"{path} is truncated, damaged, no safetensors file, or of a type that "
      f"is not read ({path.stat().st_size} bytes; {why}): get the file again"
    ) from error
  return tensors, metadata


def _array(file: Any, name: str) -> np.ndarray | str:
  try:
    array = file.get_tensor(name)
  except (AttributeError, TypeError):  # numpy has no such type
    return f"of type {file.get_slice(name).get_dtype()}"
  half = array.dtype.name in ("float16", "bfloat16")
  return array.astype(np.float32) if half else array


def _network(
  path: pathlib.Path, tables: Mapping[str, Mapping[str, Any]], entry: str
) -> tuple[networks.Network, tuple[str, ...]]:
  """The chosen network, and what was left out."""
  found, rest = networks.find(tables)
  if not found:
    has = f": it has {names.listed(rest)}" if rest else ""
    raise ValueError(
      f"{path} holds no weights of a network known here{has}: give a "
      "state_dict with names of ram_jax/interop/names.py"
    )
  network, different = networks.choose(found, entry, path)
  networks.check(network, path)
  notes = []
  if different:
    notes.append(
      f"of the networks in the file, {network.entry or 'the outermost'} was "
      f"taken and not {names.listed(different)} (config.weights.entry "
      "chooses)"
    )
  if rest:
    notes.append(f"left out of the file: {names.listed(rest)}")
  return network, tuple(notes)


def _constants(
  path: pathlib.Path, metadata: Mapping[str, str]
) -> normalization.Normalization:
  try:
    mean, std = (json.loads(metadata[name]) for name in ("mean", "std"))
    if normalization.allowed(mean, std):
      return tuple(map(float, mean)), tuple(map(float, std))
  except (KeyError, TypeError, ValueError):
    pass
  raise ValueError(
    f"{path} is an export whose mean and std were changed: export it again"
  )


def _producer(path: pathlib.Path) -> str | None:
  """What wrote a safetensors file; None for another file."""
  try:
    with safe_open(path, framework="numpy") as file:
      return (file.metadata() or {}).get("producer")
  except (SafetensorError, OSError):
    return None
