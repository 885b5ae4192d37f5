"""Metrics for two runs: accuracy differences, and relative training time."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from ram_jax.corruptions import CORRUPTIONS, SEVERITIES
from ram_jax.report import groups as grouping
from ram_jax.report import references, statistics
from ram_jax.report.statistics import Estimate
from ram_jax.report.table import Table
from ram_jax.runs.results import Run

NAMES = tuple(CORRUPTIONS)
# Names of the paper's methods in prose.
METHODS = {
  "robust_augmix": "RobustAugMix",
  "standard": "standard training",
  "adversarial": "adversarial training",
  "augmix": "AugMix",
}
HIGH, LOW = (4, 5), (1, 2, 3)
# Upper ends of the bands, as fractions of the highest frequency of an image
# along an axis (half its side length); the corners have higher frequencies.
BANDS = {"low": 1 / 3, "middle": 2 / 3, "high": np.inf}
# Corruptions that are also shown separately, because adversarial training loses
# the most accuracy on them.
LOW_CONTRAST = ("fog", "contrast")
SEEDS = (
  "95 % intervals: Student's t over differences between runs with the same "
  "seed, or Welch's if fewer than two seeds are shared"
)


class Missing(Exception):
  """Data that a comparison needs is missing; the message names it."""


Pair = Sequence[Run]  # of the method and of a baseline


def shared_rows(
  pair: Pair, evaluator: str, single: str | None = None
) -> pd.DataFrame:
  """Selects rows of both runs with equal settings and test images.

  Args:
    pair: the method, and the baseline.
    evaluator: which evaluator's rows.
    single: a setting that must be the same in all rows.

  Returns:
    The method's rows, with the baseline's accuracy as `accuracy_base`.

  Raises:
    Missing: if there are no such rows, or `single` has several values in them.
  """
  both = " and ".join(map(_name, pair))
  found = []
  for run in pair:
    found.append(run.table[run.table["evaluator"] == evaluator])
    if found[-1].empty:
      raise Missing(f"{evaluator!r} in the results of {_name(run)}")
  tests = [run.head.get("data", {}).get("test", {}) for run in pair]
  prints = {test.get("fingerprint") for test in tests}
  if None in prints or len(prints) > 1:
    raise Missing(f"the same test images for {both}")
  same = ["key", "total"]
  base = found[1][[*same, "accuracy"]]
  shared = found[0].merge(base, on=same, suffixes=("", "_base"))
  if shared.empty:
    raise Missing(f"{evaluator!r} with the same settings for {both}")
  values = sorted(set(map(str, shared[single]))) if single else ()
  if len(values) > 1:
    raise Missing(f"one value of {single!r}, not {', '.join(values)}")
  return shared


# Integers by key of a row; equal ones for a mean.
Weights = Mapping[str, int]
# Yields (description, rows to compare). For quantities that are not accuracies,
# an estimate replaces the rows. None if data is missing. May raise Missing.
Metric = Callable[[Pair], Iterator[tuple[str, Weights | Estimate | None]]]


def by_image(pair: Pair, weights: Weights) -> Estimate:
  """Compares image by image.

  Args:
    pair: the method, and the baseline.
    weights: see `statistics.paired`.

  Returns:
    The weighted difference of accuracies.

  Raises:
    Missing: if a correct.npz lacks these rows.
  """
  for run in pair:
    if not weights.keys() <= run.correct.keys():
      raise Missing(f"correct.npz of {_name(run)}")
  return statistics.paired(*(run.correct for run in pair), weights)


def gain(pair: Pair, weights: Weights) -> float:
  """The value of `by_image`, computed from the accuracies in the results."""
  mine, base = (x.table.set_index("key")["accuracy"] for x in pair)
  total = sum(w * (mine[key] - base[key]) for key, w in weights.items())
  return float(total / sum(w for w in weights.values() if w > 0))


def mean_of(keys: Iterable[str]) -> Weights:
  """Equal weights for rows."""
  return dict.fromkeys(keys, 1)


def by_seed(first: Sequence[Run], second: Sequence[Run]) -> list[Pair]:
  """Pairs of runs with the same seed.

  Args:
    first: runs of the method, with different seeds.
    second: runs of a baseline.

  Returns:
    A pair for each seed that both have; the first run of each if there is none.
  """
  both = itertools.product(first, second)
  shared = [(x, y) for x, y in both if x.about["seed"] == y.about["seed"]]
  return shared or [(first[0], second[0])]


def differences(
  metric: Metric, pairs: Sequence[Pair]
) -> Iterator[tuple[str, Estimate | None]]:
  """Differences of a pair, or their means over seeds.

  Args:
    metric: yields what to compare.
    pairs: from `by_seed`.

  Yields:
    For one pair, the difference over images, or the metric's estimate; for
    several, the mean difference with Student's interval and t-test. None if
    data of any pair is missing.

  Raises:
    Missing: if the metric cannot be computed at all for a pair.
  """
  found = [dict(metric(pair)) for pair in pairs]
  for measure in dict.fromkeys(itertools.chain(*found)):
    parts = [each.get(measure) for each in found]
    if any(part is None for part in parts):
      yield measure, None
      continue
    both = list(zip(pairs, parts, strict=True))
    if len(pairs) > 1:
      yield measure, statistics.t_test([_value(*x) for x in both])
    elif isinstance(parts[0], Estimate):
      yield measure, parts[0]
    else:
      yield measure, by_image(*both[0])


def _value(pair: Pair, part: Weights | Estimate) -> float:
  return part.value if isinstance(part, Estimate) else gain(pair, part)


def clean_accuracy(pair: Pair) -> Iterator[tuple[str, Weights]]:
  """Clean accuracy."""
  yield "clean", mean_of(shared_rows(pair, "clean")["key"])


def each_epsilon(pair: Pair) -> Iterator[tuple[str, Weights]]:
  """Accuracy under each attack."""
  rows = _attacked(pair).to_dict("records")
  labels = [references.label(row) for row in rows]
  for label, row in zip(labels, rows, strict=True):
    # Labels do not show, for example, the number of restarts.
    name = label if labels.count(label) == 1 else row["key"]
    yield name, mean_of([row["key"]])


def mean_over_epsilons(pair: Pair) -> Iterator[tuple[str, Weights]]:
  """Mean accuracy under all attacks."""
  keys = _attacked(pair)["key"]
  yield f"mean of {len(keys)} attacks", mean_of(keys)


def corruptions(*names: str) -> Metric:
  """Mean accuracy over severities, for each of the given corruptions."""

  def metric(pair: Pair) -> Iterator[tuple[str, Weights | None]]:
    rows = shared_rows(pair, "corruption", "images")
    for name in names:
      keys = rows["key"][rows["corruption"] == name]
      whole = len(keys) == len(SEVERITIES)
      yield name, mean_of(keys) if whole else None

  return metric


def severity_contrast(
  pair: Pair,
) -> Iterator[tuple[str, Weights | None]]:
  """Mean gain at severities 4 and 5 minus mean gain at 1 to 3.

  Args:
    pair: the method, and the baseline.

  Yields:
    One difference, over the corruptions evaluated at all severities; then the
    names of the other corruptions, with None.

  Raises:
    Missing: if there is no such corruption.
  """
  rows = shared_rows(pair, "corruption", "images")
  rows = rows[rows["severity"].isin(SEVERITIES)]
  counts = rows["corruption"].value_counts()
  whole = [n for n in NAMES if counts.get(n) == len(SEVERITIES)]
  if not whole:
    raise Missing("a corruption at all five severities")
  rows = rows[rows["corruption"].isin(whole)]
  # Integers proportional to the weights of means over 2 and 3 severities.
  high = rows["severity"].isin(HIGH)
  weights = np.where(high, len(LOW), -len(HIGH))
  name = "gain at severities 4-5 minus gain at 1-3"
  yield name, dict(zip(rows["key"], weights.tolist(), strict=True))
  yield from ((name, None) for name in NAMES if name not in whole)


def frequencies(pair: Pair) -> Iterator[tuple[str, Estimate]]:
  """Accuracy under Fourier waves by band; intervals ignore the pairing."""
  rows = shared_rows(pair, "fourier", "wave_norm")
  total = int(rows["total"].min())
  for band, mine, base in band_means(rows).itertuples():
    ends = statistics.newcombe(mine, total, base, total)
    yield band, Estimate(mine - base, *ends)


def band_means(rows: pd.DataFrame) -> pd.DataFrame:
  """Mean accuracies over the frequencies of each band.

  Args:
    rows: rows of the evaluator "fourier" for half of the plane: `y`, `x` and
      columns whose names begin with "accuracy".

  Returns:
    Means of these columns, by name of the band.

  Raises:
    Missing: if a band has no frequencies.
  """
  y, x = (rows[axis].astype(float).abs() for axis in "yx")
  radius = np.hypot(y, x) / max(1, min(y.max(), x.max()))
  bands = pd.cut(radius, [-1, *BANDS.values()], labels=list(BANDS))
  if bands.nunique() < len(BANDS):
    raise Missing("Fourier waves of low, middle and high frequencies")
  # (y, x) and (-y, -x) are the same wave, but count as two frequencies of the
  # plane unless they coincide.
  weights = 2 - (y.isin((0, y.max())) & x.isin((0, x.max())))
  weighted = rows.filter(like="accuracy").mul(weights, axis=0)
  sums = weighted.groupby(bands, observed=True).sum()
  return sums.div(weights.groupby(bands, observed=True).sum(), axis=0)


def training_time(pair: Pair) -> Iterator[tuple[str, Estimate]]:
  """Additional training time as a fraction of the baseline's."""
  seconds, settings = [], []
  for run in pair:
    seconds.append(run.head.get("timing", {}).get("train_seconds"))
    # `device` in the head is that of the evaluation, so it is only a fallback.
    trained = run.head.get("trained_with") or [run.head]
    devices = [environment.get("device", {}) for environment in trained]
    settings.append((devices, run.about.get("step")))
    if not seconds[-1]:
      raise Missing(f"training time of {_name(run)}")
  (device, *others), _ = settings[0]
  if settings[0] != settings[1] or any(x != device for x in others):
    both = " and ".join(map(_name, pair))
    raise Missing(f"the same device and number of updates for {both}")
  name = f"added time in %, on {device.get('count')} x {device.get('kind')}"
  yield name, Estimate(seconds[0] / seconds[1] - 1)


