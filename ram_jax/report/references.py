"""Reads accuracies: published numbers, others' files, runs.

Every source becomes one table of accuracies in [0, 1] with the columns
`COLUMNS`. Others' files have no counts: how many images an accuracy is of is
then an assumption. What a file does not say is never guessed silently.
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
from ram_jax.runs import results
from ram_jax.runs.results import Run

PUBLISHED = pathlib.Path(__file__).parent / "published"
NAMES = tuple(CORRUPTIONS)
# What folders and RobustBench's files call data sets -> what tables do.
DATA_SETS = {
  "cifar10": "CIFAR-10",
  "cifar100": "CIFAR-100",
  "imagenet": "ImageNet",
}
NORMS = {"l2": "l2", "linf": "linf"}
# Test images. Those of ImageNet are often not all used.
IMAGES = {"CIFAR-10": 10_000, "CIFAR-100": 10_000}
# Settings that must be equal, whoever attacks; the attack; the numbers. None
# where a row has no such setting; epsilon in pixels of [0, 1], to 4 digits.
SETTINGS = ["evaluator", "norm", "epsilon", "corruption", "severity"]
COLUMNS = [*SETTINGS, "attack", "accuracy", "total"]
ATTACK = {"attack", "norm", "epsilon"}
# In the column `corruption`, without a severity: means that sources give.
# RobustBench and most papers take 15 of the 19 corruptions, the author all.
MEANS = {"mean of 15": BENCHMARK, "mean of 19": NAMES}
# What the author's code leaves in one folder.
AUTHOR_FILES = (
  "eval_metrics.json",
  "pgd_per_epsilon.csv",
  "cifar10c_per_corruption.csv",
)
# Its accuracies of corruptions have six decimals.
AGREEMENT = 1e-5
FORMATS = (
  "a run's results.json (of that name); eval_metrics.json, "
  "pgd_per_epsilon.csv (epsilon, accuracy) and "
  "cifar10c_per_corruption.csv (corruption, severity, accuracy) of the "
  "author's code; RobustBench's unaggregated_results.csv and model_info JSON; "
  "JSON as in ram_jax/report/published"
)
# What else files of any bytes make their readers raise.
DAMAGE = (LookupError, TypeError, AttributeError, csv.Error, RecursionError)


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
  """Accuracies of one model.

  Attributes:
    name: short, for tables and file names.
    source: where the numbers are from.
    rows: one line per accuracy, with the columns `COLUMNS`.
    model: the network; None where the source does not say.
    data: name of the test set, such as "CIFAR-10"; None where it is unknown.
    images_assumed: whether the source leaves the number of test images open.
    rounding: half a unit of the last digit given, in [0, 1].
    notes: what a reader must know beside the numbers.
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
    texts = [self.name, self.source, *self.notes]
    texts += [text for text in (self.model, self.data) if text is not None]
    for text in texts:
      if not isinstance(text, str):
        raise ValueError(f"{text!r:.60} is no text")
    if not _is_within(self.rounding, 1):
      raise ValueError(f"rounding {self.rounding!r:.60} is not in [0, 1]")
    if self.rows.empty:
      raise ValueError(f"{self.source} has no accuracy")
    twice = self.rows.duplicated([*SETTINGS, "attack"])
    for row in self.rows[twice].to_dict("records"):
      raise ValueError(f"{label(row)} is given twice")


