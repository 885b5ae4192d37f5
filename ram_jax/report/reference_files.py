"""Reads the files in which others write accuracies down.

They hold no counts: how many images an accuracy is of is then an assumption.
"""

import csv
import dataclasses
import json
import pathlib
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ram_jax.data import cifar_c
from ram_jax.report.entries import (
  DATA_SETS,
  NORMS,
  Entry,
  Reference,
  corrupted,
  named,
  of_data,
  of_folder,
)

PUBLISHED = pathlib.Path(__file__).parent / "published"
# RobustBench and most papers take 15 of the 19 corruptions, the author all.
BENCHMARK = cifar_c.NAMES[:15]
FORMATS = (
  "a run's results.json (of that name); eval_metrics.json, "
  "pgd_per_epsilon.csv (epsilon, accuracy) and "
  "cifar10c_per_corruption.csv (corruption, severity, accuracy) of the "
  "author's code; RobustBench's unaggregated_results.csv and model_info JSON; "
  "JSON as in ram_jax/report/published"
)
# What else files of any bytes make their readers raise.
DAMAGE = (LookupError, TypeError, AttributeError, csv.Error, RecursionError)


def read(path: pathlib.Path, model: str | None = None) -> Reference:
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
  header = [name.strip() for name in rows[0]]
  if len(rows) == 1:
    raise ValueError("it has one row: a header or numbers are missing")
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
  if {"corruption", "severity", "accuracy"} <= set(header):
    names = ("corruption", "severity", "accuracy")
    entries = [_cell(*(c[name] for name in names)) for c in cells]
  elif {"epsilon", "accuracy"} <= set(header):
    entries = [_author_attack(c["epsilon"], c["accuracy"]) for c in cells]
  else:
    raise ValueError(
      f"it has the columns {_listed(header)}; what can be read is {FORMATS}"
    )
  return _author(path, entries)


def _reject_model(model: str | None) -> None:
  if model:
    raise ValueError(f"it has one model: leave out ':{model}'")


def _number(value: Any) -> float:
  try:
    return float("true" if isinstance(value, bool) else value)
  except (ValueError, TypeError, OverflowError):
    raise ValueError(f"{value!r:.60} is no number") from None


def _listed(names: Sequence[str]) -> str:
  return textwrap.shorten(", ".join(names), 200) or "nothing"


def _author(path: pathlib.Path, entries: Sequence[Entry]) -> Reference:
  # The folder tells one evaluation from another, the files' names do not.
  name = path.resolve().parent.name
  data = of_folder(path, DATA_SETS) or "CIFAR-10"
  note = (
    f"the author's files name neither network nor data nor attack: {data} and "
    "the code's default, PGD-10 in the L2 norm, are assumed"
  )
  return of_data(name, str(path), entries, data, notes=(note,))


