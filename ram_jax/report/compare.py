"""A run beside a reference: the table, and its files."""

import dataclasses
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ram_jax.corruptions import SEVERITIES
from ram_jax.report import references, statistics
from ram_jax.report.references import MEANS, SETTINGS, Reference, label
from ram_jax.report.table import Table, literal
from ram_jax.runs import metrics
from ram_jax.runs.results import Run

SCHEMA = 2
METHOD = "Newcombe 1998, method 10"
SIDES = ("run", "reference")


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A run beside a reference.

  Attributes:
    label: the run's name for people.
    run: the run.
    reference: the reference.
    rows: clean, adversarial, the mean over corruptions and each one's mean over
      severities, as far as both have them: settings; `run` and `reference`,
      each with accuracy, attack and total; difference, low, high, outside.
    cells: the same of each corruption and severity that both have.
    only_run: settings, accuracy and total of what the reference lacks.
    only_reference: of what the run lacks.
  """

  label: str
  run: Reference
  reference: Reference
  rows: list[dict[str, Any]]
  cells: list[dict[str, Any]]
  only_run: list[dict[str, Any]]
  only_reference: list[dict[str, Any]]


def match(run: Run, reference: Reference) -> Comparison:
  """Pairs what was evaluated alike: norm and size of attacks, corruptions.

  Args:
    run: the run.
    reference: what it is compared with.

  Returns:
    The pairs; those with attacks of different names too.

  Raises:
    ValueError: nothing in common.
  """
  mine = references.of_run(run)
  rows = pd.concat([mine.rows, references.frame(_means(mine.rows))])
  names = [f"_{side}" for side in SIDES]
  pairs = rows.merge(reference.rows, on=SETTINGS, suffixes=names)
  cells = pairs[pairs.severity.notna()]
  parts = cells.groupby("corruption", sort=False)
  averages = [_average(part) for _, part in parts]
  if len(averages) > 1:
    averages.insert(0, _average(cells) | {"corruption": "corruption mean"})
  others, means = pairs[pairs.corruption.isna()], pairs.corruption.isin(MEANS)
  found = _records(others) + averages + _records(pairs[means])
  if not found:
    raise ValueError(
      f"run {mine.name} and reference {reference.name} have no measure in "
      f"common: the run has {_listed(_records(mine.rows))}, the reference "
      f"{_listed(_records(reference.rows))}"
    )
  used = set(pairs[SETTINGS].itertuples(index=False, name=None))
  only = []
  for side in (mine, reference):
    rows = map(_given, _records(side.rows))
    only.append([r for r in rows if tuple(map(r.get, SETTINGS)) not in used])
  paired = (
    [_row(pair, reference.rounding) for pair in part]
    for part in (found, _records(cells))
  )
  return Comparison(run.about["label"], mine, reference, *paired, *only)


def _means(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
  """Means that sources give, where the run has all that is in them."""
  for mean, names in MEANS.items():
    cells = rows[rows.severity.notna() & rows.corruption.isin(names)]
    if len(cells) == len(names) * len(SEVERITIES):
      numbers = {"accuracy": cells.accuracy.mean(), "total": cells.total.min()}
      yield {"evaluator": "corruption", "corruption": mean} | numbers


def _average(cells: pd.DataFrame) -> dict[str, Any]:
  """Mean of accuracies, with the number of images as that of trials.

  The variance of a mean of correlated proportions is at most that of one
  proportion of its size: counting every image once cannot be too narrow.
  """
  pair = cells.iloc[0].to_dict() | {"severity": None}
  for side in SIDES:
    totals = cells[f"total_{side}"]
    pair[f"total_{side}"] = None if totals.isna().any() else totals.min()
    pair[f"accuracy_{side}"] = cells[f"accuracy_{side}"].mean()
  return pair


def _row(pair: Mapping[str, Any], rounding: float) -> dict[str, Any]:
  """Both sides of a pair, and their difference."""
  row = _given({name: pair[name] for name in SETTINGS})
  for side in SIDES:
    names = ("accuracy", "attack", "total")
    row[side] = _given({name: pair[f"{name}_{side}"] for name in names})
  mine, other = row["run"], row["reference"]
  row |= {"difference": mine["accuracy"] - other["accuracy"]}
  row |= {"low": None, "high": None, "outside": False}
  if "total" in mine and "total" in other:
    counts = [s[name] for s in (mine, other) for name in ("accuracy", "total")]
    low, high = statistics.newcombe(*counts)
    # The true value is up to half a digit away from the one given.
    row |= {"low": low - rounding, "high": high + rounding}
    row["outside"] = not row["low"] <= 0 <= row["high"]
  return row


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
  return rows.to_dict("records")


def _given(row: Mapping[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in row.items() if value is not None}


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
  """What was evaluated, in words; severities where they are not all."""
  found = {}
  for row in rows:
    severity = row.get("severity")
    name = row["corruption"] if severity else label(row)
    found.setdefault(name, []).append(severity)
  parts = [
    f"{name} (severity {', '.join(map(str, severities))})"
    if None not in severities and len(severities) < len(SEVERITIES)
    else name
    for name, severities in found.items()
  ]
  return "; ".join(parts) or "nothing"


def table(run: Run, reference: Reference) -> Table:
  """Shows what a run and a reference have in common, in percent.

  Args:
    run: the run.
    reference: what it is compared with.

  Returns:
    One row per measure; footnotes say how each side was obtained, what differs
    beside the numbers, and what only one side has.

  Raises:
    ValueError: nothing in common.
  """
  return _table(match(run, reference))


def write(
  run: Run, reference: Reference, folder: str | os.PathLike
) -> list[pathlib.Path]:
  """Writes comparison-NAME.md and .json, each whole or not at all.

  Args:
    run: the run.
    reference: what it is compared with; NAME is its name, with a number behind
      it where another source of that name has been compared already.
    folder: where to write; made if absent.

  Returns:
    Paths of the two files.

  Raises:
    ValueError: nothing in common.
  """
  found = match(run, reference)
  title = f"# {literal(found.label)} beside {literal(reference.name)}\n\n"
  path = _free_path(pathlib.Path(folder), reference)
  return write_texts(path, title + _table(found).markdown(), _tree(found))


def write_texts(
  path: pathlib.Path, markdown: str, tree: Mapping[str, Any]
) -> list[pathlib.Path]:
  """Writes a Markdown and a JSON file, each whole or not at all.

  Args:
    path: of both, without the ending; its folder is made if absent.
    markdown: content of one.
    tree: content of the other.

  Returns:
    Paths of the two files.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  paths = [path.with_name(path.name + ending) for ending in (".md", ".json")]
  text = json.dumps(tree, indent=2, allow_nan=False) + "\n"
  for target, content in zip(paths, (markdown, text), strict=True):
    metrics.replace(target, content)
  return paths