def frame(rows: Iterable[Mapping[str, Any]], total: Any = None) -> pd.DataFrame:
  """Rows of a reference, checked.

  Args:
    rows: settings and accuracy of each, and its total.
    total: number of test images, where rows have none; None if it is unknown.

  Returns:
    A table with the columns `COLUMNS`, all of dtype object.

  Raises:
    ValueError: numbers that are none, or are out of range.
  """
  lines = []
  for row in rows:
    row = {"total": total} | row
    accuracy, images = row["accuracy"], row["total"]
    if row["evaluator"] == "adversarial":
      epsilon = row["epsilon"]
      if not _is_within(epsilon, 1e9):
        raise ValueError(f"epsilon {epsilon!r:.60} is no number of at least 0")
      # An epsilon given as 8 / 255 or as 0.031373 is the same epsilon.
      row["epsilon"] = float(f"{epsilon:.4g}")
    if not _is_within(accuracy, 1):
      percent = _is_within(accuracy, 100)
      raise ValueError(
        f"the accuracy of {label(row)} is {accuracy!r:.60}, not in [0, 1]"
        + ": if that is in percent, divide by 100" * percent
      )
    if images is not None and not (type(images) is int and images > 0):
      raise ValueError(f"{images!r:.60} is no number of test images")
    lines.append([row.get(name) for name in COLUMNS])
  return pd.DataFrame(lines, columns=COLUMNS, dtype=object)


def label(settings: Mapping[str, Any]) -> str:
  """A row's settings in words, such as "L2 eps 0.5 (PGD-10)"."""
  if settings.get("attack"):
    norm, attack = str(settings["norm"]).capitalize(), settings["attack"]
    return f"{norm} eps {settings['epsilon']:.4g} ({attack})"
  name, severity = settings.get("corruption"), settings.get("severity")
  if severity:
    return f"{name}, severity {severity}"
  return "corruption mean" if name in MEANS else name or settings["evaluator"]


