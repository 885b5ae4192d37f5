"""Files of weights: safetensors in and out, PyTorch's in; none runs code."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ram_jax.interop import names, networks, normalization, torch_file

FORMAT = ".safetensors"
PRODUCER = "ram_jax"


@dataclasses.dataclass(frozen=True)
class Weights:
  """What a file of weights holds.

  Attributes:
    tensors: arrays by PyTorch's names, without prefixes of wrappers and
      without constants of normalisation. Half precision and bfloat16 have
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
    tables, entries = {"": tensors} if tensors else {}, ()
  elif path.suffix in torch_file.FORMATS:
    (tables, entries), metadata = torch_file.read(path), {}
  else:
    raise ValueError(
      f"{path} is no file of weights: give one that ends in "
      f"{', '.join((FORMAT, *torch_file.FORMATS))}"
    )
  network, notes, constants = _network(path, tables, entries, entry)
  if metadata.get("producer") == PRODUCER:
    values = _constants(path, metadata)
    stated = f"states {normalization.shown(*values)} (metadata)"
  else:
    values, stated = normalization.stated(constants)
  with open(path, "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  fingerprint = f"sha256:{digest}"
  return Weights(network, values, stated, notes, fingerprint, metadata)


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
      tensors = {name: _array(file, name) for name in file.keys()}  # noqa: SIM118
      metadata = file.metadata() or {}
  except (SafetensorError, OSError) as error:
    raise ValueError(
      f"{path} is truncated, damaged, no safetensors file, or of a type that "
      f"is not read ({path.stat().st_size} bytes; {_first_line(error)}): get "
      "the file again"
    ) from error
  return tensors, metadata


def _array(file: Any, name: str) -> np.ndarray | networks.Unread:
  try:
    array = file.get_tensor(name)
  except (AttributeError, TypeError):  # numpy has no such type
    return networks.unread(file.get_slice(name).get_dtype())
  half = array.dtype.name in ("float16", "bfloat16")
  return array.astype(np.float32) if half else array


def _network(
  path: pathlib.Path,
  tables: networks.Tables,
  entries: Sequence[str],
  entry: str,
) -> tuple[dict[str, np.ndarray], tuple[str, ...], dict[str, Any]]:
  """The chosen network's tensors, what was left out, and its constants."""
  found = networks.find(tables)
  if not found:
    has = f"; its entries are {networks.listed(entries)}" if entries else ""
    has += f"; {networks.describe(tables)}" if tables else ""
    raise ValueError(
      f"{path} holds no weights of a network known here{has}: give a "
      "state_dict with names of ram_jax/interop/names.py"
    )
  network, different = networks.choose(found, entry.rstrip("."), path)
  table = tables[network.table]
  prefixes = [n.prefix for n in found if n.table == network.table]
  of = {p: normalization.constants(table, p, prefixes) for p in prefixes}
  own = {name: table[name] for name in of[network.prefix]}
  tensors = {
    name: tensor
    for name, tensor in network.tensors.items()
    if f"{network.prefix}{name}" not in own
  }
  networks.check(tensors, network.prefix, path)
  notes = []
  if different:
    notes.append(
      f"of the networks in the file, {network.place or 'the outermost'} was "
      f"taken and not {networks.listed(different)} (config.weights.entry "
      "chooses)"
    )
  used = {name for names_ in of.values() for name in names_}
  unused = [
    name
    for name in table
    if name not in used and not name.startswith(tuple(prefixes))
  ]
  if unused:
    notes.append(f"left out of the file: {networks.listed(unused)}")
  return tensors, tuple(notes), own


def _constants(
  path: pathlib.Path, metadata: Mapping[str, str]
) -> normalization.Normalization:
  try:
    mean, std = (json.loads(metadata[name]) for name in ("mean", "std"))
    if not normalization.allowed(mean, std):
      raise ValueError(f"they must be {normalization.ALLOWED}")
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
