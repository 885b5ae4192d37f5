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
WRAPPERS = ("state_dict", "model", "net", "last")  # of checkpoints' state_dict


class _Ignored:
  """Stands for numpy's arrays in a checkpoint: random states, never weights."""

  def __init__(self, *_: Any) -> None:
    pass

  def __setstate__(self, state: Any) -> None:
    pass


_HARMLESS = ["numpy.ndarray", "numpy.dtype"] + [
  f"numpy.{package}.multiarray.{function}"
  for package in ("core", "_core")  # before numpy 2, and since
  for function in ("_reconstruct", "scalar")
]


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
  """Reads the arrays of a state_dict, plain or inside a checkpoint.

  Args:
    path: file of torch.save.

  Returns:
    Arrays by name, half precision and bfloat16 as float32; and the names of
    the file's outermost entries.

  Raises:
    ModuleNotFoundError: if PyTorch is absent.
    ValueError: if PyTorch is too old to be safe, or the file is damaged or asks
      for a function or class.
  """
  torch = _torch(path)
  if zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as archive:
      packed = {i.filename for i in archive.infolist() if i.compress_type}
    if packed:
      raise ValueError(
        f"{path} is compressed ({min(packed)}), which torch.save never does: "
        "get the file from its authors, or save it again"
      )
  allowed = [(_Ignored, name) for name in _HARMLESS]
  try:
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
      warnings.simplefilter("ignore")  # about the file's age; errors say more
      content = torch.load(path, map_location="cpu", weights_only=True)
    entries = tuple(map(str, content)) if isinstance(content, Mapping) else ()
    return _arrays(torch, content), entries
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
      f"PyTorch {torch.__version__} does not read files of strangers safely: "
      f"install 2.6 or newer, or convert {path} to .safetensors"
    )
  return torch


def _arrays(torch: types.ModuleType, content: Any) -> dict[str, np.ndarray]:
  """Arrays of a state_dict, or of one inside a checkpoint."""
  for _ in WRAPPERS:
    inner = [w for w in WRAPPERS if isinstance(content.get(w), Mapping)]
    content = content[inner[0]] if inner else content
  arrays = {}
  for name, tensor in content.items():
    if isinstance(tensor, torch.Tensor):
      tensor = tensor.detach()
      if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
      arrays[str(name)] = tensor.numpy()
  return arrays
