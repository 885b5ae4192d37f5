"""Reads arrays from torch.save files without running code in them."""

import pathlib
import pickle
import re
import types
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

FORMATS = (".pt", ".pth", ".tar", ".ckpt")
DEPTH = 4  # maximum levels of nested dictionaries


class _Ignored:
  """Replaces parts of a checkpoint that are not needed, such as settings."""

  def __init__(self, *_: Any) -> None:
    pass

  def __setstate__(self, state: Any) -> None:
    pass


class _Array(_Ignored):
  """Replaces numpy arrays; in checkpoints, these are usually RNG states."""


_HARMLESS = {
  "numpy.ndarray": _Array,
  "numpy.dtype": _Ignored,
  "argparse.Namespace": _Ignored,  # arguments in timm and torchvision
  "pathlib.PosixPath": _Ignored,
  "pathlib._local.PosixPath": _Ignored,  # Python 3.13
}
for _package in ("core", "_core"):  # numpy 1 and 2
  _HARMLESS[f"numpy.{_package}.multiarray._reconstruct"] = _Array
  _HARMLESS[f"numpy.{_package}.multiarray.scalar"] = _Ignored


# File that marks an archive as code -> (description, code for its state_dict).
_PROGRAMS = {
  "constants.pkl": (
    "a TorchScript program",
    "torch.jit.load(FILE).state_dict()",
  ),
  "models/model.json": (
    "a torch.export program",
    "torch.export.load(FILE).state_dict",
  ),
}


def read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Reads the tensors of a state_dict, plain or inside a checkpoint.

  Args:
    path: file written by torch.save.

  Returns:
    Arrays by table and name, with half precision and bfloat16 converted to
    float32, and descriptions of tensors that cannot be read. A table is a
    dictionary with tensors; its key is its path in the file with a trailing
    dot: "" for the outermost, "state_dict.", "ema.model.".

  Raises:
    ModuleNotFoundError: if PyTorch is not installed.
    ValueError: if PyTorch is too old to be safe, or the file is damaged, refers
      to a function or class, or has no names for its tensors.
  """
  torch = _torch(path)
  _check_archive(path)
  content = _load(torch, path)
  what = f"a bare {type(content).__name__}"
  if isinstance(content, Mapping):
    if set(content) != {"state", "param_groups"}:
      return _tables(torch, content, path.stat().st_size)
    what = "an optimizer's state"
  raise ValueError(
    f"{path} has {what} and no network with named layers: store the "
    "network's state_dict, torch.save(network.state_dict(), FILE)"
  )


def _check_archive(path: pathlib.Path) -> None:
  """Rejects archives that torch.save did not write."""
  try:
    with zipfile.ZipFile(path) as archive:
      members = archive.infolist()
  # Not an archive, or a damaged one, for which reading gives a better error.
  except Exception:
    return
  parts = {member.filename.partition("/")[2] for member in members}
  for part, (kind, state) in _PROGRAMS.items():
    if part in parts:
      raise ValueError(
        f"{path} is {kind}, which is code; none of it was run: if you trust "
        f"the file, use torch.save({state}, FILE.pt)"
      )
  if packed := [m.filename for m in members if m.compress_type]:
    raise ValueError(
      f"{path} is compressed ({packed[0]}), but torch.save never compresses: "
      "get the file from its authors, or save it again"
    )


def _load(torch: types.ModuleType, path: pathlib.Path) -> Any:
  allowed = [(stand_in, name) for name, stand_in in _HARMLESS.items()]
  try:
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
      warnings.simplefilter("ignore")  # about old files; errors are enough
      return torch.load(path, map_location="cpu", weights_only=True)
  # Damaged files raise many types of errors (EOFError, RuntimeError, ...).
  except Exception as error:
    called = re.search(r"GLOBAL ([\w.]+\w)", str(error))
    if isinstance(error, pickle.UnpicklingError) and called:
      raise ValueError(
        f"{path} refers to {called[1]}, which is code; none of it was run: "
        "if you trust the file, save the network's state_dict alone, or get "
        "the file from its authors"
      ) from None
    raise ValueError(
      f"{path} is truncated, damaged, or not a weights file from torch.save "
      f"({path.stat().st_size} bytes; {type(error).__name__}): get the file "
      "again, or save the network's state_dict alone"
    ) from error


def _torch(path: pathlib.Path) -> types.ModuleType:
  try:
    import torch
  except ImportError:
    raise ModuleNotFoundError(
      f"{path} needs PyTorch, which is not installed: pip install torch, or "
      f"convert the file to .safetensors on a machine that has it"
    ) from None
  # Before 2.6, `weights_only` could run code (CVE-2025-32434).
  if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
    raise ValueError(
      f"PyTorch {torch.__version__} does not read untrusted files safely: "
      f"install 2.6 or newer, or convert {path} to .safetensors"
    )
  return torch


def _tables(
  torch: types.ModuleType, content: Mapping, size: int
) -> dict[str, dict[str, Any]]:
  """Tensors of all dictionaries, which may be nested; each is read once."""
  found, seen, level = {}, set(), {"": content}
  for _ in range(DEPTH):
    inner = {}
    for place, table in level.items():
      if id(table) in seen:
        continue
      seen.add(id(table))
      for name, value in table.items():
        if isinstance(name, str) and isinstance(value, Mapping):
          inner[f"{place}{name}."] = value
        elif isinstance(name, str) and isinstance(value, torch.Tensor | _Array):
          tensors = found.setdefault(place, {})
          tensors[name] = _array(torch, value, size)
    level = inner
  return found


def _array(torch: types.ModuleType, value: Any, size: int) -> np.ndarray | str:
  """A tensor's values, or a description; `size` is that of the file."""
  if isinstance(value, _Array):
    return "a numpy array"
  kind, *rest = (
    str(part).removeprefix("torch.")
    for part in (value.dtype, value.layout, value.device)
  )
  what = f"of type {kind} ({', '.join(rest)})"
  try:
    # A value takes at least one byte, so a larger tensor repeats values.
    if value.numel() > size:
      return f"{what} and larger than its file"
    half = value.dtype in (torch.float16, torch.bfloat16)
    return (value.float() if half else value).numpy(force=True)
  # A type or layout that numpy does not have, or a tensor without values.
  except (TypeError, RuntimeError):
    return what
