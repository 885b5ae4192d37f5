"""The results of a run: results.json, pictures.npz, rows of metrics.jsonl.

Everything that is shown of a run is read here, so this is also where a damaged
or foreign file is rejected, before a wrong number reaches a table.
"""

import dataclasses
import json
import math
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ram_jax.runs import metrics

SCHEMA = 1
PICTURES = "pictures.npz"
# What numpy raises on files that are cut off, changed, or of another kind.
DAMAGE = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile)
_NUMBER = (int, float)
# Kinds of the parts that tables use and nothing else checks.
_KINDS = {
  "run.name": str,
  "run.label": str,
  "run.method": str,
  "run.model": str,
  "run.data_label": str,
  "config": dict,
  "versions": dict,
  "device": dict,
  "timing": dict,
  "timing.train_seconds": _NUMBER,
  "data": dict,
  "data.train": dict,
  "data.train.size": int,
  "data.train.fingerprint": str,
  "data.test": dict,
  "data.test.size": int,
  "data.test.fingerprint": str,
  "adversarial.attack.name": str,
  "adversarial.attack.norm": str,
  "corruption.label": str,
  "corruption.missing": dict,
  "fourier.norm": _NUMBER,
  "notes": list,
}
Counts = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Run:
  """One evaluated run.

  Attributes:
    folder: where the run is stored.
    results: results.json as it stands (schema 1, checked).
    metrics: rows of metrics.jsonl in the order of their steps, possibly none.
  """

  folder: pathlib.Path
  results: dict[str, Any]
  metrics: list[dict[str, Any]]

  @property
  def label(self) -> str:
    """Human name of the run's method, e.g. "AugMix"."""
    return self.results["run"]["label"]


def load(folder: str | os.PathLike) -> Run:
  """Reads and checks the folder of an evaluated run.

  Args:
    folder: the run's working directory.

  Returns:
    The run. A step that was logged twice, as after a resume, counts once, as it
    was logged last. A run without metrics.jsonl (imported weights) has none.

  Raises:
    FileNotFoundError: no such folder, or no results.json in it.
    ValueError: a file that is damaged, incomplete or of another schema.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise FileNotFoundError(
      f"no run folder {str(folder)!r}: give the working directory of an "
      "evaluated run"
    )
  return Run(
    folder,
    _read_results(folder / "results.json"),
    _read_metrics(folder / "metrics.jsonl"),
  )


def clean(results: Mapping[str, Any]) -> Counts | None:
  """Counts (correct, total) on unchanged images; None where not measured."""
  row = results.get("clean")
  return row and (row["correct"], row["total"])


def adversarial(results: Mapping[str, Any]) -> dict[float, Counts]:
  """Counts (correct, total) by epsilon, ascending; empty where not measured."""
  rows = results.get("adversarial", {}).get("by_epsilon", [])
  counts = {row["epsilon"]: (row["correct"], row["total"]) for row in rows}
  return dict(sorted(counts.items()))


def write_arrays(arrays: dict[str, np.ndarray], path: pathlib.Path) -> None:
  """Writes an .npz file so that a reader finds the old or the new, never half.

  Args:
    arrays: by name.
    path: the file; its folder is made if missing.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_suffix(".part")
  with open(part, "wb") as file:
    np.savez(file, **arrays)
    file.flush()
    os.fsync(file.fileno())  # as `folder.write_json`
  part.replace(path)


def read_pictures(folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
  """Reads the images that an evaluation kept for figures.

  Args:
    folder: the run's.

  Returns:
    uint8 arrays by what they are of: `corruption` [5,H,W,C] by corruption,
    `views` [n,H,W,C] by name; empty where there are none.

  Raises:
    ValueError: if the file is damaged.
  """
  path, found = folder / PICTURES, {}
  if not path.is_file():
    return found
  try:
    with open(path, "rb") as stream, np.load(stream) as file:
      for name in file.files:
        group, _, rest = name.partition("/")
        found.setdefault(group, {})[rest] = file[name]
  except DAMAGE as error:
    raise ValueError(
      f"{str(path)!r} is damaged ({error}): write it with --mode=evaluate "
      f"--workdir={folder}"
    ) from error
  return found


def check_floors(required: Sequence[Any]) -> None:
  """Rejects requirements on accuracies that are not of their form.

  Args:
    required: (measure, epsilon, bound, value) each, as `config.floors`.

  Raises:
    ValueError: naming the first such row.
  """
  for row in required:
    if not _is_requirement(row):
      raise ValueError(
        f"requirement {row!r} is not (measure, epsilon, bound, value): measure "
        "clean, adversarial or corruption; epsilon a number for adversarial, "
        "else None; bound 'at least' or 'at most'; value from 0 to 1"
      )


def _read_results(path: pathlib.Path) -> dict[str, Any]:
  again = f"write it with --mode=evaluate --workdir={path.parent}"
  if not path.is_file():
    raise FileNotFoundError(f"no results in {str(path)!r}: {again}")
  try:
    results = json.loads(path.read_bytes(), parse_constant=_no_number)
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f"{str(path)!r} is not whole JSON ({error}): {again}"
    ) from error
  schema = results.get("schema") if isinstance(results, dict) else None
  if schema != SCHEMA:
    raise ValueError(
      f"{str(path)!r} has schema {schema!r}, not {SCHEMA}: {again}"
    )
  try:
    problem = next(_problems(results), None)
  except (AttributeError, TypeError) as error:
    problem = f"a part is of the wrong kind ({error})"
  if problem:
    raise ValueError(f"{str(path)!r}: {problem}: {again}")
  return results


