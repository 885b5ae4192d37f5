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
from flax import serialization

from ram_jax import parallel
from ram_jax.contracts import Cache
from ram_jax.runs import metrics
from ram_jax.runs.signals import Stop

# Results depend on the whole package, not only on the evaluation.
PACKAGE = pathlib.Path(__file__).parents[1]


class Parts:
  """The parts of a run's evaluations, one per line of a file.

  Incomplete and damaged lines are ignored.
  """

  def __init__(self, path: pathlib.Path, stop: Stop) -> None:
    """Reads the existing parts.

    Args:
      path: the file; it may be absent.
      stop: checked before each part.

    Raises:
      ValueError: if the processes see different files.
    """
    self._path, self._stop, self._kept = path, stop, _read(path)
    self.seconds = 0.0  # original duration of the parts that were reused
    parallel.check_agreement(
      len(self._kept), f"the content of {path} (is it shared by all hosts?)"
    )

  def cache_for(self, depends: Any, text: str) -> Cache:
    """Creates the cache of one evaluator.

    Args:
      depends: everything that its parts depend on, JSON-serializable; parts
        that were stored for other values are not used.
      text: message to print before the first part. Nothing is printed for a
        disabled evaluator, because it has no parts.

    Returns:
      The function that the evaluator calls for each part; values are numbers,
      strings, numeric arrays, and lists and dictionaries of these.
    """
    key = _sha256(json.dumps(depends, sort_keys=True))
    announced = False

    def cache(name: str, compute: Callable[[], Any]) -> Any:
      nonlocal announced
      if not announced:
        metrics.announce(text)
        announced = True
      self._stop.boundary()
      row = self._kept.get((key, name))
      if row:
        self.seconds += row["seconds"]
      else:
        started = time.monotonic()
        # In place, because a copy would sort the keys of dictionaries.
        value = serialization.msgpack_serialize(compute(), in_place=True)
        value = base64.b64encode(value)
        row = {"key": key, "name": name, "value": value.decode()}
        self._keep(row | {"seconds": time.monotonic() - started})
      # New values are decoded, too, so that they equal stored ones.
      return serialization.msgpack_restore(base64.b64decode(row["value"]))

    return cache

  def _keep(self, row: dict[str, Any]) -> None:
    if parallel.is_first_process():
      self._path.parent.mkdir(parents=True, exist_ok=True)
      row = row | {"sha256": _sha256(json.dumps(row))}
      # One write, starting a new line in case a killed run left a partial one.
      with open(self._path, "a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(row))

  def remove(self) -> None:
    """Deletes the file; call this once the results have been written."""
    self._path.unlink(missing_ok=True)


def cache_key() -> dict[str, Any]:
  """Collects what results depend on besides config, weights and data.

  Returns:
    Hash of this program's source code, installed packages, XLA's flags, and
    whether JAX's 64-bit mode is enabled.
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
  """Fingerprints the files in folders without reading their content.

  Args:
    *folders: paths; empty strings are ignored, and '~' is expanded.

  Returns:
    SHA-256 of the files' names, sizes and modification times.
  """
  paths = [
    pathlib.Path(place, name)
    for folder in filter(None, folders)
    for place, _, names in os.walk(os.path.expanduser(folder), followlinks=True)
    for name in names
  ]
  files = [
    (str(path), path.stat().st_size, path.stat().st_mtime_ns)
    for path in sorted(paths)
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
      continue  # the part is evaluated again
  return kept


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()
