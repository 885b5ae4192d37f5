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

from ram_jax.interop import networks

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


def read(
  path: pathlib.Path,
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
  """Reads the tensors of a state_dict, plain or inside a checkpoint.

  Args:
    path: file of torch.save.

  Returns:
    Arrays by table and name, half precision and bfloat16 as float32, `Unread`
    for what cannot be weights; and the names of the file's outermost entries.
    A table is a dictionary in the file with tensors, named by its place: ""
    for the outermost, "state_dict", "ema.model".

  Raises:
    ModuleNotFoundError: if PyTorch is absent.
    ValueError: if PyTorch is too old to be safe, or the file is damaged, asks
      for a function or class, or has no names for its tensors.
  """
  torch = _torch(path)
  if zipfile.is_zipfile(path):
    _check_archive(path)
  content = _load(torch, path)
  if not isinstance(content, Mapping):
    raise ValueError(
      f"{path} has {_kind(torch, content)} and no names of layers: store the "
      "network's state_dict, torch.save(network.state_dict(), FILE)"
    )
  if set(content) == {"state", "param_groups"}:
    raise ValueError(
      f"{path} has an optimizer's state and no network: store the network's "
      "state_dict, torch.save(network.state_dict(), FILE)"
    )
  tables = _tables(torch, content, path.stat().st_size)
  return tables, tuple(map(str, content))


def _check_archive(path: pathlib.Path) -> None:
  """Rejects archives that are not torch.save's."""
  try:
    with zipfile.ZipFile(path) as archive:
      packed = {i.filename for i in archive.infolist() if i.compress_type}
      parts = {name.partition("/")[2] for name in archive.namelist()}
  # A damaged directory fails in many ways; the reading of it is about to.
  except Exception:
    return
  for part, kind, load in (
    ("constants.pkl", "a TorchScript program", "torch.jit.load(FILE)"),
    (
      "models/model.json",
      "a program of torch.export",
      "torch.export.load(FILE)",
    ),
  ):
    if part in parts:
      raise ValueError(
        f"{path} is {kind}, which is code; nothing of it was run: where you "
        f"trust the file, torch.save({load}.state_dict(), FILE.pt)"
      )
  if packed:
    raise ValueError(
      f"{path} is compressed ({min(packed)}), which torch.save never does: "
      "get the file from its authors, or save it again"
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


def _kind(torch: types.ModuleType, content: Any) -> str:
  if isinstance(content, torch.Tensor):
    return f"a bare tensor {list(content.shape)}"
  if isinstance(content, list | tuple):
    return f"a {type(content).__name__} of {len(content)} parts"
  return f"a bare {type(content).__name__}"


def _tables(
  torch: types.ModuleType, content: Mapping, size: int
) -> dict[str, dict[str, Any]]:
  """Tensors of all dictionaries, each once: they may hold each other."""
  found, seen, level = {}, set(), [("", content)]
  for _ in range(DEPTH):
    inner = []
    for place, table in level:
      if id(table) in seen:
        continue
      seen.add(id(table))
      tensors = {}
      named = ((n, x) for n, x in table.items() if isinstance(n, str))
      for name, value in named:
        if isinstance(value, Mapping):
          inner.append((f"{place}.{name}" if place else name, value))
        elif isinstance(value, torch.Tensor | _Array):
          tensors[name] = _array(torch, value, size)
      if tensors:
        found[place] = tensors
    level = inner
  return found


def _array(
  torch: types.ModuleType, value: Any, size: int
) -> np.ndarray | networks.Unread:
  """A tensor's values, or what stands for them.

  Args:
    torch: PyTorch.
    value: a tensor or `_Array`.
    size: of the file in bytes.
  """
  store = "store the state_dict with {} for each tensor".format
  if isinstance(value, _Array):
    return networks.Unread("numpy's", store("torch.from_numpy(array)"))
  tensor = value.detach()
  kind = tensor.dtype if tensor.layout == torch.strided else tensor.layout
  kind = str(kind).removeprefix("torch.")
  if tensor.layout != torch.strided or tensor.is_nested:
    return networks.Unread(f"not dense ({kind})", store("tensor.to_dense()"))
  if tensor.is_meta:
    return networks.Unread(
      "without values (on the device meta)",
      "store the state_dict after its values were loaded",
    )
  if tensor.is_quantized:
    return networks.Unread(f"quantized ({kind})", store("tensor.dequantize()"))
  if tensor.numel() > size:  # no value is smaller than a byte
    return networks.Unread(
      "larger than its file, by repetition", store("tensor.clone()")
    )
  if tensor.dtype in (torch.float16, torch.bfloat16):
    tensor = tensor.float()
  try:
    return tensor.resolve_conj().resolve_neg().numpy()
  except TypeError:  # numpy has no such type
    return networks.unread(kind)
