"""Reads untrusted pickled batches of arrays without running their code.

A pickle names the functions to call, so `pickle.load` can run arbitrary code.
Here, the few names that numpy arrays need refer to harmless replacements, every
other name is an error, and numpy only receives raw bytes.
"""

import pathlib
import pickle
import re
from typing import Any

import numpy as np


def load(path: pathlib.Path) -> dict[str, Any]:
  """Reads a pickled dictionary of numbers, strings, lists and arrays.

  Args:
    path: file written by Python 2 or 3 and numpy 1 or 2, with any protocol.

  Returns:
    The dictionary; its keys are always str. Strings from Python 2 are bytes.

  Raises:
    ValueError: the file is damaged, does not contain a dictionary, or uses a
      function or class that no array needs.
  """
  try:
    with open(path, "rb") as file:
      batch = _Unpickler(file, encoding="bytes").load()
    if isinstance(batch, dict):
      return {_text(key): _entry(value) for key, value in batch.items()}
  except _ForbiddenError as error:
    raise ValueError(
      f"{path} refers to {error}, which no data set needs; nothing was run: "
      "get the file from its authors"
    ) from None
  # Damaged pickles raise many types of errors (EOFError, KeyError, ...).
  except Exception as error:
    raise ValueError(
      f"{path} is truncated or not a pickle of arrays"
      f" ({path.stat().st_size} bytes; {error!r}): get the file again"
    ) from error
  raise ValueError(
    f"{path} holds a {type(batch).__name__}, expected a dictionary"
  )


class _ForbiddenError(Exception):
  """A pickle refers to a function or class that no array needs."""


class _Dtype:
  """Replaces numpy.dtype."""

  def __init__(self, code: str | bytes, *_: Any) -> None:
    self.code, self.order = _text(code), "|"

  def __setstate__(self, state: tuple) -> None:
    self.order = _text(state[1])


class _Array:
  """Replaces an array that is created empty and then filled."""

  def __init__(self, *_: Any) -> None:
    self.values = None

  def __setstate__(self, state: tuple) -> None:
    _, shape, dtype, fortran, raw = state
    self.values = _from_buffer(raw, dtype, shape, "F" if fortran else "C")


def _from_buffer(
  raw: bytes, dtype: _Dtype, shape: tuple[int, ...] = (), order: str = "C"
) -> np.ndarray:
  """Replaces the constructor of a scalar or, in protocol 5, of an array."""
  # Only integers: numpy would interpret bytes of object arrays as pointers.
  if not re.fullmatch("[iu][1248]", dtype.code):
    raise ValueError(f"arrays of type {dtype.code!r} are not supported")
  kind = np.dtype(dtype.code).newbyteorder(dtype.order)
  return np.frombuffer(raw, kind).reshape(shape, order=_text(order))


_ALLOWED = {
  "numpy.ndarray": _Array,
  "numpy.dtype": _Dtype,
  "_codecs.encode": str.encode,  # which protocol 2 uses for bytes
}
for _package in ("numpy.core", "numpy._core"):  # numpy 1 and 2
  _ALLOWED |= {
    f"{_package}.multiarray._reconstruct": _Array,
    f"{_package}.multiarray.scalar": lambda dtype, raw: _from_buffer(
      raw, dtype
    ),
    f"{_package}.numeric._frombuffer": _from_buffer,
  }


class _Unpickler(pickle.Unpickler):
  """Builds plain values, and the replacements above for arrays."""

  def find_class(self, module: str, name: str) -> Any:
    try:
      return _ALLOWED[f"{module}.{name}"]
    except KeyError:
      raise _ForbiddenError(f"{module}.{name}") from None


def _entry(value: Any) -> Any:
  # Nested lists that refer to each other could expand exponentially.
  if isinstance(value, list) and any(
    isinstance(part, list | dict | tuple) for part in value
  ):
    raise ValueError("a list contains lists, dictionaries or tuples")
  return value.values if isinstance(value, _Array) else value


def _text(value: str | bytes) -> str:
  return value.decode("latin1") if isinstance(value, bytes) else value
