"""A run beside a reference: the table, and its files."""

import dataclasses
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from ram_jax.report import matching
from ram_jax.report.cells import NOT_MEASURED
from ram_jax.report.entries import Entry, Reference
from ram_jax.report.matching import Comparison, Row
from ram_jax.report.table import Table, literal
from ram_jax.runs import results as runs

SCHEMA = 1
METHOD = "Newcombe 1998, method 10"
# What stands behind a row of the table.
OUTSIDE, OTHER_ATTACK = "*", "a"


def table(run: runs.Run, theirs: Reference) -> Table:
  """Shows what a run and a reference have in common, in percent.

  Args:
    run: the run.
    theirs: what it is compared with.

  Returns:
    One row per measure; footnotes say how each side was got, what differs
    beside the numbers, and what only one side has.

  Raises:
    ValueError: nothing in common.
  """
  return _table(matching.match(run, theirs))


def write(
  run: runs.Run, theirs: Reference, folder: str | os.PathLike
) -> list[pathlib.Path]:
  """Writes comparison-NAME.md and .json, whole or not at all.

  Args:
    run: the run.
    theirs: what it is compared with; NAME is its name, with a number behind it
      where another source of that name has been compared already.
    folder: where to write; made if absent.

  Returns:
    Paths of the two files.

  Raises:
    ValueError: nothing in common.
  """
  found = matching.match(run, theirs)
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  name = _free_name(re.sub(r"[^\w.+-]+", "_", theirs.name), theirs, folder)
  title = f"# {literal(found.label)} beside {literal(theirs.name)}\n\n"
  texts = {
    ".md": title + _table(found).markdown(),
    ".json": json.dumps(_tree(found), indent=2, allow_nan=False) + "\n",
  }
  paths = []
  for ending, text in texts.items():
    path = folder / f"{name}{ending}"
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    paths.append(part.replace(path))
  return paths


def _free_name(name: str, theirs: Reference, folder: pathlib.Path) -> str:
  """The first of NAME, NAME-2, … that no other reference has."""
  for number in itertools.count(1):
    stem = f"comparison-{name}" + f"-{number}" * (number > 1)
    path = folder / f"{stem}.json"
    if not path.exists() or _source(path) == theirs.source:
      return stem


def _source(path: pathlib.Path) -> str | None:
  """Of the reference of a comparison; None where the file is damaged."""
  try:
    return json.loads(path.read_bytes())["theirs"]["source"]
  except (ValueError, LookupError, TypeError, RecursionError):
    return None


def _table(found: Comparison) -> Table:
  header = ("measure", "ours", "theirs", "difference", "95 % interval", "")
  rows = tuple(_cells(row) for row in found.rows)
  return Table(header, rows, tuple(_footnotes(found)))


def _cells(row: Row) -> tuple[str, ...]:
  marks = [OUTSIDE] * row.is_outside + [OTHER_ATTACK] * row.has_other_attack
  return (
    _label(row.theirs),
    f"{100 * row.ours.accuracy:.2f}",
    f"{100 * row.theirs.accuracy:.2f}",
    f"{100 * row.difference:+z.2f}",
    NOT_MEASURED
    if row.low is None
    else f"{100 * row.low:+z.1f} to {100 * row.high:+z.1f}",
    "".join(marks),
  )


def _label(entry: Entry) -> str:
  if entry.measure == "corruption" and len(entry.corruptions) == 1:
    return entry.corruptions[0]
  return entry.label


def _footnotes(found: Comparison) -> Iterator[str]:
  """How the numbers were got, and what else differs."""
  ours, theirs = found.ours, found.theirs
  yield f"ours: {found.label} ({ours.name}), {ours.model}, {ours.data}"
  model = theirs.model or "a network that it does not name"
  data = theirs.data or "unknown data"
  yield f"theirs: {theirs.name}, {model}, {data}; {theirs.source}"
  yield (
    "Accuracy in %; difference in points, with the 95 % interval for "
    f"independent samples ({METHOD}), which does not cover the choice of seed; "
    f"{OUTSIDE}: zero lies outside"
  )
  if others := {row.ours.attack for row in found.rows if row.has_other_attack}:
    yield (
      f"{OTHER_ATTACK}: ours was attacked by {', '.join(sorted(others))}; "
      "the weaker the attack, the higher the accuracy"
    )
  yield from _about_images(found)
  for what, mine, other in (
    ("networks", ours.model, theirs.model),
    ("data", ours.data, theirs.data),
  ):
    if other not in (None, mine):
      yield f"the {what} differ: {mine} in ours, {other} in theirs"
  if theirs.data is None:
    yield (
      "the data of theirs are unknown: a folder named cifar10, cifar100 or "
      "imagenet around the file says which"
    )
  yield from (f"(ours) {note}" for note in ours.notes)
  yield from (f"(theirs) {note}" for note in theirs.notes)
  if found.only_ours:
    yield f"only in ours: {matching.listed(found.only_ours)}"
  if found.only_theirs:
    yield f"only in theirs: {matching.listed(found.only_theirs)}"


def _about_images(found: Comparison) -> Iterator[str]:
  theirs = found.theirs
  mine, other = _totals(found.ours), _totals(theirs)
  if other:
    assumed = (
      " (assumed: their source gives accuracies alone)" * theirs.images_assumed
    )
    yield f"test images: {mine} in ours, {other} in theirs{assumed}"
  else:
    yield (
      f"test images: {mine} in ours, an unknown number in theirs, so there are "
      "no intervals"
    )
  counts = [
    entry.accuracy * entry.total
    for entry in theirs.entries
    if entry.total and not entry.is_mean
  ]
  # Accuracies with six decimals are within a hundredth of an image.
  if not theirs.rounding and any(abs(c - round(c)) > 0.01 for c in counts):
    yield (
      f"their accuracies are no fractions of {other} images: they had another "
      "number of them, and the intervals are wrong by that"
    )
  if any(row.theirs.measure == "corruption" for row in found.rows):
    yield (
      "corruptions: means over severities; the same images recur and count "
      "once in the interval, which is rather too wide than too narrow"
    )
  if theirs.rounding:
    yield (
      f"theirs is rounded to {200 * theirs.rounding:.4g} points, which "
      "the intervals include"
    )


def _totals(reference: Reference) -> str:
  totals = sorted({e.total for e in reference.entries} - {None})
  return ", ".join(map(str, totals))


def _tree(found: Comparison) -> dict[str, Any]:
  """What comparison-NAME.json holds."""
  sides = {"ours": found.ours, "theirs": found.theirs}
  tree = {"schema": SCHEMA}
  for side, reference in sides.items():
    tree[side] = dataclasses.asdict(reference)
    del tree[side]["entries"]
  return tree | {
    "interval": METHOD,
    "rows": [_row_tree(row) for row in found.rows],
    "cells": [_row_tree(row) for row in found.cells],
    "only_ours": [_entry_tree(entry) for entry in found.only_ours],
    "only_theirs": [_entry_tree(entry) for entry in found.only_theirs],
    "notes": list(_footnotes(found)),
  }


def _row_tree(row: Row) -> dict[str, Any]:
  return {
    "ours": _entry_tree(row.ours),
    "theirs": _entry_tree(row.theirs),
    "difference": row.difference,
    "low": row.low,
    "high": row.high,
    "outside": row.is_outside,
  }


def _entry_tree(entry: Entry) -> dict[str, Any]:
  """An entry without the fields that are not of its measure."""
  fields = dataclasses.asdict(entry).items()
  return {name: value for name, value in fields if value not in (None, ())}