def _author_metrics(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  entries = [Entry("clean", tree["clean_accuracy"])]
  sweep = tree.get("pgd_adversarial_accuracy_by_epsilon", {})
  entries += [_author_attack(*row) for row in sweep.items()]
  if "cifar10c_mean_accuracy" in tree:
    entries.append(_mean(tree["cifar10c_mean_accuracy"], cifar_c.NAMES))
  return _author(path, entries)


def _author_attack(epsilon: str, accuracy: float | str) -> Entry:
  size, accuracy = _number(epsilon), _number(accuracy)
  attack = {"epsilon": size, "attack": "PGD-10", "norm": "l2"}
  return Entry("adversarial", accuracy, **attack)


def _cell(corruption: str, severity: str, accuracy: str) -> Entry:
  if corruption not in cifar_c.NAMES:
    raise ValueError(
      f"unknown corruption {corruption!r:.60}: there are "
      f"{', '.join(cifar_c.NAMES)}"
    )
  level = _number(severity)
  if level not in cifar_c.SEVERITIES:
    raise ValueError(f"severity {severity!s:.60} of {corruption} is not 1 to 5")
  return corrupted(corruption, int(level), _number(accuracy))


def _mean(accuracy: float, corruptions: tuple[str, ...]) -> Entry:
  over = {"corruptions": corruptions, "severities": cifar_c.SEVERITIES}
  return Entry("corruption", accuracy, **over)


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
  columns = list(zip(corruptions, severities, chosen, strict=True))
  entries = tuple(_cell(*column) for column in columns[1:])
  source, data = f"{path}, row {model}", of_folder(path, DATA_SETS)
  return of_data(model, source, entries, data)


def _robustbench_model(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  entries = [Entry("clean", _percent(tree, "clean_acc"))]
  if "autoattack_acc" in tree:
    epsilon, norm = _robustbench_epsilon(path, tree["eps"])
    accuracy = _percent(tree, "autoattack_acc")
    attack = {"epsilon": epsilon, "attack": "AutoAttack", "norm": norm}
    entries.append(Entry("adversarial", accuracy, **attack))
  if "corruptions_acc" in tree:
    entries.append(_mean(_percent(tree, "corruptions_acc"), BENCHMARK))
  data, notes = _robustbench_data(path, tree.get("dataset"))
  extra = str(tree["additional_data"]).lower()
  if extra not in ("true", "false"):
    raise ValueError(f"additional_data is {extra:.60}: give true or false")
  about = {"model": tree["architecture"], "rounding": 0.5e-4}
  about["notes"] = ("trained with additional data",) * (extra == "true") + notes
  return of_data(path.stem, str(path), entries, data, **about)


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


def _robustbench_epsilon(path: pathlib.Path, value: Any) -> tuple[float, str]:
  """Size and norm of the attack, which the file's folder tells."""
  norm = of_folder(path, NORMS)
  if norm is None:
    raise ValueError(
      "it does not say in which norm its eps is: put it into a folder named "
      "L2 or Linf"
    )
  parts = str(value).split("/")
  try:
    over, under = map(float, parts if len(parts) > 1 else [*parts, 1])
    epsilon = over / under
  except (ValueError, ZeroDivisionError):
    epsilon = -1
  # No pixel changes by more than 1: an 8 there may be 8/255.
  if not 0 <= epsilon <= (1 if norm == "linf" else 1e9):
    raise ValueError(
      f"eps is {value!r:.60} in the {norm} norm of pixels in [0, 1]: give a "
      "number such as 0.5, or 8/255 for 8 grey levels"
    )
  return epsilon, norm


def _robustbench_data(
  path: pathlib.Path, given: str | None
) -> tuple[str | None, tuple[str, ...]]:
  """The data set, and what to say where file and folder disagree."""
  folder = of_folder(path, DATA_SETS)
  own = (named(given, DATA_SETS) or given) if given else None
  if folder is None or own in (None, folder):
    return own or folder, ()
  # Some files of CIFAR-100 say CIFAR-10; their folder is right.
  data = folder if (own, folder) == ("CIFAR-10", "CIFAR-100") else own
  note = f"its dataset is {own}, its folder's {folder}: {data} is assumed"
  return data, (note,)


def _published(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  source, notes = tree["source"], tree["notes"]
  notes = [notes] if isinstance(notes, str) else notes
  if path.parent != PUBLISHED:
    source = f"{path}: {source}"
  entries = _published_entries(tree)
  return Reference(
    path.stem,
    source,
    tuple(dataclasses.replace(e, total=tree["images"]) for e in entries),
    tree["model"],
    tree["data"],
    rounding=tree["rounding"],
    notes=(tree["description"], *notes),
  )


def _published_entries(tree: dict[str, Any]) -> Iterator[Entry]:
  if "clean" in tree:
    yield Entry("clean", tree["clean"])
  for sweep in tree.get("adversarial", []):
    name, norm = sweep["attack"], sweep["norm"]
    if not isinstance(name, str) or norm not in NORMS:
      raise ValueError(
        f"attack is {name!r:.60}, norm {norm!r:.60}: give a name, and "
        f"{' or '.join(NORMS)}"
      )
    for epsilon, accuracy in sweep["by_epsilon"]:
      attack = {"epsilon": epsilon, "attack": name, "norm": norm}
      yield Entry("adversarial", accuracy, **attack)
  for name, accuracies in tree.get("corruption", {}).items():
    rows = zip(cifar_c.SEVERITIES, accuracies, strict=True)
    yield from (_cell(name, *row) for row in rows)
  if "corruption_mean" in tree:
    yield _mean(tree["corruption_mean"], BENCHMARK)
