"""Reads reference accuracies: published numbers, external files, runs.

Every source becomes a table of accuracies in [0, 1] with the columns `COLUMNS`.
External files have no counts, so the number of test images is an assumption.
All assumptions are stated in notes.
"""

import csv
import dataclasses
import json
import os
import pathlib
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ram_jax.corruptions import BENCHMARK, CORRUPTIONS, SEVERITIES
from ram_jax.report.groups import EPSILON_DIGITS, HIDDEN
from ram_jax.runs import results
from ram_jax.runs.results import Run

PUBLISHED = pathlib.Path(__file__).parent / "published"
# Name in folders and RobustBench's files -> name in tables.
DATA_SETS = {
  "cifar10": "CIFAR-10",
  "cifar100": "CIFAR-100",
  "imagenet": "ImageNet",
}
NORMS = {"l2": "l2", "linf": "linf"}
# Number of test images. For ImageNet, often only a subset is used.
IMAGES = {"CIFAR-10": 10_000, "CIFAR-100": 10_000}
# Two models in RobustBench's table were evidently evaluated on fewer corrupted
# images: all of their 75 accuracies are multiples of 1/1000.
FEWER_IMAGES = 1_000
# Settings that must match, the attack, and the numbers. None if a row does not
# have a setting; epsilon is for pixels in [0, 1], and rounded.
SETTINGS = ["evaluator", "norm", "epsilon", "corruption", "severity"]
COLUMNS = [*SETTINGS, "attack", "accuracy", "total"]
ATTACK = {"attack", "norm", "epsilon"}
# Means in references: values of the column `corruption`, without a severity.
# RobustBench and most papers use 15 of the 19 corruptions; the author, all 19.
MEANS = {
  "mean of 15 corruptions": BENCHMARK,
  "mean of 19 corruptions": tuple(CORRUPTIONS),
}
# Files that the author's code writes into a folder.
AUTHOR_FILES = (
  "eval_metrics.json",
  "pgd_per_epsilon.csv",
  "cifar10c_per_corruption.csv",
)
# The author's accuracies on corruptions have six decimals.
AGREEMENT = 1e-5
FORMATS = (
  "a run's results.json (with this exact name); eval_metrics.json, "
  "pgd_per_epsilon.csv (epsilon, accuracy) and "
  "cifar10c_per_corruption.csv (corruption, severity, accuracy) of the "
  "author's code; RobustBench's unaggregated_results.csv and model_info JSON; "
  "JSON as in ram_jax/report/published"
)
# Exceptions that damaged files can cause.
DAMAGE = (LookupError, TypeError, AttributeError, csv.Error, RecursionError)
DAMAGE += (UnicodeDecodeError, json.JSONDecodeError)


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
  """Accuracies of one model.

  Attributes:
    name: short name, for tables and file names.
    source: source of the numbers.
    rows: one line per accuracy, with the columns `COLUMNS`.
    model: the network; None if unknown.
    data: name of the test set, such as "CIFAR-10"; None if unknown.
    images_assumed: whether the number of test images is an assumption.
    rounding: half a unit of the last given digit, in [0, 1].
    notes: information that readers need to interpret the numbers.
  """

  name: str
  source: str
  rows: pd.DataFrame
  model: str | None = None
  data: str | None = None
  images_assumed: bool = True
  rounding: float = 0.0
  notes: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    texts = self.name, self.source, self.model, self.data, *self.notes
    for text in (*texts, *self.rows["attack"]):
      if not isinstance(text, str | None):
        raise ValueError(f"{text!r:.60} is not text")
    if not _is_within(self.rounding, 1):
      raise ValueError(f"rounding {self.rounding!r:.60} is not in [0, 1]")
    if self.rows.empty:
      raise ValueError(f"{self.source} contains no accuracies")
    twice = self.rows.duplicated([*SETTINGS, "attack"])
    for row in self.rows[twice].to_dict("records"):
      raise ValueError(f"{label(row)} is given twice")


