"""Two runs, compared in one metric: by accuracy, frequencies, or time."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ram_jax.contracts import Row
from ram_jax.corruptions import CORRUPTIONS, SEVERITIES
from ram_jax.report import references, statistics
from ram_jax.report.statistics import Difference
from ram_jax.runs.results import Run

NAMES = tuple(CORRUPTIONS)
HIGH, LOW = (4, 5), (1, 2, 3)
# Upper ends of the bands, as fractions of the highest frequency that an image
# has along an axis (half its side); in the corners are higher ones.
BANDS = {"low": 1 / 3, "middle": 2 / 3, "high": np.inf}


class Missing(Exception):
  """Says what a comparison would need."""


@dataclasses.dataclass(frozen=True)
class Pair:
  """A run of a method, and the run of a baseline.

  Attributes:
    names: the paper's, of the two methods.
    runs: the two.
    correct: which images each classified correctly, by the rows' keys.
  """

  names: Sequence[str]
  runs: Sequence[Run]
  correct: Sequence[Mapping[str, np.ndarray]]

  def rows(self, evaluator: str) -> list[tuple[Row, Row]]:
    """Rows of both with equal settings, on the same test images.

    Args:
      evaluator: of the rows.

    Returns:
      The rows, in the order of the first run's.

    Raises:
      Missing: such rows.
    """
    sides, both = [], " and ".join(self.names)
    for run, name in zip(self.runs, self.names, strict=True):
      rows = {(r.key, r.total): r for r in run.rows if r.evaluator == evaluator}
      if not rows:
        raise Missing(f"{evaluator!r} in the results of {name}")
      sides.append(rows)
    tests = [run.head.get("data", {}).get("test", {}) for run in self.runs]
    prints = {test.get("fingerprint") for test in tests}
    if None in prints or len(prints) > 1:
      raise Missing(f"the same test images for {both}")
    mine, other = sides
    shared = [(mine[key], other[key]) for key in mine if key in other]
    if not shared:
      raise Missing(f"{evaluator!r} with the same settings for {both}")
    return shared

  def test(self, weights: Mapping[str, int]) -> Difference:
    """Compares image by image.

    Args:
      weights: of rows, by their keys.

    Returns:
      As `statistics.paired`.

    Raises:
      Missing: a correct.npz with these rows.
    """
    for correct, name in zip(self.correct, self.names, strict=True):
      if not weights.keys() <= correct.keys():
        raise Missing(f"correct.npz of {name}")
    return statistics.paired(*self.correct, weights)


# Yields what is compared, in words; None in place of what is lacking. May raise
# Missing.
Metric = Callable[[Pair], Iterator[tuple[str, Difference | None]]]


def clean_accuracy(pair: Pair) -> Iterator[tuple[str, Difference]]:
  """Clean accuracy."""
  for row, _ in pair.rows("clean"):
    yield "clean", pair.test({row.key: 1})


def each_epsilon(pair: Pair) -> Iterator[tuple[str, Difference]]:
  """Accuracy under each attack."""
  for row in _attacked(pair):
    yield references.label(row.settings), pair.test({row.key: 1})


def mean_over_epsilons(pair: Pair) -> Iterator[tuple[str, Difference]]:
  """Mean accuracy under all attacks."""
  weights = {row.key: 1 for row in _attacked(pair)}
  yield f"mean of {len(weights)} attacks", pair.test(weights)


def corruptions(*names: str) -> Metric:
  """Mean accuracy over severities on each of some corruptions."""

  def metric(pair: Pair) -> Iterator[tuple[str, Difference | None]]:
    cells = _cells(pair)
    for name in names:
      keys = [row.key for row, _ in cells[name].values()]
      yield name, pair.test(dict.fromkeys(keys, 1)) if keys else None

  return metric


def severity_contrast(
  pair: Pair,
) -> Iterator[tuple[str, Difference | None]]:
  """An image's mean gain at severities 4 and 5 less that at 1 to 3.

  Args:
    pair: of runs.

  Yields:
    One difference, over the corruptions evaluated at all severities; the names
    of the others.

  Raises:
    Missing: such a corruption.
  """
  cells = _cells(pair)
  whole = [name for name in NAMES if cells[name].keys() >= set(SEVERITIES)]
  if not whole:
    raise Missing("a corruption at all five severities")
  weights, gains = {}, []
  for severity in SEVERITIES:
    level = [cells[name][severity] for name in whole]
    # Whole numbers in proportion to means of two and of three severities.
    weight = len(LOW) if severity in HIGH else -len(HIGH)
    weights |= {row.key: weight for row, _ in level}
    gain = np.mean([_accuracy(row) - _accuracy(base) for row, base in level])
    gains.append(f"{100 * gain:+z.1f}")
  name = f"gain by severity: {', '.join(gains)}; 4-5 less 1-3"
  yield name, pair.test(weights)
  yield from ((name, None) for name in NAMES if name not in whole)


def frequencies(pair: Pair) -> Iterator[tuple[str, Difference]]:
  """Accuracy under Fourier waves by band, as if of different images."""
  rows = _of_one("wave_norm", pair.rows("fourier"))
  total = min(row.total for row, _ in rows)
  mine, other = (band_accuracies(side) for side in zip(*rows, strict=True))
  for band in BANDS:
    ends = statistics.newcombe(mine[band], total, other[band], total)
    yield band, Difference(mine[band] - other[band], *ends, images=total)


def band_accuracies(rows: Sequence[Row]) -> dict[str, float]:
  """Mean accuracy over the frequencies of each band.

  Args:
    rows: of the evaluator "fourier", half of the plane.

  Returns:
    Accuracy in [0, 1] by name of the band.

  Raises:
    Missing: frequencies of a band.
  """
  y, x = np.abs([[float(r.settings[axis]) for r in rows] for axis in "yx"])
  radius = np.hypot(y, x) / max(1, min(y.max(), x.max()))
  bands = np.searchsorted(list(BANDS.values()), radius)
  # (y, x) and (-y, -x) are one wave, but two frequencies of the plane, except
  # where they are the same one.
  weights = 2 - (np.isin(y, (0, y.max())) & np.isin(x, (0, x.max())))
  accuracies = np.array(list(map(_accuracy, rows)))
  if len(set(bands)) < len(BANDS):
    raise Missing("Fourier waves of low, middle and high frequencies")
  masks = {name: weights * (bands == i) for i, name in enumerate(BANDS)}
  return {n: float(np.average(accuracies, weights=w)) for n, w in masks.items()}


def training_time(pair: Pair) -> Iterator[tuple[str, Difference]]:
  """How much longer training took, as a fraction of the baseline's time."""
  seconds, settings = [], []
  for run, name in zip(pair.runs, pair.names, strict=True):
    seconds.append(run.head.get("timing", {}).get("train_seconds"))
    settings.append((run.head.get("device"), run.about.get("step")))
    if not seconds[-1]:
      raise Missing(f"training time of {name}")
  if settings[0] != settings[1]:
    raise Missing(f"device and updates as those of {pair.names[1]}")
  device = settings[0][0] or {}
  name = f"time in %, on {device.get('count')} x {device.get('kind')}"
  yield name, Difference(seconds[0] / seconds[1] - 1)


def _accuracy(row: Row) -> float:
  return row.correct_count / row.total


def _attacked(pair: Pair) -> list[Row]:
  rows = [row for row, _ in pair.rows("adversarial") if row.settings["epsilon"]]
  if not rows:
    raise Missing("an epsilon above 0 that both were evaluated at")
  return rows


def _cells(pair: Pair) -> dict[str, dict[int, tuple[Row, Row]]]:
  """Rows by corruption and severity."""
  found = {name: {} for name in NAMES}
  for row, base in _of_one("images", pair.rows("corruption")):
    levels = found.setdefault(row.settings["corruption"], {})
    levels[row.settings["severity"]] = (row, base)
  return found


def _of_one(setting: str, rows: list[tuple[Row, Row]]) -> list[tuple[Row, Row]]:
  """The rows, unless they would mix several values of a setting."""
  values = {str(row.settings.get(setting)) for row, _ in rows}
  if len(values) > 1:
    raise Missing(f"one {setting!r}, not {', '.join(sorted(values))}")
  return rows
