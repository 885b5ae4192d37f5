"""Reads untrusted pickled batches of arrays without running their code.

A pickle names the functions to call, so `pickle.load` runs whatever a file's
author wished. Here the few names that numpy's arrays need stand for harmless
classes of our own, every other name is an error, and numpy sees bytes only.
"""

import pathlib
import pickle
import re
from typing import Any, BinaryIO

import numpy as np


def load(path: pathlib.Path) -> dict[str, Any]:
  """Reads a pickled dictionary of numbers, strings, lists and arrays.

  Args:
    path: file written by Python 2 or 3, any protocol, numpy 1 or 2.

  Returns:
    The dictionary; its keys are str whatever wrote them. Strings of Python 2
    are bytes.

  Raises:
    ValueError: the file is damaged, holds something else than a dictionary, or
      asks for a function or class that no array needs.
  """
  try:
    with open(path, "rb") as file:
      batch = _Unpickler(file, path).load()
    content = _convert(batch)
  except _ForbiddenError as error:
    raise ValueError(str(error)) from None
  # A damaged pickle fails in any of a dozen ways (EOFError, KeyError, ...).
  except Exception as error:
    raise ValueError(
      f"{path} is truncated or no pickle of arrays"
      f" ({path.stat().st_size} bytes; {error!r}): get the file again"
    ) from error
  if not isinstance(content, dict):
    raise ValueError(
      f"{path} holds a {type(content).__name__}, expected a dictionary"
    )
  return {_text(key): value for key, value in content.items()}


class _ForbiddenError(Exception):
  """A pickle named a function or class that no array needs."""


class _Dtype:
  """Stands for numpy.dtype."""

  def __init__(self, code: str | bytes, *_: Any) -> None:
    self.code, self.order = _text(code), "|"

  def __setstate__(self, state: tuple) -> None:
    self.order = _text(state[1])

  def numpy(self) -> np.dtype:
    # Integers only: numpy would follow the bytes of an object array.
    if not re.fullmatch("[iu][1248]", self.code):
      raise ValueError(f"arrays of type {self.code!r} are not read")
    return np.dtype(self.code).newbyteorder(self.order)


class _Array:
  """Stands for numpy.ndarray, and for the function that makes an empty one."""

  def __init__(self, *_: Any) -> None:
    self.state = None

  def __setstate__(self, state: tuple) -> None:
    _, shape, dtype, fortran, raw = state
    self.state = (raw, dtype, shape, "F" if fortran else "C")

  def numpy(self) -> np.ndarray:
    raw, dtype, shape, order = self.state
    flat = np.frombuffer(raw, dtype.numpy())
    return flat.reshape(shape, order=_text(order))


def _from_buffer(*state: Any) -> _Array:
  """Stands for the function that makes an array in protocol 5."""
  array = _Array()
  array.state = state
  return array


def _scalar(dtype: _Dtype, raw: bytes) -> _Array:
  """Stands for the function that makes a numpy number."""
  return _from_buffer(raw, dtype, (), "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
  """Stands for _codecs.encode, by which protocol 2 writes bytes."""
  if encoding != "latin1":
    raise ValueError(f"bytes in encoding {encoding!r} are not read")
  return text.encode("latin1")


_ALLOWED = {
  "numpy.ndarray": _Array,
  "numpy.dtype": _Dtype,
  "_codecs.encode": _encode,
}
_MULTIARRAY = {
  "multiarray._reconstruct": _Array,
  "multiarray.scalar": _scalar,
  "numeric._frombuffer": _from_buffer,
}
# The package moved in numpy 2.
_ALLOWED |= {f"numpy.core.{name}": it for name, it in _MULTIARRAY.items()}
_ALLOWED |= {f"numpy._core.{name}": it for name, it in _MULTIARRAY.items()}


class _Unpickler(pickle.Unpickler):
  """Builds plain values and the stand-ins above."""

  def __init__(self, file: BinaryIO, path: pathlib.Path) -> None:
    super().__init__(file, encoding="bytes")
    self._path = path

  def find_class(self, module: str, name: str) -> Any:
    try:
      return _ALLOWED[f"{module}.{name}"]
    except KeyError:
      raise _ForbiddenError(
        f"{self._path} asks for {module}.{name}, which no data set needs;"
        " nothing was run: get the file from its authors"
      ) from None


def _convert(value: Any) -> Any:
  """Stand-ins to arrays, in a dictionary and in its lists too."""
  if isinstance(value, dict):
    return {key: _entry(entry) for key, entry in value.items()}
  return _entry(value)


def _entry(value: Any) -> Any:
  if isinstance(value, _Array):
    return value.numpy()
  if isinstance(value, list):
    # Lists of lists of lists, each named twice, would unfold without end.
    if any(isinstance(part, list | dict | tuple) for part in value):
      raise ValueError("a list holds lists")
    return [_entry(part) for part in value]
  return value


def _text(value: str | bytes) -> str:
  return value.decode("latin1") if isinstance(value, bytes) else value