def frame(rows: Iterable[Mapping[str, Any]], total: Any = None) -> pd.DataFrame:
  """Checks the rows of a reference.

  Args:
    rows: settings, accuracy and optionally total of each row.
    total: number of test images for rows without one; None if unknown.

  Returns:
    A table with the columns `COLUMNS`, all of dtype object.

  Raises:
    ValueError: if a value is not a number or is out of range.
  """
  lines = []
  for row in rows:
    row = {"total": total} | row
    accuracy, images = row["accuracy"], row["total"]
    if row["evaluator"] == "adversarial":
      epsilon = row["epsilon"]
      if not _is_within(epsilon, 1e9):
        raise ValueError(f"epsilon {epsilon!r:.60} is not a nonnegative number")
      row["epsilon"] = round(float(epsilon), EPSILON_DIGITS)
    if not _is_within(accuracy, 1):
      percent = _is_within(accuracy, 100)
      raise ValueError(
        f"the accuracy of {label(row)} is {accuracy!r:.60}, not in [0, 1]"
        + ": if it is in percent, divide by 100" * percent
      )
    if images is not None and not (type(images) is int and images > 0):
      raise ValueError(f"{images!r:.60} is not a number of test images")
    lines.append([row.get(name) for name in COLUMNS])
  return pd.DataFrame(lines, columns=COLUMNS, dtype=object)


def label(settings: Mapping[str, Any]) -> str:
  """Formats the settings of a row, such as "L2 eps 0.5 (PGD-10)"."""
  if settings.get("attack"):
    norm, attack = str(settings["norm"]).capitalize(), settings["attack"]
    return f"{norm} eps {settings['epsilon']:.4g} ({attack})"
  name, severity = settings.get("corruption"), settings.get("severity")
  if severity:
    return f"{name}, severity {severity}"
  return name or settings["evaluator"]


def read(reference: str) -> Reference:
  """Reads a reference.

  Args:
    reference: the name of published numbers, or a path: a run's folder or its
      results.json, an output folder of the author's code, or a file in one of
      the `FORMATS`. `FILE.csv:MODEL` selects a row of RobustBench's table.

  Returns:
    The reference.

  Raises:
    ValueError: if there is no such reference, or a file cannot be used.
    FileNotFoundError: if a folder has no results.
  """
  path, model = _path_and_model(reference)
  if path is None:
    if reference in published():
      return read_file(PUBLISHED / f"{reference}.json")
    raise ValueError(
      f"no file or folder {reference!r}: give a path (see docs/comparing.md), "
      f"or the name of published numbers: {', '.join(published())}"
    )
  # Absolute, because `compare` tells references apart by their sources.
  path = path.resolve()
  if path.is_file() and path.name != "results.json":
    found = read_file(path, model)
  else:
    found = _of_folder(path if path.is_dir() else path.parent)
  if model not in ("", found.name):
    raise ValueError(f"{str(path)!r} only has one model: omit ':{model}'")
  return found


def published() -> dict[str, str]:
  """Names and descriptions of the references that come with the code."""
  return {
    path.stem: json.loads(path.read_bytes())["description"]
    for path in sorted(PUBLISHED.glob("*.json"))
  }


def of_run(run: Run) -> Reference:
  """Uses a run as a reference; attacks with epsilon 0 are left out.

  Args:
    run: an evaluated run.

  Returns:
    The reference.

  Raises:
    ValueError: if two attacks have the same name, norm and epsilon, or there
      are two sets of corrupted images.
  """
  rows, notes, others = [], {note.text: None for note in run.notes}, {}
  for row in run.rows:
    settings, kind = row.settings, row.evaluator
    if settings.keys() >= ATTACK and kind not in HIDDEN:
      settings = {name: settings[name] for name in ATTACK}
      kind = "adversarial" if settings["epsilon"] else None
    if kind in ("clean", "adversarial", "corruption"):
      accuracy = row.correct_count / row.total
      rows.append({**settings} | _row(kind, accuracy, total=row.total))
    elif kind and kind not in HIDDEN:
      others[kind] = None
    if kind == "corruption":
      notes[f"corrupted images: {settings['images']}"] = None
  if others:
    notes[f"results that are not compared: {', '.join(others)}"] = None
  about = run.about
  return Reference(
    about["name"],
    str(run.folder / "results.json"),
    frame(rows),
    about["model"],
    about["data_label"],
    images_assumed=False,
    notes=tuple(notes),
  )