def read(reference: str) -> Reference:
  """Reads a reference.

  Args:
    reference: the name of a published one; or a path: of a run's folder or its
      results.json, of the folder in which the author's code has evaluated, or
      of a file of `FORMATS`. `FILE.csv:MODEL` chooses a row of RobustBench's
      table.

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
    return read_file(PUBLISHED / f"{reference}.json")
  path, model = _path_and_model(reference)
  if not (path.is_file() or path.is_dir() and model is None):
    names = "; ".join(f"{name}: {text}" for name, text in published().items())
    raise ValueError(
      f"no file or folder {reference!r}: give a path (docs/results_format.md "
      f"says of what), or the name of published numbers: {names}"
    )
  if path.is_dir():
    path = path.resolve()
    has_results = (path / "results.json").is_file()
    return of_run(results.load(path)) if has_results else _author_folder(path)
  # Absolute, as a source is compared with those of other comparisons.
  path = path.parent.resolve() / path.name
  if path.name == "results.json":
    _reject_model(model)
    return of_run(results.load(path.parent))
  return read_file(path, model)


def published() -> dict[str, str]:
  """Names of the references that come with the code, each with one line."""
  return {
    path.stem: json.loads(path.read_bytes())["description"]
    for path in sorted(PUBLISHED.glob("*.json"))
  }


def of_run(run: Run) -> Reference:
  """A run as a reference; attacks of epsilon 0 are left out.

  Args:
    run: with its results.

  Returns:
    The reference.

  Raises:
    ValueError: two attacks of one name, norm and epsilon, or two sets of
      corrupted images.
  """
  rows, notes = [], {note.text: None for note in run.notes}
  for row in run.rows:
    settings, kind = row.settings, row.evaluator
    if settings.keys() >= ATTACK and kind != "attack_check":
      settings = {name: settings[name] for name in ATTACK}
      kind = "adversarial" if settings["epsilon"] else None
    if kind in ("clean", "adversarial", "corruption"):
      accuracy = row.correct_count / row.total
      rows.append({**settings} | _row(kind, accuracy, total=row.total))
    if kind == "corruption":
      notes[f"corrupted images: {settings['images']}"] = None
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


def read_file(path: pathlib.Path, model: str | None = None) -> Reference:
  """Reads one file, by what is in it and not by its name.

  Args:
    path: the file.
    model: which one, where the file has several.

  Returns:
    The reference.

  Raises:
    ValueError: what is wrong with the file, in one sentence.
  """
  try:
    text = path.read_bytes().decode("utf-8-sig").strip()
    if not text:
      raise ValueError("it is empty")
    parse = _json if text.startswith(("{", "[")) else _csv
    return parse(path, text, model)
  except UnicodeDecodeError as error:
    raise ValueError(f"{str(path)!r} is not text in UTF-8") from error
  except json.JSONDecodeError as error:
    raise ValueError(f"{str(path)!r} is not whole JSON ({error})") from error
  except DAMAGE as error:
    raise ValueError(
      f"{str(path)!r} lacks a part, or has one of a wrong kind "
      f"({repr(error):.200}): what can be read is {FORMATS}"
    ) from error
  except ValueError as error:
    raise ValueError(f"cannot use {str(path)!r}: {error}") from error


def _path_and_model(reference: str) -> tuple[pathlib.Path, str | None]:
  """Splits FILE:MODEL at the last colon that has a file before it."""
  front, colon, model = reference, "", ""
  while not os.path.exists(front):
    front, colon, last = front.rpartition(":")
    if not colon:
      return pathlib.Path(reference), None
    model = f"{last}:{model}" if model else last
  return pathlib.Path(front), model if colon else None


def _json(path: pathlib.Path, text: str, model: str | None) -> Reference:
  tree = json.loads(text)
  for field, parse in (
    ("clean_accuracy", _author_metrics),
    ("clean_acc", _robustbench_model),
    ("description", _published),
  ):
    if field in tree:
      _reject_model(model)
      return parse(path, tree)
  raise ValueError(f"it has {_listed(tree)}; what can be read is {FORMATS}")


def _csv(path: pathlib.Path, text: str, model: str | None) -> Reference:
  rows = [row for row in csv.reader(text.splitlines()) if any(row)]
  if not rows:
    raise ValueError("all its cells are empty")
  if len(rows) == 1:
    raise ValueError("it has one row: a header or numbers are missing")
  header = [name.strip() for name in rows[0]]
  for number, row in enumerate(rows, start=1):
    if len(row) != len(header):
      raise ValueError(
        f"row {number} has {len(row)} cells where the first has {len(header)}"
      )
  if header[0] == "" and len(rows) > 2 and rows[1][0] == "":
    return _robustbench_table(path, rows, model)
  _reject_model(model)
  if len(set(header)) < len(header):
    raise ValueError(f"it has a column twice: {_listed(header)}")
  cells = [dict(zip(header, row, strict=True)) for row in rows[1:]]
  for names, parse in (
    (("corruption", "severity", "accuracy"), _cell),
    (("epsilon", "accuracy"), _author_attack),
  ):
    if set(names) <= set(header):
      return _author(path, [parse(*(c[name] for name in names)) for c in cells])
  raise ValueError(
    f"it has the columns {_listed(header)}; what can be read is {FORMATS}"
  )


def _reject_model(model: str | None) -> None:
  if model:
    raise ValueError(f"it has one model: leave out ':{model}'")


def _listed(names: Sequence[str]) -> str:
  return textwrap.shorten(", ".join(names), 200) or "nothing"


def _number(value: Any) -> float:
  try:
    return float("true" if isinstance(value, bool) else value)
  except (ValueError, TypeError, OverflowError):
    raise ValueError(f"{value!r:.60} is no number") from None


def _is_within(value: Any, most: float) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and 0 <= value <= most


def _named(text: str, names: Mapping[str, str]) -> str | None:
  """The one of the names that a text spells: CIFAR-100 or cifar100."""
  return names.get(re.sub(r"[^a-z0-9]", "", text.lower()))


def _of_folder(path: pathlib.Path, names: Mapping[str, str]) -> str | None:
  """The one after which a folder near a file is called: cifar10/Linf/FILE."""
  folder = path.parent.resolve()
  return _named(folder.name, names) or _named(folder.parent.name, names)


def _row(evaluator: str, accuracy: Any, **settings: Any) -> dict[str, Any]:
  return {"evaluator": evaluator, "accuracy": accuracy} | settings


def _cell(corruption: str, severity: Any, accuracy: Any) -> dict[str, Any]:
  if corruption not in NAMES:
    names = ", ".join(NAMES)
    raise ValueError(f"unknown corruption {corruption!r:.60}: choose {names}")
  level = _number(severity)
  if level not in SEVERITIES:
    raise ValueError(f"severity {severity!s:.60} of {corruption} is not 1 to 5")
  cell = {"corruption": corruption, "severity": int(level)}
  return _row("corruption", _number(accuracy), **cell)


def _author(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> Reference:
  # The folder tells one evaluation from another, the files' names do not.
  name = path.resolve().parent.name
  data = _of_folder(path, DATA_SETS) or "CIFAR-10"
  note = (
    f"the author's files name neither network nor data nor attack: {data} and "
    "the code's default, PGD-10 in the L2 norm, are assumed"
  )
  rows = frame(rows, IMAGES.get(data))
  return Reference(name, str(path), rows, data=data, notes=(note,))


def _author_metrics(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  sweep = tree.get("pgd_adversarial_accuracy_by_epsilon", {})
  rows = [_row("clean", tree["clean_accuracy"])]
  rows += [_author_attack(*row) for row in sweep.items()]
  if "cifar10c_mean_accuracy" in tree:
    mean = tree["cifar10c_mean_accuracy"]
    rows.append(_row("corruption", mean, corruption="mean of 19"))
  return _author(path, rows)


def _author_attack(epsilon: Any, accuracy: Any) -> dict[str, Any]:
  attack = {"epsilon": _number(epsilon), "attack": "PGD-10", "norm": "l2"}
  return _row("adversarial", _number(accuracy), **attack)


def _author_folder(folder: pathlib.Path) -> Reference:
  """One reference of the author's files, which must be of one evaluation."""
  paths = [folder / name for name in AUTHOR_FILES]
  parts = [read_file(path) for path in paths if path.is_file()]
  if not parts:
    raise FileNotFoundError(
      f"folder {str(folder)!r} has neither results.json nor any of "
      f"{', '.join(AUTHOR_FILES)}: name the folder of an evaluated run, or a "
      "file"
    )
  rows = pd.concat([part.rows for part in parts], ignore_index=True)
  cells = rows.accuracy[rows.severity.notna()]
  # The mean of however many cells there are, which the table shows anyway.
  is_mean = rows.corruption.isin(MEANS) & bool(len(cells))
  others = rows.groupby(SETTINGS, dropna=False).accuracy.transform("first")
  others = others.mask(is_mean, cells.mean())
  for row, other in zip(rows.to_dict("records"), others, strict=True):
    if abs(row["accuracy"] - other) > AGREEMENT:
      raise ValueError(
        f"the files in {str(folder)!r} are of different evaluations: "
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
  path: pathlib.Path, rows: Sequence[Sequence[str]], model: str | None
) -> Reference:
  """Two rows of header (corruptions, severities), then one row a model."""
  corruptions, severities, *others = rows
  models = [row[0] for row in others]
  if models.count(model) != 1:
    asked = f"{models.count(model)} rows of {model}" if model else "many models"
    raise ValueError(
      f"it has {asked}: write --reference={path}:MODEL with one of "
      f"{', '.join(models)}"
    )
  chosen = others[models.index(model)]
  columns = list(zip(corruptions, severities, chosen, strict=True))[1:]
  data = _of_folder(path, DATA_SETS)
  cells = frame([_cell(*column) for column in columns], IMAGES.get(data))
  return Reference(model, f"{path}, row {model}", cells, data=data)


