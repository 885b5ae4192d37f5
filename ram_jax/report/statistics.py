"""95 % intervals and tests for accuracies and their differences.

Two runs on the same test images are compared image by image: some images are
hard for both, and only images that exactly one of them classifies correctly
distinguish the runs. In a mean over corruptions, severities or
epsilons, each image occurs in every row, and its outcomes are not independent.
Treating them as independent would give 95 times as many samples for 19
corruptions at 5 severities, and intervals up to ten times too narrow. Therefore
the differences of each image are summed over the rows first, and the samples
are the images.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.special

# 97.5 % quantile of the standard normal distribution.
Z_95 = 1.959963984540054
LEVEL = 0.05  # Differences with smaller p-values are called significant.
# Smaller p-values would be inaccurate, because of rounding errors in the
# Fourier transform.
P_FLOOR = 1e-9
Correct = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A number or a difference, with its uncertainty.

  Attributes:
    value: the number; for several seeds, the mean over them.
    low: lower end of the 95 % interval; None if there is none.
    high: upper end.
    seeds: number of seeds.
    p: for a difference: two-sided p-value under the null hypothesis of no
      difference; None if it was not tested.
  """

  value: float
  low: float | None = None
  high: float | None = None
  seeds: int = 1
  p: float | None = None


def wilson(correct: float, total: int) -> tuple[float, float]:
  """95 % interval of a proportion (Wilson 1927), also valid near 0 and 1.

  Args:
    correct: successes, 0 to total.
    total: trials, at least 1.

  Returns:
    (low, high) in [0, 1].
  """
  p, square = correct / total, Z_95**2 / total
  center = (p + square / 2) / (1 + square)
  half = math.sqrt(p * (1 - p) * square + square**2 / 4) / (1 + square)
  # Rounding must not exclude a proportion of 0 or 1.
  low, high = min(p, center - half), max(p, center + half)
  return max(0.0, low), min(1.0, high)


def t_test(*samples: Sequence[float]) -> Estimate:
  """Mean of one sample (Student), or difference of the means of two (Welch).

  Args:
    *samples: one or two; two samples must be independent (Welch, Biometrika
      34, 1947).

  Returns:
    The estimate with its 95 % interval and p-value, and the size of the
    smaller sample as `seeds`. A sample of one number gives neither interval
    nor p-value; samples without variance give no interval and a p-value of 1.
  """
  value = statistics.fmean(samples[0]) - sum(map(statistics.fmean, samples[1:]))
  counts = list(map(len, samples))
  if min(counts) < 2:
    return Estimate(value)
  squares = [
    statistics.variance(x) / n for x, n in zip(samples, counts, strict=True)
  ]
  error = math.sqrt(sum(squares))
  if error < 1e-12:  # identical accuracies on few images prove nothing
    return Estimate(value, None, None, min(counts), 1.0)
  parts = (x**2 / (n - 1) for x, n in zip(squares, counts, strict=True))
  freedom = sum(squares) ** 2 / sum(parts)
  half = float(scipy.special.stdtrit(freedom, 0.975)) * error
  p = 2 * float(scipy.special.stdtr(freedom, -abs(value) / error))
  return Estimate(value, value - half, value + half, min(counts), p)


def over_seeds(
  values: Sequence[float], most: float = math.inf
) -> Estimate | None:
  """Mean over seeds with Student's 95 % interval.

  Args:
    values: a number in [0, most] per seed.
    most: largest possible value.

  Returns:
    The mean, and the interval, clipped to [0, most]; no interval for a single
    seed. None if there are no values.
  """
  if not values:
    return None
  found = t_test(values)
  if found.low is None:
    return found
  low, high = max(0.0, found.low), min(most, found.high)
  return Estimate(found.value, low, high, found.seeds)


def seed_difference(
  first: Mapping[int, float], second: Mapping[int, float]
) -> Estimate:
  """Difference of two means over seeds, with its 95 % interval.

  Runs with the same seed have the same data order and, for equal networks, the
  same initial weights. With two or more shared seeds, the samples are therefore
  the differences of these runs; otherwise, the two samples are treated as
  independent.

  Args:
    first: a number by seed, at least one.
    second: the same for the other configuration.

  Returns:
    See `t_test`.
  """
  shared = sorted(first.keys() & second.keys())
  if len(shared) > 1:
    return t_test([first[seed] - second[seed] for seed in shared])
  return t_test(list(first.values()), list(second.values()))


