"""Finds what a run is compared with, by name or by path."""

import json
import pathlib

from ram_jax.report import entries, reference_files, runs
from ram_jax.report.entries import Reference

PUBLISHED = pathlib.Path(__file__).parent / "published"
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
    return reference_files.read(PUBLISHED / f"{reference}.json")
  path, model = pathlib.Path(reference), None
  if not path.exists():
    front, _, model = reference.rpartition(":")
    path = pathlib.Path(front)
  if not (path.is_file() or path.is_dir() and model is None):
    names = "; ".join(f"{name}: {text}" for name, text in published().items())
    raise ValueError(
      f"no file or folder {reference!r}: give a path (docs/results_format.md "
      f"says of what), or the name of published numbers: {names}"
    )
  if path.is_dir():
    return _read_folder(path)
  if path.name == "results.json":
    return entries.of_run(runs.load(path.parent))
  return reference_files.read(path, model)


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
  return Reference(
    folder.resolve().name, source, tuple(kept.values()), notes=parts[0].notes
  )
