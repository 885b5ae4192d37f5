"""The results of a run: the schema, its writer and its only reader.

results.json contains the head (run, config, versions, device, trained_with,
data, timing), the notes and the rows; results.csv contains the same rows;
correct.npz records which images were classified correctly; pictures.npz
contains images for figures. Damaged and unsupported files are rejected, so that
no wrong number appears in a table.
"""

import dataclasses
import functools
import io
import itertools
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ram_jax.contracts import Note, Picture, Row
from ram_jax.runs import metrics

SCHEMA = 2
PREVIOUS = "results-previous"  # start of the names of folders
# Errors that numpy raises for files that are truncated, damaged or not arrays.
DAMAGE = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile)
# Columns of `frame` besides settings and values of rows.
ABOUT = ("name", "method", "label", "model", "data_label", "seed")
COUNTS = ("total", "correct", "accuracy")
_NUMBER = (int, float)
# Parts of the head that readers use if present, by type.
_HEAD = {
  dict: "run config versions device timing data data.train data.test",
  str: "run.name run.label run.method run.model run.data_label "
  "data.train.fingerprint data.test.fingerprint",
  int: "run.seed run.step data.train.size data.test.size",
  _NUMBER: "run.epochs timing.train_seconds",
}
# Settings that each row of an evaluator must have; otherwise the file is
# rejected.
_SETTINGS = {
  "adversarial": {"attack": str, "norm": str, "epsilon": _NUMBER},
  "c_bar": {"corruption": str, "severity": int, "images": str},
  "cifar10_1": {"test_set": str},
  "corruption": {"corruption": str, "severity": int, "images": str},
  "fourier": {"y": int, "x": int},
}


@dataclasses.dataclass(frozen=True)
class Run:
  """One evaluated run.

  Attributes:
    folder: the run's folder.
    head: results.json without rows and notes.
    rows: the results; those from `load` are without `correct` (see the
      property).
    notes: notes on the results.
    metrics: rows of metrics.jsonl, sorted by step, possibly none.
  """

  folder: pathlib.Path
  head: dict[str, Any]
  rows: tuple[Row, ...]
  notes: tuple[Note, ...]
  metrics: list[dict[str, Any]]

  @property
  def about(self) -> dict[str, Any]:
    """The head's `run`: name, method, label, model, data_label, seed, ..."""
    return self.head["run"]

  @functools.cached_property
  def table(self) -> pd.DataFrame:
    """The rows as in `frame`, with their keys."""
    return frame([self]).assign(key=[row.key for row in self.rows])

  @functools.cached_property
  def correct(self) -> dict[str, np.ndarray]:
    """Which images were classified correctly: bool [total] by the row's key.

    In the order of the test set; empty if the run has no correct.npz. The file
    is read once.

    Raises:
      ValueError: if the file is damaged, or does not match the results.
    """
    path = self.folder / "correct.npz"
    arrays = _read_arrays(path)
    rows = {row.key: row for row in self.rows}
    for key, array in arrays.items():
      row = rows.get(key)
      if (
        row is None
        or (array.dtype, array.shape) != (np.dtype(bool), (row.total,))
        or array.sum() != row.correct_count
      ):
        raise ValueError(
          f"{str(path)!r} and results.json are from different evaluations "
          f"({key}): {_again(self.folder)}"
        )
    return arrays