def _robustbench_model(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  rows = [_row("clean", _percent(tree, "clean_acc"))]
  if "autoattack_acc" in tree:
    attack = _robustbench_attack(path, tree["eps"])
    accuracy = _percent(tree, "autoattack_acc")
    rows.append(_row("adversarial", accuracy, **attack))
  if "corruptions_acc" in tree:
    accuracy = _percent(tree, "corruptions_acc")
    rows.append(_row("corruption", accuracy, corruption="mean of 15"))
  data, notes = _robustbench_data(path, tree.get("dataset"))
  extra = str(tree["additional_data"]).lower()
  if extra not in ("true", "false"):
    raise ValueError(f"additional_data is {extra:.60}: give true or false")
  return Reference(
    path.stem,
    str(path),
    frame(rows, IMAGES.get(data)),
    tree["architecture"],
    data,
    rounding=0.5e-4,
    notes=("trained with additional data",) * (extra == "true") + notes,
  )


def _percent(tree: dict[str, Any], name: str) -> float:
  """An accuracy in [0, 1] of one in percent."""
  value = _number(tree[name])
  # Attacks leave some models nothing, whereas guessing is right more often.
  if not (value > 1 or name == "autoattack_acc" and value >= 0) or value > 100:
    raise ValueError(
      f"{name} is {tree[name]!r:.60}: RobustBench's accuracies are in percent, "
      "such as 95.08"
    )
  return value / 100


def _robustbench_attack(path: pathlib.Path, value: Any) -> dict[str, Any]:
  """Size and norm of the attack, which the file's folder tells."""
  norm = _of_folder(path, NORMS)
  if norm is None:
    raise ValueError(
      "it does not say in which norm its eps is: put it into a folder named "
      "L2 or Linf"
    )
  over, slash, under = str(value).partition("/")
  try:
    epsilon = float(over) / (float(under) if slash else 1)
  except (ValueError, ZeroDivisionError):
    epsilon = -1
  # No pixel changes by more than 1: an 8 there may be 8/255.
  if not 0 <= epsilon <= (1 if norm == "linf" else 1e9):
    raise ValueError(
      f"eps is {value!r:.60} in the {norm} norm of pixels in [0, 1]: give a "
      "number such as 0.5, or 8/255 for 8 grey levels"
    )
  return {"attack": "AutoAttack", "norm": norm, "epsilon": epsilon}


def _robustbench_data(
  path: pathlib.Path, given: str | None
) -> tuple[str | None, tuple[str, ...]]:
  """The data set, and what to say where file and folder disagree."""
  folder = _of_folder(path, DATA_SETS)
  own = (_named(given, DATA_SETS) or given) if given else None
  if folder is None or own in (None, folder):
    return own or folder, ()
  # Some files of CIFAR-100 say CIFAR-10; their folder is right.
  data = folder if (own, folder) == ("CIFAR-10", "CIFAR-100") else own
  note = f"its dataset is {own}, its folder's {folder}: {data} is assumed"
  return data, (note,)


def _published(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  notes = tree["notes"]
  notes = [notes] if isinstance(notes, str) else notes
  where = "" if path.parent == PUBLISHED else f"{path}: "
  return Reference(
    path.stem,
    where + tree["source"],
    frame(_published_rows(tree), tree["images"]),
    tree["model"],
    tree["data"],
    rounding=tree["rounding"],
    notes=(tree["description"], *notes),
  )


def _published_rows(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
  if "clean" in tree:
    yield _row("clean", tree["clean"])
  for sweep in tree.get("adversarial", []):
    name, norm = sweep["attack"], sweep["norm"]
    if not isinstance(name, str) or norm not in NORMS:
      raise ValueError(
        f"attack is {name!r:.60}, norm {norm!r:.60}: give a name, and "
        f"{' or '.join(NORMS)}"
      )
    for epsilon, accuracy in sweep["by_epsilon"]:
      attack = {"attack": name, "norm": norm, "epsilon": epsilon}
      yield _row("adversarial", accuracy, **attack)
  for name, accuracies in tree.get("corruption", {}).items():
    for cell in zip(SEVERITIES, accuracies, strict=True):
      yield _cell(name, *cell)
  if "corruption_mean" in tree:
    mean = tree["corruption_mean"]
    yield _row("corruption", mean, corruption="mean of 15")
