"""Reads and writes safetensors, reads PyTorch files; never runs their code."""

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
  """The content of a weights file.

  Attributes:
    tensors: arrays by PyTorch's names, without wrappers' prefixes and without
      normalization constants. Half precision and bfloat16 are converted to
      float32, which does not change the values.
    normalization: mean and standard deviation of pixels in [0, 1]; None if the
      file does not state them.
    stated: description of the normalization, or of what was found instead,
      worded to follow the file's name in a sentence.
    notes: which parts of the file were not used, one sentence each.
    fingerprint: SHA-256 of the file, 'sha256:' and 64 hexadecimal digits.
    metadata: metadata of a safetensors file.
  """

  tensors: dict[str, np.ndarray]
  normalization: normalization.Normalization | None
  stated: str
  notes: tuple[str, ...]
  fingerprint: str
  metadata: dict[str, str]


def read(path: str | os.PathLike, entry: str = "") -> Weights:
  """Reads a weights file without running code in it.

  Args:
    path: a `.safetensors` file, or a `.pt`, `.pth`, `.tar` or `.ckpt` file
      from torch.save, which requires PyTorch.
    entry: which of the file's networks; see `config.weights.entry`.

  Returns:
    The content.

  Raises:
    FileNotFoundError: if there is no such file.
    ModuleNotFoundError: if PyTorch is needed but not installed.
    ValueError: if the file is damaged, is not a weights file, refers to code,
      contains no network, or contains several without a main one; or if PyTorch
      is too old to be safe.
  """
  path = pathlib.Path(os.path.expanduser(path))
  if not path.is_file():
    raise FileNotFoundError(f"there is no weights file {path}")
  if path.suffix == FORMAT:
    tensors, metadata = _read_safetensors(path)
    tables = {"": tensors}
  elif path.suffix in torch_file.FORMATS:
    tables, metadata = torch_file.read(path), {}
  else:
    raise ValueError(
      f"{path} is not a weights file: give one that ends in "
      f"{', '.join((FORMAT, *torch_file.FORMATS))}"
    )
  network, notes = _network(path, tables, entry)
  stated = normalization.stated(_constants(metadata) or network.constants)
  digest = manifest.digest(path)
  return Weights(network.tensors, *stated, notes, digest, metadata)


def write(
  path: str | os.PathLike,
  module: nn.Module,
  params: Any,
  batch_stats: Any,
  metadata: Mapping[str, str],
) -> dict[str, str]:
  """Writes a network as a safetensors file of its PyTorch state_dict.

  The file is written completely or not at all. An existing file is only
  overwritten if it is an export.

  Args:
    path: the `.safetensors` file; its folder must exist.
    module: the network.
    params: its parameters.
    batch_stats: its running statistics.
    metadata: further metadata.

  Returns:
    The metadata of the file: `metadata`, the network, its number of classes,
    and the exact mean and standard deviation for pixels in [0, 1].

  Raises:
    ValueError: if the file exists and is not an export.
    OSError: if it cannot be written.
  """
  path = pathlib.Path(os.path.expanduser(path))
  if path.exists() and _producer(path) != PRODUCER:
    raise ValueError(
      f"{path} exists and is not an export of {PRODUCER}: remove it, or choose "
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
    raise ValueError(
      f"{path} is truncated, damaged, not a safetensors file, or of an "
      f"unsupported type ({path.stat().st_size} bytes; {error!r:.150}): get "
      "the file again"
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
  """The chosen network, and notes on what was not used."""
  found, rest = networks.find(tables)
  if not found:
    has = f": it has {names.listed(rest)}" if rest else ""
    raise ValueError(
      f"{path} holds no weights of a supported network{has}: give a "
      "state_dict with the names in ram_jax/interop/names.py"
    )
  network, different = networks.choose(found, entry, path)
  networks.check(network, path)
  notes = []
  if different:
    notes.append(
      f"of the networks in the file, {network.entry or 'the outermost'} was "
      f"used, not {names.listed(different)} (choose with "
      "config.weights.entry)"
    )
  if rest:
    notes.append(f"unused tensors in the file: {names.listed(rest)}")
  return network, tuple(notes)


def _constants(metadata: Mapping[str, str]) -> dict[str, np.ndarray]:
  """The exact constants in an export; empty if damaged, and for other files."""
  if metadata.get("producer") != PRODUCER:
    return {}
  try:
    read = {name: json.loads(metadata[name]) for name in ("mean", "std")}
    return {name: np.array(values, float) for name, values in read.items()}
  except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
    return {}


def _producer(path: pathlib.Path) -> str | None:
  """The producer of a safetensors file; None for other files."""
  try:
    with safe_open(path, framework="numpy") as file:
      return (file.metadata() or {}).get("producer")
  except (SafetensorError, OSError):
    return None