def load(folder: str | os.PathLike) -> Run:
  """Reads and checks the folder of an evaluated run.

  Args:
    folder: the run's folder.

  Returns:
    The run. One without metrics.jsonl (imported weights) has no metrics.

  Raises:
    FileNotFoundError: no such folder, or no results.json in it.
    ValueError: a file is damaged, incomplete or has an unsupported schema.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise FileNotFoundError(
      f"no run folder {str(folder)!r}: give the working directory of an "
      "evaluated run"
    )
  head = _read_results(folder / "results.json")
  rows, notes = head.pop("rows"), head.pop("notes")
  return Run(
    folder,
    head,
    tuple(map(_row, rows)),
    tuple(Note(**note) for note in notes),
    metrics.read(folder / "metrics.jsonl"),
  )


def collect(
  folder: pathlib.Path,
  head: Mapping[str, Any],
  found: Sequence[Row | Note | Picture],
  log: Sequence[dict[str, Any]] = (),
) -> Run:
  """Makes a run, like that from `load`, from the results of its evaluators.

  Args:
    folder: the run's folder.
    head: run, config, versions, device, data, timing.
    found: rows, notes and pictures, in order.
    log: rows of metrics.jsonl.

  Returns:
    The run, with `correct` in its rows.
  """
  rows = tuple(part for part in found if isinstance(part, Row))
  notes = tuple(part for part in found if isinstance(part, Note))
  return Run(folder, dict(head), rows, notes, list(log))


def write(
  folder: pathlib.Path,
  head: Mapping[str, Any],
  found: Sequence[Row | Note | Picture],
) -> None:
  """Writes a run's results, results.json last: if it exists, all files do.

  Args:
    folder: the run's folder; created if missing.
    head: run, config, versions, device, data, timing.
    found: rows, notes and pictures, in order.

  Raises:
    ValueError: if two rows have the same key.
  """
  run = collect(folder, head, found)
  keys = [row.key for row in run.rows]
  if twice := {key for key in keys if keys.count(key) > 1}:
    raise ValueError(
      f"two evaluators have the same row {sorted(twice)[0]!r}: change the "
      "settings of one of them"
    )
  pictures = {p.name: p.images for p in found if isinstance(p, Picture)}
  correct = {r.key: r.correct for r in run.rows if r.correct is not None}
  table = frame([run]).drop(columns=["run", "folder"]).to_csv(index=False)
  folder.mkdir(parents=True, exist_ok=True)
  for name, arrays in (("pictures", pictures), ("correct", correct)):
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    metrics.replace(folder / f"{name}.npz", content.getvalue())
  metrics.replace(folder / "results.csv", table)
  metrics.replace(folder / "results.json", _text(run))


def keep_previous(
  folder: pathlib.Path, rows: Sequence[Row]
) -> pathlib.Path | None:
  """Copies old results that contain more than new ones to a new folder.

  Args:
    folder: the run's folder.
    rows: the new rows.

  Returns:
    The new folder in the run's folder; None if every old row has a new version
    with as many images.
  """
  try:
    old = load(folder).rows
  except (FileNotFoundError, ValueError):
    return None
  totals = {row.key: row.total for row in rows}
  # The rows of the attacks' checks and stages are not results on their own.
  lost = [
    row
    for row in old
    if row.total > totals.get(row.key, 0)
    and row.evaluator not in ("attack_check", "autoattack_stage")
  ]
  if not lost:
    return None
  paths = (folder / f"{PREVIOUS}-{n}" for n in itertools.count(1))
  target = next(path for path in paths if not path.exists())
  target.mkdir()
  for name in ("results.json", "results.csv", "correct.npz"):
    if (folder / name).is_file():
      shutil.copy(folder / name, target / name)
  return target


def frame(runs: Sequence[Run]) -> pd.DataFrame:
  """All rows of several runs in one table.

  Args:
    runs: the runs.

  Returns:
    One line per run and row: `run` (index into `runs`), `folder`, the run's
    `name`, `method`, `label`, `model`, `data_label` and `seed`; `evaluator`;
    the rows' settings; `total`, `correct`, `accuracy` in [0,1]; the rows'
    values. Missing cells are NA; integers are Int64, text is object.
  """
  lines = []
  for number, run in enumerate(runs):
    about = {name: run.about[name] for name in ABOUT}
    about = {"run": number, "folder": str(run.folder), **about}
    for row in run.rows:
      counts = (row.total, row.correct_count, row.correct_count / row.total)
      lines.append(
        about
        | {"evaluator": row.evaluator}
        | dict(row.settings)
        | dict(zip(COUNTS, counts, strict=True))
        | dict(row.values)
      )
  settings = dict.fromkeys(n for r in runs for x in r.rows for n in x.settings)
  values = dict.fromkeys(n for r in runs for x in r.rows for n in x.values)
  columns = ["run", "folder", *ABOUT, "evaluator", *settings, *COUNTS, *values]
  found = {}
  for name in dict.fromkeys(columns):
    cells = [line.get(name) for line in lines]
    kinds = {type(cell) for cell in cells if cell is not None}
    kind = "float64" if float in kinds else "Int64"
    # Text as Python strings, because a label may contain lone surrogates.
    found[name] = pd.Series(cells, dtype=object if str in kinds else kind)
  return pd.DataFrame(found)


def read_pictures(folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
  """Reads the images that an evaluation stored for figures.

  Args:
    folder: the run's folder.

  Returns:
    uint8 arrays by group and name: `corruption` [5,H,W,C] by corruption,
    `views` [n,H,W,C] by view; empty if there are none.

  Raises:
    ValueError: if the file is damaged.
  """
  found = {}
  for name, array in _read_arrays(folder / "pictures.npz").items():
    group, _, rest = name.partition("/")
    found.setdefault(group, {})[rest] = array
  return found


def check_floors(required: Sequence[Any]) -> None:
  """Rejects malformed requirements on accuracies.

  Args:
    required: rows (metric, epsilon, bound, value), see `config.floors`.

  Raises:
    ValueError: with the first malformed row.
  """
  for row in required:
    if not _is_requirement(row):
      raise ValueError(
        f"requirement {row!r} is not (metric, epsilon, bound, value): metric "
        "clean, adversarial or corruption; epsilon a number for adversarial, "
        "else None; bound 'at least' or 'at most'; value from 0 to 1"
      )


def _text(run: Run) -> str:
  """results.json with one line per row, because there are hundreds."""
  lines = [
    json.dumps(
      {
        "evaluator": row.evaluator,
        "settings": dict(row.settings),
        "total": row.total,
        "correct": row.correct_count,
        "values": dict(row.values),
      },
      allow_nan=False,
    )
    for row in run.rows
  ]
  notes = [dataclasses.asdict(note) for note in run.notes]
  tree = {"schema": SCHEMA} | run.head | {"notes": notes, "rows": []}
  text = json.dumps(tree, indent=2, allow_nan=False).removesuffix("]\n}")
  return text + "\n    " + ",\n    ".join(lines) + "\n  ]\n}\n"


def _again(folder: pathlib.Path) -> str:
  return f"evaluate the run again with --mode=evaluate --workdir={folder}"


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  if not path.is_file():
    return {}
  try:
    with open(path, "rb") as stream, np.load(stream) as file:
      return {name: file[name] for name in file.files}
  except DAMAGE as error:
    raise ValueError(
      f"{str(path)!r} is damaged ({error}): {_again(path.parent)}"
    ) from error


def _read_results(path: pathlib.Path) -> dict[str, Any]:
  again = _again(path.parent)
  if not path.is_file():
    runs = sorted(path.parent.glob("*/results.json"))
    if runs and not (path.parent / "config.json").exists():  # such as a sweep
      again = f"give the folder of a run, such as {runs[0].parent}"
    raise FileNotFoundError(f"no results in {str(path)!r}: {again}")
  try:
    results = json.loads(path.read_bytes(), parse_constant=_no_number)
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f"{str(path)!r} is not valid JSON ({error}): {again}"
    ) from error
  schema = results.get("schema") if isinstance(results, dict) else None
  if schema != SCHEMA:
    raise ValueError(
      f"{str(path)!r} has schema {schema!r}, not {SCHEMA}: {again}"
    )
  try:
    problem = next(_problems(results), None)
  except (AttributeError, TypeError, KeyError) as error:
    problem = f"a part has the wrong type ({error!r})"
  if problem:
    raise ValueError(f"{str(path)!r}: {problem}: {again}")
  return results


def _no_number(name: str) -> None:
  """Rejects NaN, Infinity and -Infinity, which Python's reader accepts."""
  raise ValueError(f"{name} is not a JSON number")


