"""Tables of results: what was measured, how sure it is, how it was got."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ram_jax.report import corruption_numbers as numbers
from ram_jax.report import seeds
from ram_jax.report.cells import interval_note, mean_percent, percent
from ram_jax.report.seeds import Group
from ram_jax.report.table import Table
from ram_jax.runs import results as runs_lib
from ram_jax.runs.results import Counts, Run

# An epsilon given as 8 / 255 or as 0.031373 is the same epsilon.
EPSILON_TOLERANCE = 1e-6


def summary(runs: Sequence[Run]) -> Table:
  """One row per configuration: what it is and every accuracy, in percent.

  Args:
    runs: the runs, in the order of the rows; those that differ in their seeds
      alone are one row.

  Returns:
    The table; its footnotes say how each number was got.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = seeds.groups(runs)
  columns = _adversarial_columns(runs)
  header = ("run", "model", "data", "clean")
  header += tuple(f"{norm_name(norm)} eps {e:.4g}" for norm, e in columns)
  corrupted = [r.results for r in runs if "corruption" in r.results]
  whole = all(numbers.is_whole(r, numbers.BENCHMARK) for r in corrupted)
  if corrupted:
    header += ("15 corruptions" if whole else "corruption mean",)
  rows = []
  for group in groups:
    about = group.runs[0].results["run"]
    cells = [group.label, about["model"], about["data_label"]]
    measures = [runs_lib.clean]
    measures += [functools.partial(_adversarial_counts, at=c) for c in columns]
    cells += [percent(group, measure) for measure in measures]
    if corrupted:
      cells.append(_corruption_mean(group))
    rows.append(tuple(cells))
  return Table(header, tuple(rows), _footnotes(groups))


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
  runs_lib.check_floors(required)
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


def profile(found: dict[str, Any]) -> Table:
  """Shows where the time of a training goes.

  Args:
    found: what profile.json holds.

  Returns:
    A row for each part, the largest first but for the last two.
  """
  parts, seconds, steps = found["parts"], found["seconds"], found["steps"]
  named = sorted(parts.keys() - {"other", "host"}, key=parts.get, reverse=True)
  rows = [
    (name, f"{1000 * parts[name] / steps:.2f}", f"{parts[name] / seconds:.1%}")
    for name in (*named, "other", "host")
  ]
  rows.append(("all", f"{1000 * seconds / steps:.2f}", "100.0%"))
  device = found["device"]
  notes = (
    f"{steps} steps in {found['dispatches']} dispatches on "
    f"{device['count']} x {device['kind']}",
    f"attributed to a part: {found['attributed']:.1%} of the devices' time",
    "host: the devices wait",
    f"without tracing a step takes "
    f"{1000 * found['untraced_seconds'] / steps:.2f} ms",
  )
  return Table(("part", "ms per step", "share"), tuple(rows), notes)


def norm_name(norm: str) -> str:
  """How a norm is written for people: "L2" for "l2", "Linf" for "linf"."""
  return norm[:1].upper() + norm[1:]


def _measured(
  results: Mapping[str, Any], row: tuple[str, float | None, str, float]
) -> float | None:
  measure, epsilon, _, _ = row
  if measure == "corruption":
    return numbers.headline(results)
  counts = runs_lib.clean(results)
  if measure == "adversarial":
    counts = _nearest(runs_lib.adversarial(results), epsilon)
  return counts and counts[0] / counts[1]


def _nearest(by_epsilon: dict[float, Counts], epsilon: float) -> Counts | None:
  for measured, counts in by_epsilon.items():
    if abs(measured - epsilon) <= EPSILON_TOLERANCE:
      return counts
  return None


def _adversarial_columns(runs: Sequence[Run]) -> list[tuple[str, float]]:
  """(norm, epsilon) of the columns; epsilon 0 only where it is not clean."""
  columns = set()
  for run in runs:
    for epsilon, counts in runs_lib.adversarial(run.results).items():
      if epsilon > 0 or counts != runs_lib.clean(run.results):
        columns.add((run.results["adversarial"]["attack"]["norm"], epsilon))
  return sorted(columns)


def _adversarial_counts(
  results: Mapping[str, Any], at: tuple[str, float]
) -> Counts | None:
  counts = runs_lib.adversarial(results)
  if counts and results["adversarial"]["attack"]["norm"] == at[0]:
    return _nearest(counts, at[1])
  return None


def _corruption_mean(group: Group) -> str:
  if any(
    numbers.measured(run.results, numbers.BENCHMARK) for run in group.runs
  ):
    return mean_percent(group, numbers.BENCHMARK)
  return percent(group, numbers.headline)


def _footnotes(groups: Sequence[Group]) -> tuple[str, ...]:
  """How the numbers were got; a note that is not everyone's names its runs."""
  owners = {}
  for group in groups:
    for run in group.runs:
      for note in (*_measurements(run.results), *run.results.get("notes", [])):
        owners.setdefault(note, {})[group.label] = None
  everyone = [n for n, who in owners.items() if len(who) == len(groups)]
  some = [
    f"({', '.join(who)}) {note}"
    for note, who in owners.items()
    if len(who) < len(groups)
  ]
  return (interval_note(groups), *everyone, *some)


def _measurements(results: Mapping[str, Any]) -> list[str]:
  """What the numbers were measured on and with."""
  notes = []
  if counts := runs_lib.clean(results):
    notes.append(f"clean: {counts[1]} test images")
  if by_epsilon := runs_lib.adversarial(results):
    attack = results["adversarial"]["attack"]
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
  return notes + numbers.descriptions(results)