def newcombe(
  first: float, first_total: int, second: float, second_total: int
) -> tuple[float, float]:
  """95 % interval of the difference of two independent proportions.

  Combines Wilson's intervals of both: R. G. Newcombe, "Interval
  estimation for the difference between independent proportions", Statistics in
  Medicine 17, 1998, method 10.

  Args:
    first: a proportion in [0, 1].
    first_total: number of its trials.
    second: the other proportion.
    second_total: number of its trials.

  Returns:
    (low, high) of first - second, in [-1, 1].
  """
  difference = first - second
  low, high = wilson(first * first_total, first_total)
  second_low, second_high = wilson(second * second_total, second_total)
  return (
    difference - math.hypot(first - low, second_high - second),
    difference + math.hypot(high - first, second - second_low),
  )


def paired(
  first: Correct, second: Correct, weights: Mapping[str, int]
) -> Estimate:
  """Weighted difference of accuracies over rows of the same images.

  The test flips the signs of the images' differences. If the runs do not
  differ, both signs are equally likely (Fisher 1935, section 21); all 2^N sign
  patterns are counted. For one row this is McNemar's exact test, a binomial
  test on the images that only one run classifies correctly, which Dietterich
  (Neural Computation 10, 1998) recommends for two classifiers trained once. It
  is the exact test, not the mid-p version, and therefore conservative.

  The interval is that of Agresti and Min (Statistics in Medicine 24, 2005):
  Wald's, with half an image added to each cell of the 2x2 table. For several
  rows, this corresponds to one added image that differs fully, half in each
  direction, and one that does not differ.

  Args:
    first: bool [N] by row, for the first run.
    second: the same for the second run.
    weights: integers by row; the weighted sum is divided by the sum of the
      positive weights. Equal weights give a mean, and weights that sum to zero
      a contrast of two means.

  Returns:
    The difference, in [-1, 1]; for a contrast in [-2, 2].

  Raises:
    ValueError: if rows have different numbers of images.
  """
  sizes = {len(side[name]) for side in (first, second) for name in weights}
  if len(sizes) != 1:
    raise ValueError(
      f"rows of {', '.join(map(str, sorted(sizes)))} images cannot be paired: "
      "evaluate both runs on the same images"
    )
  (images,) = sizes
  sums = sum(w * (first[n].astype(int) - second[n]) for n, w in weights.items())
  divisor = sum(weight for weight in weights.values() if weight > 0)
  most = sum(map(abs, weights.values())) / divisor
  per_image = sums / divisor
  mean = per_image.sum() / (images + 2)
  square = ((per_image**2).sum() + most**2) / (images + 2)
  half = Z_95 * math.sqrt((square - mean**2) / (images + 2))
  low, high = max(-most, float(mean - half)), min(most, float(mean + half))
  return Estimate(float(per_image.mean()), low, high, p=sign_flip_p(sums))


def sign_flip_p(sums: np.ndarray) -> float:
  """Two-sided p-value of the sign-flip test for integers.

  Args:
    sums: integers [N].

  Returns:
    The fraction of the 2^N sign patterns whose sum is at least as far from
    zero as that of `sums`, accurate to about 1e-12; at least `P_FLOOR`.
  """
  total = abs(int(sums.sum()))
  if not total:
    return 1.0
  sizes, counts = np.unique(np.abs(sums), return_counts=True)
  largest = int(sizes @ counts)
  # A sum of independent +-m has the characteristic function prod cos(m t); a
  # Fourier transform, long enough not to wrap, gives its distribution.
  length = 1 << (2 * largest).bit_length()
  angles = 2 * np.pi * np.arange(length // 2 + 1) / length
  transform, live = np.ones(len(angles)), np.arange(len(angles))
  for size, count in zip(sizes, counts, strict=True):
    transform[live] *= np.cos(size * angles[live]) ** float(count)
    # No factor exceeds 1, so products that vanished can be skipped.
    live = live[np.abs(transform[live]) > 1e-18]
  probabilities = np.fft.irfft(transform, length)
  tail = float(probabilities[total : largest + 1].sum())
  return min(1.0, max(P_FLOOR, 2 * tail))


def holm(values: Sequence[float | None]) -> list[float | None]:
  """Adjusts p-values of several tests (Holm 1979).

  Args:
    values: p-values; None for what was not tested.

  Returns:
    Adjusted p-values in the same order; None where there was no test. With a
    probability of at least 95 %, none of those below 0.05 is a false positive.
  """
  tested = [i for i, p in enumerate(values) if p is not None]
  adjusted, largest = list(values), 0.0
  for rank, i in enumerate(sorted(tested, key=values.__getitem__)):
    largest = max(largest, min(1.0, (len(tested) - rank) * values[i]))
    adjusted[i] = largest
  return adjusted


def significant(estimates: Sequence[Estimate | None]) -> list[int]:
  """Selects differences that are significant after Holm's correction.

  Args:
    estimates: differences; those that were not tested are ignored.

  Returns:
    The indices of differences whose adjusted p-values are below `LEVEL`.
  """
  adjusted = holm([x and x.p for x in estimates])
  return [i for i, p in enumerate(adjusted) if p is not None and p < LEVEL]
