"""Finds what a run is compared with, by name or by path."""

import dataclasses
import json
import os
import pathlib

from ram_jax.report import entries, reference_files
from ram_jax.report.entries import Reference
from ram_jax.report.reference_files import PUBLISHED
from ram_jax.runs import results as runs

# What the author's code leaves in one folder.
AUTHOR_FILES = (
  "eval_metrics.json",
  "pgd_per_epsilon.csv",
  "cifar10c_per_corruption.csv",
)
# Its accuracies of corruptions have six decimals.
AGREEMENT = 1e-5


def read(reference: str) -> Reference:
  """Reads a reference.

  Args:
    reference: the name of a published one; or a path: of a run's folder or its
      results.json, of the folder in which the author's code has evaluated, or
      of a file that `reference_files` understands. `FILE.csv:MODEL` chooses a
      row of RobustBench's table.

  Returns:
    The reference.

  Raises:
    ValueError: no such reference, or a file that cannot be used.
    FileNotFoundError: a folder without results.
  """
  if reference in published():
    if os.path.exists(reference):
      raise ValueError(
        f"{reference!r} is the name of published numbers and a path: give the "
        f"path as ./{reference}, or the numbers as "
        f"{PUBLISHED / reference}.json"
      )
    return reference_files.read(PUBLISHED / f"{reference}.json")
  path, model = _path_and_model(reference)
  if not (path.is_file() or path.is_dir() and model is None):
    names = "; ".join(f"{name}: {text}" for name, text in published().items())
    raise ValueError(
      f"no file or folder {reference!r}: give a path (docs/results_format.md "
      f"says of what), or the name of published numbers: {names}"
    )
  if path.is_dir():
    return _read_folder(path.resolve())
  # Absolute, as a source is compared with those of other comparisons.
  path = path.parent.resolve() / path.name
  if path.name == "results.json":
    if model:
      raise ValueError(f"{str(path)!r} has one model: leave out ':{model}'")
    return entries.of_run(runs.load(path.parent))
  return reference_files.read(path, model)


def _path_and_model(reference: str) -> tuple[pathlib.Path, str | None]:
  """Splits FILE:MODEL at the last colon that has a file before it."""
  front, colon, model = reference, "", ""
  while not os.path.exists(front):
    front, colon, last = front.rpartition(":")
    if not colon:
      return pathlib.Path(reference), None
    model = f"{last}:{model}" if model else last
  return pathlib.Path(front), model if colon else None


def published() -> dict[str, str]:
  """Names of the references that come with the code, each with one line."""
  return {
    path.stem: json.loads(path.read_bytes())["description"]
    for path in sorted(PUBLISHED.glob("*.json"))
  }


def _read_folder(folder: pathlib.Path) -> Reference:
  if (folder / "results.json").is_file():
    return entries.of_run(runs.load(folder))
  paths = [folder / name for name in AUTHOR_FILES]
  parts = [reference_files.read(path) for path in paths if path.is_file()]
  if not parts:
    raise FileNotFoundError(
      f"folder {str(folder)!r} has neither results.json nor any of "
      f"{', '.join(AUTHOR_FILES)}: name the folder of an evaluated run, or a "
      "file"
    )
  return _merged(folder, parts)


def _merged(folder: pathlib.Path, parts: list[Reference]) -> Reference:
  """One reference of the author's files, which must be of one evaluation."""
  cells = [e for part in parts for e in part.entries if e.is_cell]
  kept = {}
  for entry in (entry for part in parts for entry in part.entries):
    other = kept.setdefault(entry.key, entry).accuracy
    if entry.is_mean and cells:
      # The mean of however many there are, which the table shows anyway.
      other = sum(cell.accuracy for cell in cells) / len(cells)
      del kept[entry.key]
    if abs(entry.accuracy - other) > AGREEMENT:
      raise ValueError(
        f"the files in {str(folder)!r} are of different evaluations: "
        f"{entry.label} is {entry.accuracy:.6g} in one, {other:.6g} in another"
      )
  source = f"{folder}: {', '.join(pathlib.Path(p.source).name for p in parts)}"
  return dataclasses.replace(
    parts[0],
    name=folder.name,
    source=source,
    entries=tuple(kept.values()),
  )