def read_file(path: pathlib.Path, model: str = "") -> Reference:
  """Reads a file, whose format is detected from its content.

  Args:
    path: the file.
    model: which model, if the file contains several.

  Returns:
    The reference.

  Raises:
    ValueError: if the file cannot be used; one line says why.
  """
  try:
    text = path.read_bytes().decode("utf-8-sig").strip()
    if text.startswith(("{", "[")):
      return _json(path, json.loads(text))
    return _csv(path, text, model)
  except DAMAGE as error:
    raise ValueError(
      f"{str(path)!r} is damaged, lacks a field or has one of the wrong type "
      f"({repr(error):.200}): supported formats are {FORMATS}"
    ) from error
  except ValueError as error:
    raise ValueError(f"cannot use {str(path)!r}: {error}") from error


def _path_and_model(reference: str) -> tuple[pathlib.Path | None, str]:
  """Splits FILE:MODEL at the last colon that has a path before it."""
  parts = reference.split(":")
  for size in range(len(parts), 0, -1):
    path = ":".join(parts[:size])
    if os.path.exists(path):
      return pathlib.Path(path), ":".join(parts[size:])
  return None, ""


def _json(path: pathlib.Path, tree: Any) -> Reference:
  for field, parse in (
    ("clean_accuracy", _author_metrics),
    ("clean_acc", _robustbench_model),
    ("description", _published),
  ):
    if field in tree:
      return parse(path, tree)
  raise ValueError(f"it has {_listed(tree)}; supported formats are {FORMATS}")


def _csv(path: pathlib.Path, text: str, model: str) -> Reference:
  rows = [row for row in csv.reader(text.splitlines()) if any(row)]
  if len(rows) < 2 or len(set(map(len, rows))) > 1:
    raise ValueError("give a header, and rows with as many cells as the header")
  header = [name.strip() for name in rows[0]]
  if not header[0] and not rows[1][0]:
    return _robustbench_table(path, rows, model)
  cells = [dict(zip(header, row, strict=True)) for row in rows[1:]]
  for names, parse in (
    (("corruption", "severity", "accuracy"), _cell),
    (("epsilon", "accuracy"), _author_attack),
  ):
    if set(names) <= set(header):
      return _author(path, [parse(*(c[name] for name in names)) for c in cells])
  raise ValueError(
    f"it has the columns {_listed(header)}; supported formats are {FORMATS}"
  )


def _listed(names: Sequence[str]) -> str:
  return textwrap.shorten(", ".join(names), 200) or "nothing"


def _number(value: Any) -> float:
  try:
    return float("true" if isinstance(value, bool) else value)
  except (ValueError, TypeError, OverflowError):
    raise ValueError(f"{value!r:.60} is not a number") from None


def _is_within(value: Any, most: float) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and 0 <= value <= most


def _named(text: str, names: Mapping[str, str]) -> str | None:
  """The name that matches a text, such as CIFAR-100 or cifar100."""
  return names.get(re.sub(r"[^a-z0-9]", "", text.lower()))


def _in_path(path: pathlib.Path, names: Mapping[str, str]) -> str | None:
  """The name of one of the two folders above a file: cifar10/Linf/FILE."""
  folder = path.parent.resolve()
  return _named(folder.name, names) or _named(folder.parent.name, names)


def _row(evaluator: str, accuracy: Any, **settings: Any) -> dict[str, Any]:
  return {"evaluator": evaluator, "accuracy": accuracy} | settings


def _cell(corruption: str, severity: Any, accuracy: Any) -> dict[str, Any]:
  if corruption not in CORRUPTIONS:
    names = ", ".join(CORRUPTIONS)
    raise ValueError(
      f"unknown corruption {corruption!r:.60}: choose from {names}"
    )
  level = _number(severity)
  if level not in SEVERITIES:
    raise ValueError(f"severity {severity!s:.60} of {corruption} is not 1 to 5")
  cell = {"corruption": corruption, "severity": int(level)}
  return _row("corruption", _number(accuracy), **cell)


