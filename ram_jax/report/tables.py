"""Tables of results: what was measured, how sure it is, how it was got."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ram_jax.report import runs as runs_lib
from ram_jax.report.rendering import Table
from ram_jax.report.runs import Counts, Run

# 97.5 % quantile of the standard normal distribution.
Z_95 = 1.959963984540054
NOT_MEASURED = "-"
# An epsilon given as 8 / 255 or as 0.031373 is the same epsilon.
EPSILON_TOLERANCE = 1e-6


def wilson(correct: int, total: int) -> tuple[float, float]:
  """95 % interval of a proportion (Wilson 1927), good near 0 and 1 too.

  Args:
    correct: successes, 0 to total.
    total: trials, at least 1.

  Returns:
    (low, high) in [0, 1].

  Raises:
    ValueError: counts that are not 0 <= correct <= total > 0.
  """
  if not (0 <= correct <= total and total > 0):
    raise ValueError(
      f"{correct} of {total} is no proportion: counts must satisfy "
      "0 <= correct <= total and total > 0"
    )
  p, square = correct / total, Z_95**2 / total
  centre = (p + square / 2) / (1 + square)
  half = math.sqrt(p * (1 - p) * square + square**2 / 4) / (1 + square)
  # Rounding must not leave the proportion itself, 0 or 1, outside.
  low, high = min(p, centre - half), max(p, centre + half)
  return max(0.0, low), min(1.0, high)


def summary(runs: Sequence[Run]) -> Table:
  """One row per run: what it is and every accuracy, in percent.

  Args:
    runs: the runs, in the order of the rows.

  Returns:
    The table; its footnotes say how each number was got.

  Raises:
    ValueError: no run, or a run given twice.
  """
  if not runs:
    raise ValueError("no run to summarise: name at least one run folder")
  columns = _adversarial_columns(runs)
  corrupted = any("corruption" in run.results for run in runs)
  header = ("run", "model", "data", "clean")
  header += tuple(f"{norm_name(norm)} eps {e:.4g}" for norm, e in columns)
  header += ("corruption mean",) * corrupted
  labels = runs_lib.distinct_labels(runs)
  rows = []
  for label, run in zip(labels, runs, strict=True):
    about = run.results["run"]
    cells = [label, about["model"], about["data_label"]]
    cells.append(_percent(runs_lib.clean(run.results)))
    cells += [_percent(_adversarial_counts(run, *c)) for c in columns]
    mean = runs_lib.corruption_mean(run.results)
    cells += [NOT_MEASURED if mean is None else f"{100 * mean:.1f}"] * corrupted
    rows.append(tuple(cells))
  return Table(header, tuple(rows), _footnotes(runs, labels))


@dataclasses.dataclass(frozen=True)
class Check:
  """A measured accuracy beside the required one, all in [0, 1].

  Attributes:
    measure: "clean", "adversarial" or "corruption" (the mean).
    epsilon: size of the attack for "adversarial", else None.
    bound: "at least" or "at most".
    required: the bound's value.
    measured: the run's value; None where it was not measured.
  """

  measure: str
  epsilon: float | None
  bound: str
  required: float
  measured: float | None

  @property
  def met(self) -> bool:
    """Whether the value is on the right side; never if not measured."""
    if self.measured is None:
      return False
    if self.bound == "at least":
      return self.measured >= self.required
    return self.measured <= self.required


def floors(
  results: Mapping[str, Any],
  required: Sequence[tuple[str, float | None, str, float]],
) -> tuple[Check, ...]:
  """Puts measured values beside required ones.

  Args:
    results: a run's results.
    required: (measure, epsilon, bound, value) each, for example
      ("clean", None, "at least", 0.92) or ("adversarial", 8.0, "at most",
      0.02); value in [0, 1].

  Returns:
    One check per requirement, in order.

  Raises:
    ValueError: a requirement that is not of this form.
  """
  measured = [_measured(results, row) for row in required]
  return tuple(
    Check(*row, measured=value)
    for row, value in zip(required, measured, strict=True)
  )


def floors_table(checks: Sequence[Check]) -> Table:
  """Shows checks, in percent.

  Args:
    checks: from `floors`.

  Returns:
    Rows of measure, required value, measured value and "met" or "NOT MET".
  """
  rows = []
  for check in checks:
    name = {"corruption": "corruption mean"}.get(check.measure, check.measure)
    if check.epsilon is not None:
      name += f", eps {check.epsilon:.4g}"
    measured = "not measured"
    if check.measured is not None:
      measured = f"{100 * check.measured:.2f}"
    required = f"{check.bound} {100 * check.required:.2f}"
    rows.append((name, required, measured, "met" if check.met else "NOT MET"))
  return Table(("accuracy (%)", "required", "measured", ""), tuple(rows))


def norm_name(norm: str) -> str:
  """How a norm is written for people: "L2" for "l2", "Linf" for "linf"."""
  return norm[:1].upper() + norm[1:]


def _measured(
  results: Mapping[str, Any], row: tuple[str, float | None, str, float]
) -> float | None:
  if not _is_requirement(row):
    raise ValueError(
      f"requirement {row!r} is not (measure, epsilon, bound, value): measure "
      "clean, adversarial or corruption; epsilon a number for adversarial, "
      "else None; bound 'at least' or 'at most'; value from 0 to 1"
    )
  measure, epsilon, _, _ = row
  if measure == "corruption":
    return runs_lib.corruption_mean(results)
  counts = runs_lib.clean(results)
  if measure == "adversarial":
    counts = _nearest(runs_lib.adversarial(results), epsilon)
  return counts and counts[0] / counts[1]


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


def _nearest(by_epsilon: dict[float, Counts], epsilon: float) -> Counts | None:
  for measured, counts in by_epsilon.items():
    if abs(measured - epsilon) <= EPSILON_TOLERANCE:
      return counts
  return None


def _percent(counts: Counts | None) -> str:
  if counts is None:
    return NOT_MEASURED
  low, high = wilson(*counts)
  value = 100 * counts[0] / counts[1]
  return f"{value:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _adversarial_columns(runs: Sequence[Run]) -> list[tuple[str, float]]:
  """(norm, epsilon) of the columns; epsilon 0 only where it is not clean."""
  columns = set()
  for run in runs:
    for epsilon, counts in runs_lib.adversarial(run.results).items():
      if epsilon > 0 or counts != runs_lib.clean(run.results):
        columns.add((run.results["adversarial"]["attack"]["norm"], epsilon))
  return sorted(columns)


def _adversarial_counts(run: Run, norm: str, epsilon: float) -> Counts | None:
  counts = runs_lib.adversarial(run.results)
  if counts and run.results["adversarial"]["attack"]["norm"] == norm:
    return _nearest(counts, epsilon)
  return None


def _footnotes(runs: Sequence[Run], labels: Sequence[str]) -> tuple[str, ...]:
  """How the numbers were got; a note that is not everyone's names its runs."""
  owners = {}
  for run, label in zip(runs, labels, strict=True):
    for note in (*_measurements(run), *run.results.get("notes", [])):
      owners.setdefault(note, []).append(label)
  everyone = [n for n, who in owners.items() if len(who) == len(runs)]
  some = [
    f"({', '.join(who)}) {note}"
    for note, who in owners.items()
    if len(who) < len(runs)
  ]
  return (
    "Accuracy in %, with the 95 % Wilson interval over test images in "
    "parentheses; it does not cover the choice of seed.",
    *everyone,
    *some,
  )


def _measurements(run: Run) -> list[str]:
  """What the run's numbers were measured on and with."""
  notes = []
  if counts := runs_lib.clean(run.results):
    notes.append(f"clean: {counts[1]} test images")
  if by_epsilon := runs_lib.adversarial(run.results):
    attack = run.results["adversarial"]["attack"]
    totals = sorted({total for _, total in by_epsilon.values()})
    details = "; ".join(
      f"{name.replace('_', ' ')} {value}"
      for name, value in attack.items()
      if name not in ("name", "norm")
    )
    notes.append(
      f"eps: {norm_name(attack['norm'])} norm of the perturbation of pixels in "
      f"[0, 1], found by {attack['name']} ({details}) on "
      f"{', '.join(map(str, totals))} test images"
    )
  if "corruption" in run.results:
    rows = run.results["corruption"]["by_corruption"]
    names = {row["corruption"] for row in rows}
    levels = sorted({row["severity"] for row in rows})
    notes.append(
      f"corruption mean: {run.results['corruption']['label']}, "
      f"{len(names)} corruptions, severities {', '.join(map(str, levels))}; "
      "no interval, as the same images recur in each"
    )
  return notes
