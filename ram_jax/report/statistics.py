"""95 % intervals and tests: of accuracies, their differences, and of seeds.

Two runs evaluated on the same test images are compared image by image: some
images are hard for both, and what tells the runs apart are the images that only
one of them classifies correctly. One image stands in every row of a mean over
corruptions, severities or epsilons, and its outcomes there are not independent.
Counting image x row as independent would make 95 times as many samples of 19
corruptions at 5 severities, and intervals up to ten times too narrow. So an
image's difference is summed over the rows first, and the images are the
samples.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.special

# 97.5 % quantile of the standard normal distribution.
Z_95 = 1.959963984540054
# Below it a p-value is the rounding of a Fourier transform.
P_FLOOR = 1e-9
Correct = Mapping[str, np.ndarray]


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


@dataclasses.dataclass(frozen=True)
class Difference:
  """A difference of accuracies, in [-1, 1]; of a contrast in [-2, 2].

  Attributes:
    value: the first minus the second.
    low: lower end of its 95 % interval; None where there is none.
    high: upper end.
    p: two-sided, of no difference; None where that is not tested.
    images: number of test images.
  """

  value: float
  low: float | None = None
  high: float | None = None
  p: float | None = None
  images: int | None = None


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


def newcombe(
  first: float, first_total: int, second: float, second_total: int
) -> tuple[float, float]:
  """95 % interval of the difference of two independent proportions.

  Wilson's interval of each, combined by squares: R. G. Newcombe, "Interval
  estimation for the difference between independent proportions", Statistics in
  Medicine 17, 1998, method 10.

  Args:
    first: a proportion in [0, 1].
    first_total: its trials.
    second: the other proportion.
    second_total: its trials.

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
) -> Difference:
  """Weighted difference of accuracies over rows of the same images.

  The test flips the sign of each image's difference, which without a
  difference between the runs is as likely either way (Fisher 1935, section 21);
  all 2^N sign patterns are counted. Of one row this is McNemar's exact test, a
  binomial one on the images that only one run gets right, which Dietterich
  (Neural Computation 10, 1998) recommends for two classifiers trained once. It
  is exact and not mid-p: it may err towards "no difference", not from it.

  The interval is Agresti and Min's (Statistics in Medicine 24, 2005), Wald's
  with half an image more in each cell of the 2x2 table, which of several rows
  is one image more that differs fully, half each way, and one that does not.

  Args:
    first: bool [N] by row.
    second: the other run's.
    weights: of the rows, whole numbers; the sum is divided by that of the
      positive ones. Equal weights give a mean, and weights that sum to zero a
      contrast of two means.

  Returns:
    The difference.

  Raises:
    ValueError: rows of different numbers of images.
  """
  sizes = {len(side[name]) for side in (first, second) for name in weights}
  if len(sizes) != 1:
    raise ValueError(
      f"rows of {', '.join(map(str, sorted(sizes)))} images cannot be paired: "
      "evaluate both runs on the same images"
    )
  (images,) = sizes
  sums = np.zeros(images, int)
  for name, weight in weights.items():
    sums += weight * (first[name].astype(int) - second[name])
  divisor = sum(weight for weight in weights.values() if weight > 0)
  most = sum(map(abs, weights.values())) / divisor
  per_image = sums / divisor
  mean = per_image.sum() / (images + 2)
  square = ((per_image**2).sum() + most**2) / (images + 2)
  half = Z_95 * math.sqrt((square - mean**2) / (images + 2))
  return Difference(
    float(per_image.mean()),
    max(-most, float(mean - half)),
    min(most, float(mean + half)),
    sign_flip_p(sums),
    images,
  )


def sign_flip_p(sums: np.ndarray) -> float:
  """Two-sided p-value over all patterns of signs of whole numbers.

  Args:
    sums: whole numbers [N].

  Returns:
    The fraction of the 2^N patterns whose sum is at least as far from zero, to
    about 1e-12, and no less than `P_FLOOR`.
  """
  total = abs(int(sums.sum()))
  if not total:
    return 1.0
  sizes, counts = np.unique(np.abs(sums), return_counts=True)
  largest = int(sizes @ counts)
  # A sum of independent +-m has the characteristic function prod cos(m t);
  # its distribution is one Fourier transform away, long enough not to wrap.
  length = 1 << (2 * largest).bit_length()
  angles = 2 * np.pi * np.arange(length // 2 + 1) / length
  transform, live = np.ones(len(angles)), np.arange(len(angles))
  for size, count in zip(sizes, counts, strict=True):
    transform[live] *= np.cos(size * angles[live]) ** float(count)
    # No factor exceeds 1: what has vanished needs none of the others.
    live = live[np.abs(transform[live]) > 1e-18]
  probabilities = np.fft.irfft(transform, length)
  tail = float(probabilities[total : largest + 1].sum())
  return min(1.0, max(P_FLOOR, 2 * tail))


def holm(values: Sequence[float]) -> list[float]:
  """P-values of several tests, adjusted (Holm 1979).

  Args:
    values: p-values.

  Returns:
    In the same order; those below 0.05 are, with a probability of at least
    95 %, of no test without a difference.
  """
  adjusted, largest = [0.0] * len(values), 0.0
  for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
    largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
    adjusted[i] = largest
  return adjusted