def _author(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> Reference:
  # The folder identifies the evaluation; the files' names do not.
  name = path.resolve().parent.name
  data = _in_path(path, DATA_SETS) or "CIFAR-10"
  note = (
    f"the author's files do not name the network, data or attack: {data} and "
    "the code's default attack, PGD-10 in the L2 norm, are assumed"
  )
  rows = frame(rows, IMAGES.get(data))
  return Reference(name, str(path), rows, data=data, notes=(note,))


def _author_metrics(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  sweep = tree.get("pgd_adversarial_accuracy_by_epsilon", {})
  rows = [_row("clean", tree["clean_accuracy"])]
  rows += [_author_attack(*row) for row in sweep.items()]
  if "cifar10c_mean_accuracy" in tree:
    mean = tree["cifar10c_mean_accuracy"]
    rows.append(_row("corruption", mean, corruption="mean of 19 corruptions"))
  return _author(path, rows)


def _author_attack(epsilon: Any, accuracy: Any) -> dict[str, Any]:
  attack = {"epsilon": _number(epsilon), "attack": "PGD-10", "norm": "l2"}
  return _row("adversarial", _number(accuracy), **attack)


def _of_folder(folder: pathlib.Path) -> Reference:
  """A run, or the author's files, which must be from the same evaluation."""
  if (folder / "results.json").is_file():
    return of_run(results.load(folder))
  paths = [folder / name for name in AUTHOR_FILES]
  parts = [read_file(path) for path in paths if path.is_file()]
  if not parts:
    raise FileNotFoundError(
      f"folder {str(folder)!r} has neither results.json nor any of "
      f"{', '.join(AUTHOR_FILES)}: give the folder of an evaluated run, or a "
      "file"
    )
  rows = pd.concat([part.rows for part in parts], ignore_index=True)
  cells = rows.accuracy[rows.severity.notna()]
  # A stored mean must equal the mean of all existing cells, which the table
  # shows anyway.
  is_mean = rows.corruption.isin(MEANS) & bool(len(cells))
  others = rows.groupby(SETTINGS, dropna=False).accuracy.transform("first")
  others = others.mask(is_mean, cells.mean())
  for row, other in zip(rows.to_dict("records"), others, strict=True):
    if abs(row["accuracy"] - other) > AGREEMENT:
      raise ValueError(
        f"the files in {str(folder)!r} are from different evaluations: "
        f"{label(row)} is {row['accuracy']:.6g} in one, {other:.6g} in another"
      )
  names = ", ".join(pathlib.Path(part.source).name for part in parts)
  return dataclasses.replace(
    parts[0],
    name=folder.name,
    source=f"{folder}: {names}",
    rows=rows[~is_mean].drop_duplicates(SETTINGS),
  )


def _robustbench_table(
  path: pathlib.Path, rows: Sequence[Sequence[str]], model: str
) -> Reference:
  """Reads two header rows (corruptions, severities), then one per model."""
  corruptions, severities, *others = rows
  models = [row[0] for row in others]
  if models.count(model) != 1:
    count = f"{models.count(model)} rows of {model}"
    asked = count if model else "one row per model"
    raise ValueError(
      f"it has {asked}: write --reference={path}:MODEL with one of "
      f"{', '.join(models)}"
    )
  chosen = others[models.index(model)]
  columns = list(zip(corruptions, severities, chosen, strict=True))[1:]
  data = _in_path(path, DATA_SETS)
  cells = [_cell(*column) for column in columns]
  images, notes = _images(cells, IMAGES.get(data))
  source = f"{path}, row {model}"
  return Reference(model, source, frame(cells, images), data=data, notes=notes)


def _images(
  cells: Sequence[Mapping[str, Any]], usual: Any
) -> tuple[Any, tuple[str, ...]]:
  """The number of images assumed for exact accuracies on corruptions; notes.

  Args:
    cells: rows with accuracies that were not rounded.
    usual: number of images of the test set; None if unknown.

  Returns:
    `FEWER_IMAGES` and a note that says so if it is less than `usual` and all of
    at least 10 accuracies are multiples of its inverse; otherwise `usual`.
  """
  counts = [FEWER_IMAGES * cell["accuracy"] for cell in cells]
  few = len(counts) < 10 or (usual or 0) <= FEWER_IMAGES
  if few or any(abs(c - round(c)) > 1e-6 for c in counts):
    return usual, ()
  note = (
    f"corruptions: all accuracies are multiples of 1/{FEWER_IMAGES}, so "
    f"{FEWER_IMAGES} test images are assumed"
  )
  return FEWER_IMAGES, (note,)


def _robustbench_model(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  rows = [_row("clean", _percent(tree, "clean_acc"))]
  if "autoattack_acc" in tree:
    attack = {"attack": "AutoAttack"} | _norm_and_epsilon(path, tree["eps"])
    accuracy = _percent(tree, "autoattack_acc")
    rows.append(_row("adversarial", accuracy, **attack))
  if "corruptions_acc" in tree:
    mean = _percent(tree, "corruptions_acc")
    rows.append(_row("corruption", mean, corruption="mean of 15 corruptions"))
  extra = str(tree["additional_data"]).lower()
  if extra not in ("true", "false"):
    raise ValueError(f"additional_data is {extra:.60}: give true or false")
  notes = ["trained with additional data"] * (extra == "true")
  # The data set in the file, else that of the folder.
  folder, given = _in_path(path, DATA_SETS), tree.get("dataset")
  data = own = (_named(given, DATA_SETS) or given) if given else folder
  if folder not in (None, own):
    # Some files for CIFAR-100 say CIFAR-10, but their folder is correct.
    data = folder if (own, folder) == ("CIFAR-10", "CIFAR-100") else own
    notes.append(
      f"the file says {own}, but its folder says {folder}: {data} is assumed"
    )
  return Reference(
    path.stem,
    str(path),
    frame(rows, IMAGES.get(data)),
    tree["architecture"],
    data,
    rounding=0.5e-4,
    notes=tuple(notes),
  )


def _percent(tree: dict[str, Any], name: str) -> float:
  """Converts an accuracy in percent to [0, 1]."""
  value = _number(tree[name])
  # Under attack, accuracies can be below chance, even 0.
  if not (value > 1 or name == "autoattack_acc" and value >= 0) or value > 100:
    raise ValueError(
      f"{name} is {tree[name]!r:.60}: RobustBench's accuracies are in percent, "
      "such as 95.08"
    )
  return value / 100


def _norm_and_epsilon(path: pathlib.Path, value: Any) -> dict[str, Any]:
  """Norm and epsilon of an attack; the folder's name gives the norm."""
  norm = _in_path(path, NORMS)
  if norm is None:
    raise ValueError(
      "it does not name the norm of eps: put it into a folder named L2 or Linf"
    )
  over, slash, under = str(value).partition("/")
  try:
    epsilon = float(over) / (float(under) if slash else 1)
  except (ValueError, ZeroDivisionError):
    epsilon = -1
  # No pixel changes by more than 1; 8 probably means 8/255.
  if not 0 <= epsilon <= (1 if norm == "linf" else 1e9):
    raise ValueError(
      f"eps is {value!r:.60} in the {norm} norm of pixels in [0, 1]: give a "
      "number such as 0.5, or 8/255"
    )
  return {"norm": norm, "epsilon": epsilon}


def _published(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  notes = tree["notes"]
  notes = [notes] if isinstance(notes, str) else notes
  where = "" if path.parent == PUBLISHED else f"{path}: "
  cells = [
    _cell(name, *cell)
    for name, accuracies in tree.get("corruption", {}).items()
    for cell in zip(SEVERITIES, accuracies, strict=True)
  ]
  images, more = tree["images"], ()
  if not tree["rounding"]:
    images, more = _images(cells, images)
  cells = [cell | {"total": images} for cell in cells]
  return Reference(
    path.stem,
    where + tree["source"],
    frame([*_published_rows(tree), *cells], tree["images"]),
    tree["model"],
    tree["data"],
    rounding=tree["rounding"],
    notes=(tree["description"], *notes, *more),
  )


def _published_rows(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
  if "clean" in tree:
    yield _row("clean", tree["clean"])
  for sweep in tree.get("adversarial", []):
    name, norm = sweep["attack"], sweep["norm"]
    if norm not in NORMS:
      raise ValueError(f"norm is {norm!r:.60}: give {' or '.join(NORMS)}")
    for epsilon, accuracy in sweep["by_epsilon"]:
      attack = {"attack": name, "norm": norm, "epsilon": epsilon}
      yield _row("adversarial", accuracy, **attack)
  if "corruption_mean" in tree:
    mean = tree["corruption_mean"]
    yield _row("corruption", mean, corruption="mean of 15 corruptions")
