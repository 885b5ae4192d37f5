"""95 % intervals: of a proportion over images, of a mean over seeds."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

import scipy.special

# 97.5 % quantile of the standard normal distribution.
Z_95 = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A number and how sure it is.

  Attributes:
    value: the number; over several seeds their mean.
    low: lower end of its 95 % interval; None where there is none.
    high: upper end.
    seeds: how many seeds went into it.
  """

  value: float
  low: float | None = None
  high: float | None = None
  seeds: int = 1


def wilson(correct: float, total: int) -> tuple[float, float]:
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


def student(values: Sequence[float], most: float = math.inf) -> Estimate:
  """Mean over seeds with Student's 95 % interval.

  Args:
    values: one number of at least 0 per seed, two or more.
    most: the largest value possible; the interval ends there and at 0.

  Returns:
    The mean, and mean -+ t s / sqrt(n), s with n - 1 in the denominator.

  Raises:
    ValueError: fewer than two values.
  """
  count = len(values)
  if count < 2:
    raise ValueError(
      f"{count} seeds have no spread: give the values of two or more"
    )
  mean = statistics.fmean(values)
  quantile = float(scipy.special.stdtrit(count - 1, 0.975))
  half = quantile * statistics.stdev(values) / math.sqrt(count)
  return Estimate(mean, max(0.0, mean - half), min(most, mean + half), count)
