"""Tables of natural corruptions: means, each corruption, calibration."""

import functools
from collections.abc import Sequence

from ram_jax.report import corruption_numbers as numbers
from ram_jax.report import seeds
from ram_jax.report.cells import (
  decimal,
  interval_note,
  lacking,
  mean_percent,
  percent,
)
from ram_jax.report.seeds import Group
from ram_jax.report.table import Table
from ram_jax.runs.results import Run

MEAN_ERROR = (
  "mCE: mean corruption error, 100 minus the mean accuracy over the "
  "benchmark's 15, not normalised"
)


def means(runs: Sequence[Run], baseline: Run | None = None) -> Table:
  """Mean accuracies over groups of corruptions, and mean errors, in percent.

  Args:
    runs: the runs, in the order of the rows.
    baseline: one of them, to whose errors the others' are put in relation.

  Returns:
    One row per configuration. Where some corruptions of a mean lack, the cell
    says how many are there.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = seeds.groups(runs)
  sets = {
    "15 benchmark": numbers.BENCHMARK,
    "4 extra": numbers.EXTRA,
    "all 19": numbers.NAMES,
    **numbers.CATEGORIES,
  }
  header = ("run", *sets, "mCE")
  notes = [
    "mean accuracy in %, over corruptions and severities alike; of several "
    "seeds with Student's 95 % interval over them in parentheses",
    "4 extra: speckle noise, gaussian blur, spatter, saturate; the categories "
    "have one of them each",
    MEAN_ERROR,
  ]
  rows = [
    [group.label, *(mean_percent(group, names) for names in sets.values())]
    + [mean_percent(group, numbers.BENCHMARK, error=True)]
    for group in groups
  ]
  column = seeds.column(groups, baseline)
  if column is not None:
    base = groups[column]
    header += ("relative mCE",)
    notes.append(
      f"relative mCE: for each of the 15 the sum of errors over severities, in "
      f"% of that of {base.label}, and the mean of these"
    )
    for row, group in zip(rows, groups, strict=True):
      row.append(_relative(group, base))
  return Table(header, tuple(map(tuple, rows)), tuple(notes))


def by_corruption(runs: Sequence[Run]) -> Table:
  """Mean accuracy over severities for each corruption, in percent.

  Args:
    runs: the runs, in the order of the columns.

  Returns:
    One row per corruption that some run has.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = seeds.groups(runs)
  rows = []
  for category, names in numbers.categories(runs).items():
    for name in names:
      measure = functools.partial(numbers.mean, names=(name,))
      cells = [percent(group, measure) for group in groups]
      rows.append((name.replace("_", " "), category, *cells))
  labels = [group.label for group in groups]
  return Table(("corruption", "category", *labels), tuple(rows))


def by_severity(runs: Sequence[Run]) -> Table:
  """Accuracy for each corruption and severity, in percent.

  Args:
    runs: the runs, in the order of the columns.

  Returns:
    One row per corruption and severity that some run has.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = seeds.groups(runs)
  rows = []
  for names in numbers.categories(runs).values():
    for name in names:
      found = {s for run in runs for s in numbers.cells(run.results, name)}
      for severity in sorted(found):
        cells = [
          percent(
            group, lambda r, n=name, s=severity: numbers.cells(r, n).get(s)
          )
          for group in groups
        ]
        rows.append((name.replace("_", " "), str(severity), *cells))
  labels = [group.label for group in groups]
  note = interval_note(groups)
  return Table(("corruption", "severity", *labels), tuple(rows), (note,))


def calibration(runs: Sequence[Run]) -> Table | None:
  """How far confidences are from accuracies, clean and corrupted.

  Args:
    runs: the runs, in the order of the rows.

  Returns:
    One row per configuration; None where no run has the measures.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = seeds.groups(runs)
  header, columns = ["run"], []
  for part, measure in (
    ("clean", numbers.clean_calibration),
    ("corrupted", numbers.corrupted_calibration),
  ):
    for key, name, most in numbers.CALIBRATION:
      bound = functools.partial(measure, key=key)
      if any(bound(run.results) is not None for run in runs):
        header.append(f"{name} {part}")
        columns.append((bound, most))
  if not columns:
    return None
  rows = tuple(
    (group.label, *(decimal(group, x, most=most) for x, most in columns))
    for group in groups
  )
  notes = (
    "RMS: root mean square calibration error in adaptive bins of 100; ECE: "
    "expected calibration error; both in [0, 1]. NLL: negative log likelihood, "
    "nats. Brier: squared error of the probabilities, in [0, 2]. Smaller is "
    "better in all",
    "corrupted: mean over corruptions and severities, of those of the "
    "benchmark's 15 that were measured",
  )
  return Table(tuple(header), rows, notes)


def _relative(group: Group, base: Group) -> str:
  """Error relative to a group's mean error, in percent."""
  baseline = [run.results for run in base.runs if numbers.rows(run.results)]
  measure = functools.partial(
    numbers.relative_error, baseline=baseline, names=numbers.BENCHMARK
  )
  found = decimal(group, measure, factor=100, digits=1, most=float("inf"))
  return found + lacking(group, numbers.BENCHMARK)
