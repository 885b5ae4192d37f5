"""Records the versions and devices of a run in starts.jsonl."""

import importlib.metadata
import itertools
import json
import pathlib
import platform
import time
from collections.abc import Sequence
from typing import Any

import jax

from ram_jax import parallel

FILE = "starts.jsonl"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
  """Versions of installed packages.

  Args:
    packages: names of the packages.

  Returns:
    The versions by name.
  """
  return {name: importlib.metadata.version(name) for name in packages}


def environment() -> dict[str, Any]:
  """The versions and devices of this process.

  Returns:
    `versions`, including Python's, and `device`: platform, kind, and count over
    all hosts.
  """
  device = jax.devices()[0]
  return {
    "versions": {"python": platform.python_version()} | versions(),
    "device": {
      "platform": device.platform,
      "kind": device.device_kind,
      "count": jax.device_count(),
    },
  }


def record(folder: pathlib.Path, step: int) -> None:
  """Appends a line when training starts or resumes.

  Args:
    folder: the run's folder, locked.
    step: number of updates so far.
  """
  if parallel.is_first_process():
    row = {"step": step, "time": time.time()} | environment()
    # Start a new line in case a killed run left a partial one.
    with open(folder / FILE, "a", encoding="utf-8") as file:
      file.write("\n" + json.dumps(row))


def trained_with(folder: pathlib.Path) -> list[dict[str, Any]]:
  """The environments in which a run was trained.

  Args:
    folder: the run's folder.

  Returns:
    Dicts like that of `environment`, in order, without duplicates; empty if
    none was recorded.
  """
  rows, found, path = [], [], folder / FILE
  for line in path.read_bytes().splitlines() if path.exists() else []:
    try:
      row = json.loads(line)
      what = {part: dict(row[part]) for part in ("versions", "device")}
      rows.append((int(row["step"]), what))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
      continue  # partial line of a killed run
  for i, (step, what) in enumerate(rows):
    # Starts that saved nothing do not count.
    lasted = all(later > step for later, _ in rows[i + 1 :])
    if lasted and what not in found:
      found.append(what)
  return found


def changes(found: Sequence[dict[str, Any]]) -> list[str]:
  """What changed while a run was training.

  Args:
    found: from `trained_with`.

  Returns:
    A phrase for each change, such as `jax 0.10.2, then 0.12.0`.
  """
  phrases = []
  for part, title in (("versions", ""), ("device", "device ")):
    for name in found[0][part] if found else ():
      values = [str(row[part].get(name)) for row in found]
      changed = [value for value, _ in itertools.groupby(values)]
      if len(changed) > 1:
        phrases.append(f"{title}{name} {', then '.join(changed)}")
  return phrases
