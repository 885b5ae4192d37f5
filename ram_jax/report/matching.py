"""Pairs a run's accuracies with a reference's, and says how sure they are."""

import dataclasses
import math
from collections.abc import Sequence

from ram_jax.data.cifar_c import SEVERITIES
from ram_jax.report import entries as entries_lib
from ram_jax.report import statistics
from ram_jax.report.entries import Entry, Reference
from ram_jax.runs import results as runs

# Accuracies of the run, accuracies of the reference: of the same things.
Group = tuple[Sequence[Entry], Sequence[Entry]]


@dataclasses.dataclass(frozen=True)
class Row:
  """One measure of both.

  Attributes:
    ours: the run's accuracy.
    theirs: the reference's.
    low: lower end of the difference's 95 % interval; None where the number of
      test images is unknown.
    high: its upper end.
  """

  ours: Entry
  theirs: Entry
  low: float | None
  high: float | None

  @property
  def difference(self) -> float:
    """Ours minus theirs, in [-1, 1]."""
    return self.ours.accuracy - self.theirs.accuracy

  @property
  def is_outside(self) -> bool:
    """Whether the interval leaves zero out."""
    return self.low is not None and (self.low > 0 or self.high < 0)

  @property
  def has_other_attack(self) -> bool:
    """Whether the two were attacked differently."""
    return self.ours.attack != self.theirs.attack


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A run beside a reference.

  Attributes:
    label: the run's name for people.
    ours: the run.
    theirs: the reference.
    rows: clean, adversarial, the mean over corruptions and each one's mean over
      severities, as far as both have them.
    cells: each corruption and severity that both have.
    only_ours: what the reference lacks.
    only_theirs: what the run lacks.
  """

  label: str
  ours: Reference
  theirs: Reference
  rows: tuple[Row, ...]
  cells: tuple[Row, ...]
  only_ours: tuple[Entry, ...]
  only_theirs: tuple[Entry, ...]


def difference_interval(
  ours: float, our_total: int, theirs: float, their_total: int
) -> tuple[float, float]:
  """95 % interval of the difference of two independent proportions.

  Wilson's interval of each, combined by squares: R. G. Newcombe, "Interval
  estimation for the difference between independent proportions", Statistics in
  Medicine 17, 1998, method 10.

  Args:
    ours: a proportion in [0, 1].
    our_total: its trials.
    theirs: the other proportion.
    their_total: its trials.

  Returns:
    (low, high) of ours - theirs, in [-1, 1].
  """
  difference = ours - theirs
  low, high = statistics.wilson(ours * our_total, our_total)
  their_low, their_high = statistics.wilson(theirs * their_total, their_total)
  return (
    difference - math.hypot(ours - low, their_high - theirs),
    difference + math.hypot(high - ours, theirs - their_low),
  )


def match(run: runs.Run, theirs: Reference) -> Comparison:
  """Pairs what was measured alike: norm and size of attacks, corruptions.

  Args:
    run: the run.
    theirs: what it is compared with.

  Returns:
    The pairs; those with attacks of different names too.

  Raises:
    ValueError: nothing in common.
  """
  ours = entries_lib.of_run(run)
  alike = [
    ((o,), (t,))
    for o in ours.entries
    for t in theirs.entries
    if o.setting == t.setting
  ]
  cells = [group for group in alike if group[0][0].is_cell]
  groups = [group for group in alike if not group[0][0].is_cell]
  groups += _means(cells) + _given_means(ours, theirs)
  if not groups:
    raise ValueError(
      f"run {ours.name} and reference {theirs.name} have no measure in common: "
      f"the run has {listed(ours.entries)}, the reference "
      f"{listed(theirs.entries)}"
    )
  used = {e.key for group in groups + cells for side in group for e in side}
  return Comparison(
    run.label,
    ours,
    theirs,
    tuple(_row(*group, theirs.rounding) for group in groups),
    tuple(_row(*group, theirs.rounding) for group in cells),
    tuple(e for e in ours.entries if e.key not in used),
    tuple(e for e in theirs.entries if e.key not in used),
  )


def listed(entries: Sequence[Entry]) -> str:
  """What was measured, in words; severities where they are not all."""
  severities = {}
  for entry in entries:
    if entry.is_cell:
      levels = severities.setdefault(entry.corruptions[0], [])
      levels.append(str(entry.severities[0]))
  names = [entry.label for entry in entries if not entry.is_cell]
  for name, levels in severities.items():
    whole = len(levels) == len(SEVERITIES)
    names.append(name + f" (severity {', '.join(levels)})" * (not whole))
  return "; ".join(names) or "nothing"


def _means(cells: Sequence[Group]) -> list[Group]:
  """The cells of all corruptions, then of each."""
  by_name = {}
  for (ours,), (theirs,) in cells:
    pairs = by_name.setdefault(ours.corruptions[0], [])
    pairs.append((ours, theirs))
  each = [tuple(zip(*pairs, strict=True)) for pairs in by_name.values()]
  if len(each) < 2:
    return each
  flat = [pair for pairs in by_name.values() for pair in pairs]
  return [tuple(zip(*flat, strict=True)), *each]


def _given_means(ours: Reference, theirs: Reference) -> list[Group]:
  """Means that the reference gives, where the run has all that is in them."""
  groups = []
  for mean in theirs.entries:
    if not mean.is_mean:
      continue
    parts = [
      entry
      for entry in ours.entries
      if entry.is_cell
      and entry.corruptions[0] in mean.corruptions
      and entry.severities[0] in mean.severities
    ]
    if len(parts) == len(mean.corruptions) * len(mean.severities):
      groups.append((parts, (mean,)))
  return groups


def _row(
  ours: Sequence[Entry], theirs: Sequence[Entry], rounding: float
) -> Row:
  mine, other = _mean(ours), _mean(theirs)
  if None in (mine.total, other.total):
    return Row(mine, other, None, None)
  low, high = difference_interval(
    mine.accuracy, mine.total, other.accuracy, other.total
  )
  # The true value lies up to half a digit beside the one given.
  return Row(mine, other, low - rounding, high + rounding)


def _mean(entries: Sequence[Entry]) -> Entry:
  """Mean of accuracies, with the number of images as that of trials.

  The variance of a mean of correlated proportions is at most that of one
  proportion of its size: counting every image once cannot be too narrow.
  """
  if len(entries) == 1:
    return entries[0]
  totals = [entry.total for entry in entries]
  return Entry(
    "corruption",
    sum(entry.accuracy for entry in entries) / len(entries),
    None if None in totals else min(totals),
    corruptions=tuple(dict.fromkeys(e.corruptions[0] for e in entries)),
    severities=tuple(sorted({e.severities[0] for e in entries})),
  )