def _free_path(folder: pathlib.Path, reference: Reference) -> pathlib.Path:
  """The first of NAME, NAME-2, … that no other reference has."""
  name = re.sub(r"[^\w.+-]+", "_", reference.name)
  for number in itertools.count(1):
    stem = f"comparison-{name}" + f"-{number}" * (number > 1)
    path = folder / f"{stem}.json"
    if not path.exists() or _source(path) == reference.source:
      return folder / stem


def _source(path: pathlib.Path) -> str | None:
  """Of the reference of a comparison; None where the file is damaged."""
  try:
    return json.loads(path.read_bytes())["reference"]["source"]
  except (ValueError, LookupError, TypeError, RecursionError):
    return None


def _table(found: Comparison) -> Table:
  header = ("measure", *SIDES, "difference", "95 % interval", "")
  rows = tuple(map(_cells, found.rows))
  return Table(header, rows, tuple(_footnotes(found)))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
  low, high, interval = row["low"], row["high"], "-"
  if low is not None:
    interval = f"{100 * low:+z.1f} to {100 * high:+z.1f}"
  return (
    label(row | {"attack": row["reference"].get("attack")}),
    *(f"{100 * row[side]['accuracy']:.2f}" for side in SIDES),
    f"{100 * row['difference']:+z.2f}",
    interval,
    "*" * row["outside"] + "a" * bool(_other_attack(row)),
  )


