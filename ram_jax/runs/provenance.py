"""With which versions and devices a run is made: starts.jsonl."""

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
    packages: by name.

  Returns:
    The versions by name.
  """
  return {name: importlib.metadata.version(name) for name in packages}


def environment() -> dict[str, Any]:
  """What computes now.

  Returns:
    `versions`, Python's too, and `device`: platform, kind, count on all hosts.
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
  """Appends a start of a training.

  Args:
    folder: the run's, locked.
    step: updates made before.
  """
  if parallel.is_first_process():
    row = {"step": step, "time": time.time()} | environment()
    # On a line of its own, whatever a killed run left before.
    with open(folder / FILE, "a", encoding="utf-8") as file:
      file.write("\n" + json.dumps(row))


def trained_with(folder: pathlib.Path) -> list[dict[str, Any]]:
  """With what a run was trained.

  Args:
    folder: the run's.

  Returns:
    As `here`, each once, in order; empty where nothing was recorded.
  """
  rows, found, path = [], [], folder / FILE
  for line in path.read_bytes().splitlines() if path.exists() else []:
    try:
      row = json.loads(line)
      what = {part: dict(row[part]) for part in ("versions", "device")}
      rows.append((int(row["step"]), what))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
      continue  # half a line of a killed run
  for i, (step, what) in enumerate(rows):
    # Of a start from which nothing was saved nothing is left.
    lasted = all(later > step for later, _ in rows[i + 1 :])
    if lasted and what not in found:
      found.append(what)
  return found


def changes(found: Sequence[dict[str, Any]]) -> list[str]:
  """What changed while a run was trained.

  Args:
    found: from `trained_with`.

  Returns:
    One phrase each, such as `jax 0.10.2, then 0.12.0`.
  """
  phrases = []
  for part, title in (("versions", ""), ("device", "device ")):
    for name in found[0][part] if found else ():
      values = [str(row[part].get(name)) for row in found]
      changed = [value for value, _ in itertools.groupby(values)]
      if len(changed) > 1:
        phrases.append(f"{title}{name} {', then '.join(changed)}")
  return phrases
