"""Paired tests of two runs, image by image.

Both runs were measured on the same test images, and some images are hard for
both: what tells the runs apart are the images that one of them gets right and
the other does not. One image stands in every row of a mean over corruptions,
severities or epsilons, and what befalls it in one row befalls it in the next.
Counting image x row as independent would make 95 times as many samples of 19
corruptions at 5 severities, and intervals up to ten times too narrow. So an
image's difference is summed over the rows first, and the images are the units.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ram_jax.report import corruption_numbers
from ram_jax.report.statistics import Z_95
from ram_jax.runs import results as runs
from ram_jax.runs.results import Run

NAME = "correct.npz"
# Below it a p-value is the rounding of a Fourier transform.
P_FLOOR = 1e-9
Bits = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Difference:
  """A difference of accuracies over the same images, in [-1, 1].

  Attributes:
    value: ours minus theirs; of a contrast it lies in [-2, 2].
    low: lower end of its 95 % interval.
    high: upper end.
    p: two-sided, of no difference.
    images: how many were looked at.
  """

  value: float
  low: float
  high: float
  p: float
  images: int


def load(run: Run) -> dict[str, np.ndarray]:
  """Reads which images a run classified correctly.

  Args:
    run: with correct.npz in its folder.

  Returns:
    bool [N] by the names of correct.npz: "clean", "adversarial/<epsilon>",
    "corruption/<name>/<severity>"; all that results.json counts.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it is damaged, or of another evaluation than results.json.
  """
  path = run.folder / NAME
  again = f"write it with --mode=evaluate --workdir={run.folder}"
  if not path.is_file():
    raise FileNotFoundError(f"paired tests need {str(path)!r}: {again}")
  try:
    with open(path, "rb") as stream, np.load(stream) as file:
      packed = {name: file[name] for name in file.files}
  except runs.DAMAGE as error:
    raise ValueError(f"{str(path)!r} is damaged ({error}): {again}") from error
  found = {}
  for name, correct, total in _rows(run.results):
    row = packed.get(name, np.zeros(0, np.uint8))
    if row.dtype != np.uint8 or row.shape != (math.ceil(total / 8),):
      raise ValueError(
        f"{str(path)!r} lacks {name!r} of the {total} images that results.json "
        f"counts: {again}"
      )
    found[name] = np.unpackbits(row, count=total).astype(bool)
    if found[name].sum() != correct:
      raise ValueError(
        f"{str(path)!r} has {found[name].sum()} right in {name!r}, "
        f"results.json {correct}, so they are of two evaluations: {again}"
      )
  return found


def check_images(ours: Run, theirs: Run) -> None:
  """Rejects runs that were measured on different test images.

  Args:
    ours: a run.
    theirs: another.

  Raises:
    ValueError: fingerprints that differ, or that are not known.
  """
  prints = [
    run.results.get("data", {}).get("test", {}).get("fingerprint")
    for run in (ours, theirs)
  ]
  if None in prints or prints[0] != prints[1]:
    names = [run.results["run"]["name"] for run in (ours, theirs)]
    shown = [str(value)[:19] for value in prints]
    raise ValueError(
      f"{names[0]} and {names[1]} cannot be paired, as their test images have "
      f"the fingerprints {shown[0]} and {shown[1]}: evaluate both on one set"
    )


def difference(
  ours: Bits, theirs: Bits, weights: Mapping[str, int]
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
    ours: bool [N] by row.
    theirs: the other run's.
    weights: of the rows, whole numbers; the sum is divided by that of the
      positive ones. Equal weights give a mean, and weights that sum to zero a
      contrast of two means.

  Returns:
    The difference.

  Raises:
    ValueError: rows of different numbers of images.
  """
  sizes = {len(side[name]) for side in (ours, theirs) for name in weights}
  if len(sizes) != 1:
    raise ValueError(
      f"rows of {', '.join(map(str, sorted(sizes)))} images cannot be paired: "
      "evaluate both runs on the same images"
    )
  (images,) = sizes
  sums = np.zeros(images, int)
  for name, weight in weights.items():
    sums += weight * (ours[name].astype(int) - theirs[name])
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
    The share of the 2^N patterns whose sum lies at least as far from zero, to
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


def _rows(results: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
  """Name in correct.npz, correct and total of all that was counted."""
  if counts := runs.clean(results):
    yield ("clean", *counts)
  for epsilon, counts in runs.adversarial(results).items():
    yield (attacked(epsilon), *counts)
  for row in corruption_numbers.rows(results):
    name = corrupted(row["corruption"], row["severity"])
    yield name, row["correct"], row["total"]


def attacked(epsilon: float) -> str:
  """The row of an attack in correct.npz."""
  return f"adversarial/{float(epsilon)!r}"


def corrupted(name: str, severity: int) -> str:
  """The row of a corruption in correct.npz."""
  return f"corruption/{name}/{severity}"
