"""Numbers as text: a measure of one run or of several seeds in a cell."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ram_jax.report import corruption_numbers as numbers
from ram_jax.report.seeds import Group
from ram_jax.runs.results import Counts

NOT_MEASURED = "-"
Measure = Callable[[Mapping[str, Any]], Counts | float | None]


def percent(
  group: Group,
  measure: Measure,
) -> str:
  """A measure in [0, 1] of a group in percent, with its interval.

  Args:
    group: the runs.
    measure: of a run's results, as `Group.estimate` takes it.

  Returns:
    Such as "65.6 (63.5-67.7)"; without parentheses where there is no interval.
  """
  return decimal(group, measure, factor=100, digits=1)


def mean_percent(
  group: Group, names: Sequence[str], error: bool = False
) -> str:
  """Mean accuracy over corruptions in percent.

  Args:
    group: the runs.
    names: of the corruptions.
    error: its complement in place of the accuracy.

  Returns:
    As `percent`, and in brackets how many of the corruptions are there, where
    some lack.
  """

  def measure(results: Mapping[str, Any]) -> float | None:
    found = numbers.mean(results, names)
    return 1 - found if error and found is not None else found

  return percent(group, measure) + lacking(group, names)


def lacking(group: Group, names: Sequence[str]) -> str:
  """Such as " [14 of 15]" where not all corruptions were measured, else ""."""
  counts = [len(numbers.measured(run.results, names)) for run in group.runs]
  least = min(filter(None, counts), default=len(names))
  return f" [{least} of {len(names)}]" if least < len(names) else ""


def decimal(
  group: Group,
  measure: Measure,
  factor: float = 1,
  digits: int = 3,
  most: float = 1.0,
) -> str:
  """A measure of a group with its interval.

  Args:
    group: the runs.
    measure: of a run's results, as `Group.estimate` takes it.
    factor: to the unit shown.
    digits: behind the point.
    most: the measure's largest possible value.

  Returns:
    Text; it says how many seeds it is of where that is not all of them.
  """
  found = group.estimate(measure, most)
  if found is None:
    return NOT_MEASURED
  ends = []
  if found.low is not None:
    low, high = factor * found.low, factor * found.high
    ends.append(f"{low:.{digits}f}-{high:.{digits}f}")
  if found.seeds < len(group.runs):
    ends.append(f"{found.seeds} of {len(group.runs)} seeds")
  # 52.85 of 1057 / 2000, which times 100 is a little less.
  value = f"{round(factor * found.value, 9):.{digits}f}"
  return value + (f" ({'; '.join(ends)})" if ends else "")


def interval_note(groups: Sequence[Group]) -> str:
  """Which interval stands in parentheses, in a sentence.

  Args:
    groups: what is shown.

  Returns:
    Said of rows of one run, of several seeds, or of both.
  """
  wilson = "the 95 % Wilson interval over test images in parentheses"
  student = "with Student's 95 % interval over them in parentheses"
  several = [len(group.runs) > 1 for group in groups]
  if not any(several):
    return (
      f"Accuracy in %, with {wilson}; it does not cover the choice of seed."
    )
  if all(several):
    return f"Accuracy in %: mean over seeds, {student}."
  return (
    f"Accuracy in %. Rows of several seeds: their mean, {student}. The others: "
    f"{wilson}, which does not cover the choice of seed."
  )
