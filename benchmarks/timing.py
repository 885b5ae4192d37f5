"""Shared by all benchmarks: pairs of runs, medians, and a JSON file of each."""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "docs/results/speed"
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pillow", "torch")
CASE = ("model", "batch", "method")  # of a row


def compare(
  sides: dict[str, Callable[[], Any]],
  repeats: int,
  units: Mapping[str, int] = types.MappingProxyType({}),
) -> dict[str, dict[str, float]]:
  """Times functions in turn, so that all see the same moods of the machine.

  Args:
    sides: functions by name; each is called once before, to compile and to
      fill caches. What one returns is waited for.
    repeats: rounds, of one call of each.
    units: how many units of work a call of a side does, where not 1.

  Returns:
    By name `seconds` of a unit, the median over rounds; `ratio`, the median
    over rounds of the first side's seconds divided by this one's; and seconds
    of the `first` call.
  """
  first_calls = {name: seconds(function) for name, function in sides.items()}
  taken = {name: [] for name in sides}
  for _ in range(repeats):
    for name, function in sides.items():
      taken[name].append(seconds(function) / units.get(name, 1))
  first = next(iter(taken.values()))
  return {
    name: {
      "seconds": statistics.median(times),
      "ratio": statistics.median(
        a / b for a, b in zip(first, times, strict=True)
      ),
      "first": first_calls[name],
    }
    for name, times in taken.items()
  }


def seconds(function: Callable[[], Any]) -> float:
  """Wall time of one call, until its result is there.

  Args:
    function: what is called.

  Returns:
    Seconds.
  """
  start = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - start


def pictures(count: int) -> np.ndarray:
  """Smooth random images, uint8 [count,32,32,3], all values in use.

  Args:
    count: how many.

  Returns:
    The images.
  """
  small = jax.random.uniform(jax.random.key(0), (count, 6, 6, 3))
  large = jax.image.resize(small, (count, 32, 32, 3), "cubic")
  return np.asarray(np.clip(256 * large, 0, 255), np.uint8)


def parser(doc: str, models: str) -> argparse.ArgumentParser:
  """The flags of a benchmark that has a row for each network.

  Args:
    doc: its docstring.
    models: networks and batch sizes where none are given.

  Returns:
    The parser.
  """
  found = argparse.ArgumentParser(description=doc.partition("\n")[0])
  found.add_argument("--models", default=models)
  found.add_argument("--repeats", type=int, default=3)
  found.add_argument("--out", default=FOLDER)
  return found


def networks(models: str) -> list[tuple[str, int]]:
  """Short names and batch sizes of a flag such as `resnet18:32,wrn_16_2:64`."""
  pairs = [pair.split(":") for pair in models.split(",")]
  return [(model, int(batch)) for model, batch in pairs]


def machine() -> dict[str, Any]:
  """Where a number was measured.

  Returns:
    Device, processor cores that this process may use, and versions.
  """
  versions = {"python": platform.python_version()}
  for name in PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  device = jax.devices()[0]
  return {
    "platform": device.platform,
    "device": device.device_kind,
    "count": jax.device_count(),
    "processor": platform.machine(),
    "cores": len(os.sched_getaffinity(0)),
    "versions": versions,
  }


def device() -> str:
  """The device for the names of files, such as `cpu` or `nvidia_h200`."""
  return jax.devices()[0].device_kind.lower().replace(" ", "_")


def write(name: str, result: dict[str, Any], folder: str | os.PathLike) -> None:
  """Prints a benchmark's result and writes it as NAME.json.

  Args:
    name: of the benchmark.
    result: its numbers.
    folder: where the file goes; made if missing.
  """
  text = json.dumps({"machine": machine()} | result, indent=2)
  print(text)
  path = pathlib.Path(folder) / f"{name}.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text + "\n", encoding="utf-8")


def add(
  name: str, row: dict[str, Any], folder: str | os.PathLike, **head: Any
) -> None:
  """Adds a row to NAME_DEVICE.json, or replaces that of the same `CASE`.

  Rows of another machine or of other versions are dropped.

  Args:
    name: of the benchmark.
    row: of one case.
    folder: where the file is.
    **head: further entries of the file.
  """
  name, where, rows = f"{name}_{device()}", machine(), []
  path = pathlib.Path(folder) / f"{name}.json"
  if path.exists():
    before = json.loads(path.read_text(encoding="utf-8"))
    rows = before["rows"] if before["machine"] == where else []
  rows = [old for old in rows if any(old.get(k) != row.get(k) for k in CASE)]
  write(name, head | {"rows": [*rows, row]}, folder)
