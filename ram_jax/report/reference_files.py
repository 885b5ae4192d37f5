"""Reads the files in which others write accuracies down.

They hold no counts: how many images an accuracy is of is then an assumption.
"""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from ram_jax.data import cifar_c
from ram_jax.report.entries import CIFAR_IMAGES, Entry, Reference, corrupted

# RobustBench and most papers take 15 of the 19 corruptions, the author all.
BENCHMARK = cifar_c.NAMES[:15]
FORMATS = (
  "a run's results.json (of that name); eval_metrics.json, "
  "pgd_per_epsilon.csv (epsilon, accuracy) and "
  "cifar10c_per_corruption.csv (corruption, severity, accuracy) of the "
  "author's code; RobustBench's unaggregated_results.csv and model_info JSON; "
  "JSON as in ram_jax/report/published"
)
AUTHOR_NOTE = (
  "the author's files name neither network nor data nor attack: CIFAR-10 and "
  "the code's default, PGD-10 in the L2 norm, are assumed"
)


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
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"{str(path)!r} lacks a part, or has one of a wrong kind ({error!r}): "
      f"what can be read is {FORMATS}"
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
      _refuse_model(model)
      return parse(path, tree)
  names = ", ".join(sorted(tree)) or "nothing"
  raise ValueError(f"it has {names}; what can be read is {FORMATS}")


def _csv(path: pathlib.Path, text: str, model: str | None) -> Reference:
  rows = [row for row in csv.reader(text.splitlines()) if any(row)]
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
  _refuse_model(model)
  cells = [dict(zip(header, row, strict=True)) for row in rows[1:]]
  if {"corruption", "severity", "accuracy"} <= set(header):
    names = ("corruption", "severity", "accuracy")
    entries = [_cell(*(c[name] for name in names)) for c in cells]
  elif {"epsilon", "accuracy"} <= set(header):
    entries = [_author_attack(c["epsilon"], c["accuracy"]) for c in cells]
  else:
    raise ValueError(
      f"it has the columns {', '.join(header)}; what can be read is {FORMATS}"
    )
  return _author(path, entries)


def _refuse_model(model: str | None) -> None:
  if model:
    raise ValueError(f"it has one model: leave out ':{model}'")


def _number(text: Any) -> float:
  try:
    return float(text)
  except ValueError:
    raise ValueError(f"{text!r} is no number") from None


def _author(path: pathlib.Path, entries: Sequence[Entry]) -> Reference:
  # The folder tells one evaluation from another, the files' names do not.
  name = path.resolve().parent.name
  return Reference(name, str(path), tuple(entries), notes=(AUTHOR_NOTE,))


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
      f"unknown corruption {corruption!r}: there are {', '.join(cifar_c.NAMES)}"
    )
  level = _number(severity)
  if level not in cifar_c.SEVERITIES:
    raise ValueError(f"severity {severity} of {corruption} is not 1 to 5")
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
  return Reference(model, f"{path}, row {model}", entries)


def _robustbench_model(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  entries = [Entry("clean", _number(tree["clean_acc"]) / 100)]
  if "autoattack_acc" in tree:
    # L2 with 0.5, Linf with 8/255: the file does not say the norm.
    over, _, under = tree["eps"].partition("/")
    attack = {"attack": "AutoAttack", "norm": "linf" if under else "l2"}
    attack["epsilon"] = _number(over) / _number(under or "1")
    accuracy = _number(tree["autoattack_acc"]) / 100
    entries.append(Entry("adversarial", accuracy, **attack))
  if "corruptions_acc" in tree:
    entries.append(_mean(_number(tree["corruptions_acc"]) / 100, BENCHMARK))
  # Some files of CIFAR-100 say CIFAR-10; their folder is right.
  hundred = "cifar100" in (tree["dataset"], *path.resolve().parts)
  return Reference(
    path.stem,
    str(path),
    tuple(entries),
    tree["architecture"],
    "CIFAR-100" if hundred else "CIFAR-10",
    rounding=0.5e-4,
    notes=("trained with additional data",) * bool(tree["additional_data"]),
  )


def _published(path: pathlib.Path, tree: dict[str, Any]) -> Reference:
  entries = list(_published_entries(tree))
  return Reference(
    path.stem,
    tree["source"],
    tuple(dataclasses.replace(e, total=tree["images"]) for e in entries),
    tree["model"],
    tree["data"],
    rounding=tree["rounding"],
    notes=(tree["description"], *tree["notes"]),
  )


def _published_entries(tree: dict[str, Any]) -> Iterator[Entry]:
  if "clean" in tree:
    yield Entry("clean", tree["clean"])
  for sweep in tree.get("adversarial", []):
    for epsilon, accuracy in sweep["by_epsilon"]:
      attack = (epsilon, sweep["attack"], sweep["norm"])
      yield Entry("adversarial", accuracy, CIFAR_IMAGES, *attack)
  for name, accuracies in tree.get("corruption", {}).items():
    rows = zip(cifar_c.SEVERITIES, accuracies, strict=True)
    yield from (_cell(name, *row) for row in rows)
  if "corruption_mean" in tree:
    yield _mean(tree["corruption_mean"], BENCHMARK)