def over_seeds(runs: Sequence[Run], baseline: Run) -> Table | None:
  """Differences in accuracy between configurations with several seeds.

  Args:
    runs: the runs; those that differ only in their seeds share a row.
    baseline: one of the runs.

  Returns:
    One row per configuration, except that of the baseline; None if no
    difference has an interval.
  """
  groups, rows = grouping.groups_and_rows(runs)
  (base,) = (i for i, group in enumerate(groups) if baseline in group.runs)
  others = [i for i in range(len(groups)) if i != base]
  found = {
    name: [_difference(part, i, base) for i in others]
    for name, part in _metrics(rows, base)
  }
  if not any(x and x.seeds > 1 for column in found.values() for x in column):
    return None
  labels = [groups[i].label for i in others]
  columns = (map(_signed, column) for column in found.values())
  cells = zip(labels, *columns, strict=True)
  best = [
    (i, j)
    for j, column in enumerate(found.values(), start=1)
    for i in statistics.significant(column)
  ]
  notes = (
    f"difference from {groups[base].label} in percentage points",
    SEEDS,
    f"bold: p < {statistics.LEVEL:g} after Holm's correction over the "
    "differences in the column; this applies to "
    f"{len(best)} of {len(others) * len(found)}",
  )
  return Table(("method", *found), tuple(cells), notes, best=frozenset(best))


