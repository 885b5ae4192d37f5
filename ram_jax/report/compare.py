"""Compares a run with a reference, in a table and in files."""

import dataclasses
import json
import os
import pathlib
import re
import zlib
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
  """A run compared with a reference.

  Attributes:
    label: display name of the run.
    run: the run.
    reference: the reference.
    rows: clean, adversarial, the mean over corruptions, and the mean over
      severities of each corruption, if both have them: settings; `run` and
      `reference`, each with accuracy, attack and total; difference, low, high,
      outside.
    cells: the same for each corruption and severity that both have.
    only_run: settings, accuracy and total of rows that only the run has.
    only_reference: the same for rows that only the reference has.
  """

  label: str
  run: Reference
  reference: Reference
  rows: list[dict[str, Any]]
  cells: list[dict[str, Any]]
  only_run: list[dict[str, Any]]
  only_reference: list[dict[str, Any]]


def match(run: Run, reference: Reference) -> Comparison:
  """Matches rows with the same norm, epsilon, corruption and severity.

  Args:
    run: the run.
    reference: the reference.

  Returns:
    The matched rows, including those with different attacks.

  Raises:
    ValueError: if they have no metric in common.
  """
  mine = references.of_run(run)
  rows = pd.concat([mine.rows, references.frame(_means(mine.rows))])
  names = [f"_{side}" for side in SIDES]
  pairs = rows.merge(reference.rows, on=SETTINGS, suffixes=names)
  cells = pairs[pairs.severity.notna()]
  parts = cells.groupby("corruption", sort=False)
  averages = [_average(part) for _, part in parts]
  if len(averages) > 1:
    name = f"mean of {len(averages)} corruptions"
    averages.insert(0, _average(cells) | {"corruption": name})
  others, means = pairs[pairs.corruption.isna()], pairs.corruption.isin(MEANS)
  clean = others.evaluator == "clean"
  found = _records(others[clean]) + _records(others[~clean])
  found += averages + _records(pairs[means])
  if not found:
    raise ValueError(
      f"run {mine.name} and reference {reference.name} have no metric in "
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
  """Means as given by references, if the run has all of their parts."""
  for mean, names in MEANS.items():
    cells = rows[rows.severity.notna() & rows.corruption.isin(names)]
    if len(cells) == len(names) * len(SEVERITIES):
      numbers = {"accuracy": cells.accuracy.mean(), "total": cells.total.min()}
      yield {"evaluator": "corruption", "corruption": mean} | numbers


def _average(cells: pd.DataFrame) -> dict[str, Any]:
  """Mean of accuracies, with the number of images as the number of trials.

  The variance of a mean of correlated proportions is at most that of a single
  proportion over as many images, so counting every image once is conservative.
  """
  pair = cells.iloc[0].to_dict() | {"severity": None}
  for side in SIDES:
    totals = cells[f"total_{side}"]
    pair[f"total_{side}"] = None if totals.isna().any() else totals.min()
    pair[f"accuracy_{side}"] = cells[f"accuracy_{side}"].mean()
  return pair


def _row(pair: Mapping[str, Any], rounding: float) -> dict[str, Any]:
  """Both sides of a matched row, and their difference."""
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
    # The true value is within half a unit of the last digit.
    row |= {"low": low - rounding, "high": high + rounding}
    row["outside"] = not row["low"] <= 0 <= row["high"]
  return row


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
  return rows.to_dict("records")


def _given(row: Mapping[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in row.items() if value is not None}


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
  """What was evaluated, as text; with the severities if some are missing."""
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


def table(found: Comparison) -> Table:
  """Shows the metrics that a run and a reference share, in percent.

  Args:
    found: the comparison.

  Returns:
    One row per metric; footnotes say how the numbers were obtained, what else
    differs, and what only one side has.
  """
  header = ("metric", *SIDES, "difference", "95 % interval", "")
  rows = tuple(map(_cells, found.rows))
  return Table(header, rows, tuple(_footnotes(found)))


def write(found: Comparison, folder: str | os.PathLike) -> list[pathlib.Path]:
  """Writes comparison-NAME.md and .json, each atomically.

  Args:
    found: the comparison. NAME is the name of the reference; for a file or a
      folder, a checksum of its path is appended, because several of them may
      have the same name.
    folder: where to write; created if it does not exist.

  Returns:
    Paths of the two files.
  """
  folder, other = pathlib.Path(folder), found.reference
  names = literal(found.label), literal(other.name)
  title = f"# {' compared with '.join(names)}\n\n"
  name = "comparison-" + re.sub(r"[^\w.+-]+", "_", other.name)
  # The source of a file or a folder begins with its absolute path.
  if os.path.isabs(other.source):
    source = other.source.encode(errors="surrogatepass")
    name += f"-{zlib.crc32(source):08x}"
  folder.mkdir(parents=True, exist_ok=True)
  text = json.dumps(_tree(found), indent=2, allow_nan=False) + "\n"
  contents = {".md": title + table(found).markdown(), ".json": text}
  paths = [folder / (name + ending) for ending in contents]
  for path, content in zip(paths, contents.values(), strict=True):
    metrics.replace(path, content)
  return paths


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
  low, high, interval = row["low"], row["high"], "-"
  if low is not None:
    interval = f"{100 * low:+z.1f} to {100 * high:+z.1f}"
  return (
    label(row | {"attack": " / ".join(_attacks(row))}),
    *(f"{100 * row[side]['accuracy']:.2f}" for side in SIDES),
    f"{100 * row['difference']:+z.2f}",
    interval,
    "*" * row["outside"] + "a" * (len(_attacks(row)) > 1),
  )


def _attacks(row: Mapping[str, Any]) -> tuple[str, ...]:
  """The attack, or those of both sides if they differ."""
  return tuple({row[s]["attack"]: 0 for s in SIDES if "attack" in row[s]})


def _footnotes(found: Comparison) -> Iterator[str]:
  """How the numbers were obtained, and what else differs."""
  run, other = found.run, found.reference
  model = other.model or "unknown network"
  data = other.data or "unknown data"
  yield f"run: {found.label} ({run.name}), {run.model}, {run.data}"
  yield f"reference: {other.name}, {model}, {data}; {other.source}"
  yield (
    "Accuracy in %; difference in percentage points, with the 95 % interval "
    f"for independent samples ({METHOD}), which does not cover variation "
    "between seeds; *: zero is outside the interval"
  )
  if any(len(_attacks(row)) > 1 for row in found.rows):
    yield (
      "a: different attacks (run / reference); a weaker attack gives a higher "
      "accuracy"
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
      "the data set of the reference is unknown: put the file into a folder "
      "named cifar10, cifar100 or imagenet to specify it"
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
    assumed = " (assumed, because its source only gives accuracies)"
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
      f"the reference's accuracies are not multiples of 1/{its}: it used "
      "a different number of images, so the intervals are not exact"
    )
  if any(row["evaluator"] == "corruption" for row in found.rows):
    yield (
      "corruptions: means over severities; each image counts once in the "
      "interval, which is therefore conservative"
    )
  if other.rounding:
    yield (
      "the reference's accuracies are rounded to "
      f"{200 * other.rounding:.4g} percentage points, which the intervals take "
      "into account"
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
