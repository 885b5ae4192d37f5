"""Shared by the speed benchmarks: alternating timings, medians, JSON files."""

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
CASE = ("model", "batch", "method")  # fields that identify a row


def compare(
  sides: dict[str, Callable[[], Any]],
  repeats: int,
  units: Mapping[str, int] = types.MappingProxyType({}),
) -> dict[str, dict[str, float]]:
  """Times functions in turn, so that changes in load affect them equally.

  Args:
    sides: functions by name. Each is called once beforehand, to compile and to
      fill caches. Times include waiting for the result.
    repeats: number of rounds, with one call of each function.
    units: units of work per call of a side, if not 1.

  Returns:
    By name: `seconds` per unit, the median over rounds; `ratio`, the median
    over rounds of the first side's seconds divided by this side's; and seconds
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
  """Measures the wall time of one call, until its result is ready.

  Args:
    function: the function to call.

  Returns:
    Seconds.
  """
  start = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - start


def pictures(count: int) -> np.ndarray:
  """Draws smooth random images that cover the range of values.

  Args:
    count: number of images.

  Returns:
    uint8 [count,32,32,3].
  """
  small = jax.random.uniform(jax.random.key(0), (count, 6, 6, 3))
  large = jax.image.resize(small, (count, 32, 32, 3), "cubic")
  return np.asarray(np.clip(256 * large, 0, 255), np.uint8)


def parser(doc: str, models: str) -> argparse.ArgumentParser:
  """Creates the parser of a benchmark that measures several networks.

  Args:
    doc: docstring of the benchmark.
    models: default networks and batch sizes.

  Returns:
    The parser.
  """
  found = argparse.ArgumentParser(description=doc.partition("\n")[0])
  found.add_argument("--models", default=models)
  found.add_argument("--repeats", type=int, default=3)
  found.add_argument("--out", default=FOLDER)
  return found


def networks(models: str) -> list[tuple[str, int]]:
  """Splits names and batch sizes of a flag like `resnet18:32,wrn_16_2:64`."""
  pairs = [pair.split(":") for pair in models.split(",")]
  return [(model, int(batch)) for model, batch in pairs]


def machine() -> dict[str, Any]:
  """Describes the machine on which results are measured.

  Returns:
    Device, CPU cores that are available to this process, and versions.
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
  """Name of the device for file names, such as `cpu` or `nvidia_h200`."""
  return jax.devices()[0].device_kind.lower().replace(" ", "_")


def write(name: str, result: dict[str, Any], folder: str | os.PathLike) -> None:
  """Prints a benchmark's result and writes it as NAME.json.

  Args:
    name: name of the benchmark.
    result: results of the benchmark.
    folder: folder of the file; created if missing.
  """
  text = json.dumps({"machine": machine()} | result, indent=2)
  print(text)
  path = pathlib.Path(folder) / f"{name}.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text + "\n", encoding="utf-8")


def add(
  name: str, row: dict[str, Any], folder: str | os.PathLike, **head: Any
) -> None:
  """Adds a row to NAME_DEVICE.json, or replaces the one with the same `CASE`.

  Rows from another machine or other versions are dropped.

  Args:
    name: name of the benchmark.
    row: result for one case.
    folder: folder of the file.
    **head: further entries of the file.
  """
  name, where, rows = f"{name}_{device()}", machine(), []
  path = pathlib.Path(folder) / f"{name}.json"
  if path.exists():
    before = json.loads(path.read_text(encoding="utf-8"))
    rows = before["rows"] if before["machine"] == where else []
  rows = [old for old in rows if any(old.get(k) != row.get(k) for k in CASE)]
  write(name, head | {"rows": [*rows, row]}, folder)