def _other_attack(row: Mapping[str, Any]) -> str | None:
  """The run's attack where the reference's is another one."""
  mine, other = (row[side].get("attack") for side in SIDES)
  return mine if mine != other else None


def _footnotes(found: Comparison) -> Iterator[str]:
  """How the numbers were obtained, and what else differs."""
  run, other = found.run, found.reference
  model = other.model or "a network that it does not name"
  data = other.data or "unknown data"
  yield f"run: {found.label} ({run.name}), {run.model}, {run.data}"
  yield f"reference: {other.name}, {model}, {data}; {other.source}"
  yield (
    "Accuracy in %; difference in points, with the 95 % interval for "
    f"independent samples ({METHOD}), which does not cover the choice of seed; "
    "*: zero is outside"
  )
  if attacks := set(map(_other_attack, found.rows)) - {None}:
    yield (
      f"a: the run was attacked by {', '.join(sorted(attacks))}; the weaker "
      "the attack, the higher the accuracy"
    )
  yield from _about_images(found)
  for name, mine, its in (
    ("networks", run.model, other.model),
    ("data", run.data, other.data),
  ):
    if its not in (None, mine):
      yield f"the {name} differ: {mine} in the run, {its} in the reference"
  if other.data is None:
    yield (
      "the data of the reference are unknown: a folder named cifar10, cifar100 "
      "or imagenet around the file says which"
    )
  yield from (f"(run) {note}" for note in run.notes)
  yield from (f"(reference) {note}" for note in other.notes)
  if found.only_run:
    yield f"only in the run: {_listed(found.only_run)}"
  if found.only_reference:
    yield f"only in the reference: {_listed(found.only_reference)}"


def _about_images(found: Comparison) -> Iterator[str]:
  other = found.reference
  mine, its = (
    ", ".join(map(str, sorted(side.rows.total.dropna().unique())))
    for side in (found.run, other)
  )
  if its:
    assumed = " (assumed: its source gives accuracies alone)"
    its_images = f"{its} in the reference{assumed * other.images_assumed}"
  else:
    its_images = "an unknown number in the reference, so there are no intervals"
  yield f"test images: {mine} in the run, {its_images}"
  single = other.rows[
    other.rows.total.notna() & ~other.rows.corruption.isin(MEANS)
  ]
  counts = single.accuracy * single.total
  # Accuracies with six decimals are within a hundredth of an image.
  if not other.rounding and any(abs(c - round(c)) > 0.01 for c in counts):
    yield (
      f"the reference's accuracies are no fractions of {its} images: it had "
      "another number of them, and the intervals are wrong by that"
    )
  if any(row["evaluator"] == "corruption" for row in found.rows):
    yield (
      "corruptions: means over severities; the same images recur and count "
      "once in the interval, which is rather too wide than too narrow"
    )
  if other.rounding:
    yield (
      f"the reference is rounded to {200 * other.rounding:.4g} points, which "
      "the intervals include"
    )


def _tree(found: Comparison) -> dict[str, Any]:
  """The content of comparison-NAME.json."""
  tree = {"schema": SCHEMA}
  for side in SIDES:
    tree[side] = {**vars(getattr(found, side))}
    del tree[side]["rows"]
  names = ("rows", "cells", "only_run", "only_reference")
  tree |= {"interval": METHOD} | {name: getattr(found, name) for name in names}
  return tree | {"notes": list(_footnotes(found))}