def _difference(rows: pd.DataFrame, group: int, base: int) -> Estimate | None:
  """A group's mean accuracy over the rows minus the base's, if comparable."""
  both = [grouping.shared(rows[rows["group"] == i]) for i in (group, base)]
  # Means over different rows cannot be compared.
  mine, other = map(grouping.places, both)
  if not mine or mine != other:
    return None
  means = (dict(x.groupby("seed")["accuracy"].mean()) for x in both)
  return statistics.seed_difference(*means)


def _metrics(
  rows: pd.DataFrame, base: int
) -> Iterator[tuple[str, pd.DataFrame]]:
  """Names and rows of the accuracies that are compared over seeds."""
  for name, part, names in grouping.test_sets(rows):
    places = grouping.places(grouping.shared(part[part["group"] == base]))
    yield name + grouping.lacking(places, names), part
    source = name.partition("corruptions")[2]
    for single in LOW_CONTRAST:
      if not (own := part[part["corruption"] == single]).empty:
        yield single + source, own
  yield from (
    (name, part)
    for name, part, is_main in grouping.attack_columns(rows)
    if is_main
  )


def _name(run: Run) -> str:
  return METHODS[run.about["method"]]


def _signed(found: Estimate | None) -> str:
  if not found:
    return "-"
  text = f"{100 * found.value:+z.1f}"
  if found.low is None:
    return text
  return f"{text} ({100 * found.low:+z.1f} to {100 * found.high:+z.1f})"


def _attacked(pair: Pair) -> pd.DataFrame:
  rows = shared_rows(pair, "adversarial").query("epsilon > 0")
  if rows.empty:
    raise Missing("an epsilon above 0 at which both were evaluated")
  return rows
