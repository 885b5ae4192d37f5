"""Arrays of files that torch.save wrote, without running what is in them."""

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
DEPTH = 4  # levels of tables in tables that are looked at


class _Ignored:
  """Stands for what a checkpoint has beside weights: settings, numbers."""

  def __init__(self, *_: Any) -> None:
    pass

  def __setstate__(self, state: Any) -> None:
    pass


class _Array(_Ignored):
  """Stands for numpy's arrays: in a checkpoint they are random states."""


_MULTIARRAY = [f"numpy.{package}.multiarray" for package in ("core", "_core")]
_HARMLESS = {
  "numpy.ndarray": _Array,
  "numpy.dtype": _Ignored,
  "argparse.Namespace": _Ignored,  # arguments of timm's and torchvision's
  "pathlib.PosixPath": _Ignored,
  "pathlib._local.PosixPath": _Ignored,  # Python 3.13's
}
for _module in _MULTIARRAY:  # before numpy 2, and since
  _HARMLESS[f"{_module}._reconstruct"] = _Array
  _HARMLESS[f"{_module}.scalar"] = _Ignored


# What marks an archive of code, what it is, and what reads it.
_PROGRAMS = {
  "constants.pkl": ("a TorchScript program", "torch.jit.load"),
  "models/model.json": ("a program of torch.export", "torch.export.load"),
}


def read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Reads the tensors of a state_dict, plain or inside a checkpoint.

  Args:
    path: file of torch.save.

  Returns:
    Arrays by table and name, half precision and bfloat16 as float32, and words
    for what cannot be read. A table is a dictionary in the file with tensors,
    named by its place with a last dot: "" for the outermost, "state_dict.",
    "ema.model.".

  Raises:
    ModuleNotFoundError: if PyTorch is absent.
    ValueError: if PyTorch is too old to be safe, or the file is damaged, asks
      for a function or class, or has no names for its tensors.
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
    f"{path} has {what} and no network with names of layers: store the "
    "network's state_dict, torch.save(network.state_dict(), FILE)"
  )


def _check_archive(path: pathlib.Path) -> None:
  """Rejects archives that are not torch.save's."""
  try:
    with zipfile.ZipFile(path) as archive:
      members = archive.infolist()
  # No archive, or a damaged one, of which the reading is about to say more.
  except Exception:
    return
  parts = {member.filename.partition("/")[2] for member in members}
  for part, (kind, load) in _PROGRAMS.items():
    if part in parts:
      raise ValueError(
        f"{path} is {kind}, which is code; nothing of it was run: where you "
        f"trust the file, torch.save({load}(FILE).state_dict(), FILE.pt)"
      )
  if packed := [m.filename for m in members if m.compress_type]:
    raise ValueError(
      f"{path} is compressed ({packed[0]}), which torch.save never does: get "
      "the file from its authors, or save it again"
    )


def _load(torch: types.ModuleType, path: pathlib.Path) -> Any:
  allowed = [(stand_in, name) for name, stand_in in _HARMLESS.items()]
  try:
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
      warnings.simplefilter("ignore")  # about the file's age; errors say more
      return torch.load(path, map_location="cpu", weights_only=True)
  # A damaged file fails in many ways (EOFError, RuntimeError, OSError, ...).
  except Exception as error:
    called = re.search(r"GLOBAL ([\w.]+\w)", str(error))
    if isinstance(error, pickle.UnpicklingError) and called:
      raise ValueError(
        f"{path} asks for {called[1]}, which is code and no weight; nothing "
        "of it was run: save the network's state_dict alone, where you trust "
        "the file, or get it from its authors"
      ) from None
    raise ValueError(
      f"{path} is truncated, damaged, or no file of torch.save with weights "
      f"({path.stat().st_size} bytes; {type(error).__name__}): get the file "
      "again, or save the network's state_dict alone"
    ) from error


def _torch(path: pathlib.Path) -> types.ModuleType:
  try:
    import torch
  except ImportError:
    raise ModuleNotFoundError(
      f"{path} is PyTorch's own format and PyTorch is not installed: pip "
      f"install torch, or convert the file to .safetensors where it is"
    ) from None
  # Before 2.6 `weights_only` could be made to run code (CVE-2025-32434).
  if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
    raise ValueError(
      f"PyTorch {torch.__version__} does not read untrusted files safely: "
      f"install 2.6 or newer, or convert {path} to .safetensors"
    )
  return torch


def _tables(
  torch: types.ModuleType, content: Mapping, size: int
) -> dict[str, dict[str, Any]]:
  """Tensors of all dictionaries, each once: they may hold each other."""
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
  """A tensor's values, or what stands for them; `size`: of the file."""
  if isinstance(value, _Array):
    return "a numpy array"
  kind, *rest = (
    str(part).removeprefix("torch.")
    for part in (value.dtype, value.layout, value.device)
  )
  what = f"of type {kind} ({', '.join(rest)})"
  try:
    # By repetition: no value is smaller than a byte.
    if value.numel() > size:
      return f"{what} and larger than its file"
    half = value.dtype in (torch.float16, torch.bfloat16)
    return (value.float() if half else value).numpy(force=True)
  # A type or layout that numpy has not, or no values.
  except (TypeError, RuntimeError):
    return what