def _problems(results: dict[str, Any]) -> Iterator[str]:
  """Missing parts of a results.json, and parts with the wrong type."""
  for name in ABOUT:
    if name not in results.get("run", {}):
      yield f"run has no {name!r}"
  for kind, names in _HEAD.items():
    for name in names.split():
      *groups, key = name.split(".")
      holder = functools.reduce(lambda x, k: x.get(k, {}), groups, results)
      if key in holder and not isinstance(holder[key], kind):
        yield f"{name} has the wrong type: {holder[key]!r:.60}"
  for note in results["notes"]:
    if not _is_note(note):
      yield f"notes contain an invalid note: {note!r:.60}"
  seen = set()
  for row in results["rows"]:
    yield from _row_problems(row)
    if (key := _row(row).key) in seen:
      yield f"{key} occurs twice"
    seen.add(key)


def _row_problems(row: dict[str, Any]) -> Iterator[str]:
  name, settings = row["evaluator"], row["settings"]
  if not isinstance(name, str):
    yield f"a row's evaluator is {name!r:.60}"
  if not _is_count(row["correct"], row["total"]):
    yield f"{name} needs integers 0 <= correct <= total > 0: {row!r:.200}"
  for kind, expected in _SETTINGS.get(name, {}).items():
    if not isinstance(settings.get(kind), expected):
      yield f"{name} has a row without a valid {kind}: {row!r:.200}"
  for key, value in settings.items():
    if not isinstance(value, str) and not metrics.is_finite(value):
      yield f"{name} has a setting {key} of {value!r:.60}"
  if settings.get("epsilon", 0) < 0:
    yield f"{name} needs an epsilon >= 0: {row!r:.200}"
  for key, value in row["values"].items():
    if not metrics.is_finite(value):
      yield f"{name} needs a finite number for {key}: {row!r:.200}"


def _row(row: dict[str, Any]) -> Row:
  return Row(
    row["evaluator"],
    row["settings"],
    row["total"],
    row["correct"],
    values=row["values"],
  )


def _is_note(note: Any) -> bool:
  known = isinstance(note, dict) and set(note) == {"text", "level"}
  levels = ("info", "warning")
  return known and isinstance(note["text"], str) and note["level"] in levels


def _is_count(correct: Any, total: Any) -> bool:
  whole = type(correct) is int and type(total) is int
  return whole and 0 <= correct <= total and total > 0


def _is_requirement(row: Any) -> bool:
  try:
    metric, epsilon, bound, value = row
    attacked = metric == "adversarial"
    return (
      metric in ("clean", "adversarial", "corruption")
      and (epsilon >= 0 if attacked else epsilon is None)
      and bound in ("at least", "at most")
      and 0 <= value <= 1
    )
  except (TypeError, ValueError):  # wrong length or types
    return False
