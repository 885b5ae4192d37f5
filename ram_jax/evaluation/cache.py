"""Finished parts of an evaluation, kept until its results are written."""

import base64
import hashlib
import importlib.metadata
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ram_jax import parallel
from ram_jax.contracts import Cache
from ram_jax.runs.signals import Stop

# What numbers depend on: all of the package, not the evaluation alone.
PACKAGE = pathlib.Path(__file__).parents[1]


class Parts:
  """The parts of a run's evaluations, one a line of a file.

  A line that was not written whole, or was damaged later, does not count.
  """

  def __init__(self, path: pathlib.Path, stop: Stop) -> None:
    """Reads what there is.

    Args:
      path: the file; it may be absent.
      stop: asked before each part whether to leave.

    Raises:
      ValueError: if the processes see different files.
    """
    self._path, self._stop, self._kept = path, stop, _read(path)
    self.seconds = 0.0  # that the parts took which were not evaluated again
    parallel.check_agreement(
      len(self._kept), f"what {path} holds (is it shared by all hosts?)"
    )

  def cache_for(self, depends: Any) -> Cache:
    """The parts of one evaluator.

    Args:
      depends: all that they depend on, as JSON; parts of anything else are not
        used.

    Returns:
      What the evaluator calls for each part; values are JSON or arrays.
    """
    key = _sha256(json.dumps(depends, sort_keys=True))

    def cache(name: str, compute: Callable[[], Any]) -> Any:
      self._stop.boundary()
      row = self._kept.get((key, name))
      if row:
        self.seconds += row["seconds"]
      else:
        started = time.monotonic()
        # Through JSON also now, so that a kept value is no other.
        value = json.loads(
          json.dumps(compute(), default=_encode, allow_nan=False)
        )
        row = {"key": key, "name": name, "value": value}
        self._keep(row | {"seconds": time.monotonic() - started})
      return json.loads(json.dumps(row["value"]), object_hook=_decode)

    return cache

  def _keep(self, row: dict[str, Any]) -> None:
    if parallel.is_first_process():
      self._path.parent.mkdir(parents=True, exist_ok=True)
      row = row | {"sha256": _sha256(json.dumps(row))}
      # In one piece, on a line of its own, whatever a killed run left before.
      with open(self._path, "a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(row))

  def remove(self) -> None:
    """Removes the file: the results have everything."""
    self._path.unlink(missing_ok=True)


def cache_key() -> dict[str, Any]:
  """What numbers depend on beside a config, weights and data.

  Returns:
    This program's text, all installed packages, XLA's flags and JAX's width.
  """
  root, digest = PACKAGE, hashlib.sha256()
  for path in sorted(root.rglob("*.py")):
    digest.update(f"{path.relative_to(root)};".encode() + path.read_bytes())
  packages = importlib.metadata.distributions()
  return {
    "program": digest.hexdigest(),
    "packages": sorted(f"{p.name} {p.version}" for p in packages),
    "flags": os.environ.get("XLA_FLAGS", ""),
    "x64": jax.config.jax_enable_x64,
  }


def stamp(*folders: str) -> str:
  """Stands for the files in folders, without reading them.

  Args:
    *folders: names, '' for none ('~' is expanded).

  Returns:
    SHA-256 of the files' names, sizes and times.
  """
  files = [
    (str(path), path.stat().st_size, path.stat().st_mtime_ns)
    for folder in filter(None, folders)
    for path in sorted(pathlib.Path(os.path.expanduser(folder)).rglob("*"))
    if path.is_file()
  ]
  return _sha256(json.dumps(files))


def _read(path: pathlib.Path) -> dict[tuple[str, str], dict[str, Any]]:
  kept = {}
  for line in path.read_bytes().splitlines() if path.exists() else []:
    try:
      row = json.loads(line)
      if row.pop("sha256") == _sha256(json.dumps(row)):
        kept[row["key"], row["name"]] = row
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
      continue  # it is evaluated again
  return kept


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def _encode(array: np.ndarray | np.generic) -> Any:
  if isinstance(array, np.generic):
    return array.item()
  data = base64.b64encode(array.tobytes()).decode()
  return {"array": data, "dtype": array.dtype.str, "shape": array.shape}


def _decode(row: dict[str, Any]) -> Any:
  if row.keys() != {"array", "dtype", "shape"}:
    return row
  data = base64.b64decode(row["array"])
  return np.frombuffer(data, row["dtype"]).reshape(row["shape"])