def _no_number(name: str) -> None:
  """Rejects NaN, Infinity and -Infinity, which Python's reader would take."""
  raise ValueError(f"{name} is no number of JSON")


def _problems(results: dict[str, Any]) -> Iterator[str]:
  """What a results.json lacks of the fields that tables and plots use."""
  for name in ("name", "label", "model", "data_label", "seed"):
    if name not in results.get("run", {}):
      yield f"run has no {name!r}"
  rows = [("clean", results["clean"])] if "clean" in results else []
  for part, key in (
    ("adversarial", "by_epsilon"),
    ("corruption", "by_corruption"),
  ):
    if part in results and not results[part].get(key):
      yield f"{part} has no {key!r}"
    rows += [(part, row) for row in results.get(part, {}).get(key, [])]
  for name in ("name", "norm"):
    attack = results.get("adversarial", {}).get("attack", {})
    if "adversarial" in results and name not in attack:
      yield f"adversarial.attack has no {name!r}"
  for part, row in rows:
    yield from _row_problems(part, row)
  yield from _kind_problems(results)
  if "fourier" in results and not _is_map(**results["fourier"]):
    yield "fourier needs rows of as many counts from 0 to total in 'wrong'"


def _kind_problems(results: dict[str, Any]) -> Iterator[str]:
  for name, kind in _KINDS.items():
    *groups, key = name.split(".")
    holder = results
    for group in groups:
      holder = holder.get(group, {})
    if key in holder and not isinstance(holder[key], kind):
      yield f"{name} is of the wrong kind: {holder[key]!r:.60}"
  if "label" not in results.get("corruption", {"label": ""}):
    yield "corruption has no 'label'"
  for note in results.get("notes", ()):
    if not isinstance(note, str):
      yield f"notes hold what is no text: {note!r:.60}"


def _row_problems(part: str, row: dict[str, Any]) -> Iterator[str]:
  if part == "adversarial" and not _is_size(row.get("epsilon")):
    yield f"{part} has a row without an epsilon >= 0: {row}"
  if not _is_count(row.get("correct"), row.get("total")):
    yield f"{part} needs whole numbers 0 <= correct <= total > 0: {row}"
  if part == "corruption":
    name, severity = row.get("corruption"), row.get("severity")
    if not (isinstance(name, str) and type(severity) is int):
      yield f"{part} has a row without name and severity: {row}"
  for value in row.get("calibration", {}).values():
    if type(value) not in (int, float) or not math.isfinite(value):
      yield f"{part} needs numbers in 'calibration': {row}"


def _is_map(wrong: list[list[int]], total: int, **others: Any) -> bool:
  del others
  widths = {len(row) for row in wrong}
  return len(widths) == 1 and all(
    _is_count(count, total) for row in wrong for count in row
  )


def _is_size(value: Any) -> bool:
  return type(value) in (int, float) and 0 <= value < float("inf")


def _is_count(correct: Any, total: Any) -> bool:
  whole = type(correct) is int and type(total) is int
  return whole and 0 <= correct <= total and total > 0


def _read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
  lines = path.read_bytes().split(b"\n") if path.is_file() else []
  by_step = {}
  for number, line in enumerate(lines, start=1):
    if not line:
      continue
    try:
      row = json.loads(line, parse_constant=_no_number)
      row = metrics.checked(row, "step", "epoch")
      by_step[row["step"]] = row
    except (ValueError, RecursionError) as error:
      # Without its newline the last line is one that a running or killed job
      # had no time to finish: all before it is good.
      if number < len(lines):
        raise ValueError(
          f"{str(path)!r} is damaged in line {number} ({error!r}): remove that "
          "line, or the file to show the run without its training curves"
        ) from error
  return [by_step[step] for step in sorted(by_step)]


def _is_requirement(row: Any) -> bool:
  try:
    measure, epsilon, bound, value = row
    attacked = measure == "adversarial"
    return (
      measure in ("clean", "adversarial", "corruption")
      and (epsilon >= 0 if attacked else epsilon is None)
      and bound in ("at least", "at most")
      and 0 <= value <= 1
    )
  except (TypeError, ValueError):  # another length, or no numbers
    return False
