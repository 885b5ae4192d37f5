"""The paper's sentences about accuracy, each answered by paired tests."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

from ram_jax.data.cifar_c import NAMES, SEVERITIES
from ram_jax.report import paired
from ram_jax.report.evidence import (
  ADVERSARIAL,
  AUGMIX,
  BASELINES,
  METHODS,
  OURS,
  STANDARD,
  Comparison,
  Evidence,
  Missing,
)
from ram_jax.report.paired import Difference

AGREES, DISAGREES = "agrees", "disagrees"
UNDECIDED, UNMEASURED = "not decided", "not measured"
# Our reading of "very similar": about the size of a marker in a figure whose
# axis goes from 0 to 100 %. The paper gives no number.
SIMILAR = 0.03
HIGH, LOW = (4, 5), (1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Answer:
  """What runs say about a sentence.

  Attributes:
    measured: their numbers, in words.
    verdict: "agrees", "disagrees", "not decided" or "not measured".
    lacking: what was not there and might change the verdict.
    comparisons: the tests.
  """

  measured: str
  verdict: str
  lacking: str = ""
  comparisons: tuple[Comparison, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sentence:
  """A sentence of the paper.

  Attributes:
    name: short, for machines.
    quote: its words.
    says: what it comes to, in numbers where it has any.
    ask: answers it, or raises Missing.
  """

  name: str
  quote: str
  says: str
  ask: Callable[[Evidence], Answer]


def verdict(agrees: bool, disagrees: bool) -> str:
  """The word for a pair of decisions; neither: "not decided"."""
  if agrees:
    return AGREES
  return DISAGREES if disagrees else UNDECIDED


def points(difference: Difference, digits: int = 1) -> str:
  """A difference in points with its interval, such as "+1.2 [+0.3, +2.1]"."""
  ends = (difference.low, difference.high)
  low, high = (f"{100 * end:+z.{digits}f}" for end in ends)
  return f"{100 * difference.value:+z.{digits}f} [{low}, {high}]"


def p_text(p: float) -> str:
  """A p-value for people."""
  return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def wins(evidence: Evidence, baseline: str, required: int) -> Answer:
  """Counts the corruptions on which RobustAugMix is better.

  Args:
    evidence: of the runs.
    baseline: the method that it is compared with.
    required: on how many of the 19 it is, in the paper.

  Returns:
    Agrees with at least as many significant wins, disagrees where significant
    losses leave fewer.
  """
  found, shown = _by_corruption(evidence, baseline)
  better = sum(c.is_better for c in found)
  worse = sum(c.is_worse for c in found)
  agrees, disagrees = better >= required, len(NAMES) - worse < required
  return Answer(shown, verdict(agrees, disagrees), _unmeasured(found), found)


def not_always(evidence: Evidence) -> Answer:
  """Whether AugMix is better on at least one corruption."""
  found, shown = _by_corruption(evidence, AUGMIX)
  agrees = any(c.is_worse for c in found)
  disagrees = sum(c.is_better for c in found) == len(NAMES)
  return Answer(shown, verdict(agrees, disagrees), _unmeasured(found), found)


def named_corruptions(evidence: Evidence) -> Answer:
  """Whether it beats every baseline on the three corruptions named."""
  names = ("gaussian_noise", "glass_blur", "jpeg_compression")
  given = evidence.given(BASELINES)
  found = _on(evidence, given, names)
  wanted = len(names) * len(BASELINES)
  agrees = sum(c.is_better for c in found) == wanted
  disagrees = any(c.is_worse for c in found)
  lacking = _others(BASELINES, given)
  if len(found) < len(names) * len(given):
    lacking = "; ".join(filter(None, ["one of the corruptions", lacking]))
  return Answer(_listed(found), verdict(agrees, disagrees), lacking, found)


def fog(evidence: Evidence) -> Answer:
  """Whether some baseline beats it on fog.

  The paper does not say which. Adversarial training it is not, by another of
  its sentences, so standard training or AugMix.
  """
  baselines = (STANDARD, AUGMIX)
  given = evidence.given(baselines)
  found = _on(evidence, given, ("fog",))
  agrees = any(c.is_worse for c in found)
  disagrees = sum(c.is_better for c in found) == len(baselines)
  lacking = _others(baselines, given)
  return Answer(_listed(found), verdict(agrees, disagrees), lacking, found)


def severities(evidence: Evidence) -> Answer:
  """Whether the gain over standard training is larger at severities 4, 5.

  The test is of the contrast: an image's mean gain at 4 and 5 less that at 1 to
  3, over the corruptions measured at all five.
  """
  evidence.given((STANDARD,))
  shared = evidence.corruptions(OURS, STANDARD)
  whole = [name for name, levels in shared.items() if levels == SEVERITIES]
  if not whole:
    raise Missing("a corruption at all five severities")
  rows = {
    s: {paired.corrupted(name, s): 1 for name in whole} for s in SEVERITIES
  }
  # Whole numbers in proportion to means of two and of three severities.
  weights = {row: len(LOW) for s in HIGH for row in rows[s]}
  weights |= {row: -len(HIGH) for s in LOW for row in rows[s]}
  found = evidence.compare([(STANDARD, "gain, high less low", weights)])
  gains = evidence.compare(
    [(STANDARD, f"severity {s}", rows[s]) for s in SEVERITIES]
  )
  shown = ", ".join(f"{100 * c.difference.value:+z.1f}" for c in gains)
  text = f"gain by severity: {shown}; 4-5 less 1-3: " + _tested(found[0])
  answer = verdict(found[0].is_better, found[0].is_worse)
  return Answer(text, answer, _unmeasured(whole), found + gains)


def similar(evidence: Evidence) -> Answer:
  """Whether no epsilon tells it from adversarial training.

  Similar is shown, not merely unrefuted: every interval must lie within
  `SIMILAR` (Schuirmann 1987, with 95 % intervals for his 90 %).
  """
  evidence.given((ADVERSARIAL,))
  found = evidence.compare(
    [
      (ADVERSARIAL, f"epsilon {e:.4g}", {paired.attacked(e): 1})
      for e in evidence.epsilons(OURS, ADVERSARIAL)
    ]
  )
  ends = [(c.difference.low, c.difference.high) for c in found]
  agrees = all(low > -SIMILAR and high < SIMILAR for low, high in ends)
  disagrees = any(low > SIMILAR or high < -SIMILAR for low, high in ends)
  largest = max(found, key=lambda c: abs(c.difference.value))
  shown = ", ".join(f"{c.measure[8:]}: {points(c.difference)}" for c in found)
  text = f"largest at {largest.measure}; {shown}"
  return Answer(text, verdict(agrees, disagrees), "", found)


def more_robust(evidence: Evidence) -> Answer:
  """Whether the mean over epsilons exceeds standard training's and AugMix's."""
  baselines = (STANDARD, AUGMIX)
  given = evidence.given(baselines)
  questions = []
  for method in given:
    shared = evidence.epsilons(OURS, method)
    rows = {paired.attacked(e): 1 for e in shared}
    questions.append((method, f"mean of {len(rows)} epsilons", rows))
  found = evidence.compare(questions)
  return _against_both(found, baselines, given, better=True)


def clean_cost(evidence: Evidence) -> Answer:
  """Whether its clean accuracy is below standard training's and AugMix's."""
  baselines = (STANDARD, AUGMIX)
  given = evidence.given(baselines)
  if any("clean" not in evidence.bits[method] for method in (OURS, *given)):
    raise Missing("clean accuracy")
  found = evidence.compare([(m, "clean", {"clean": 1}) for m in given])
  return _against_both(found, baselines, given, better=False)


def _against_both(
  found: tuple[Comparison, ...],
  baselines: Sequence[str],
  given: Sequence[str],
  better: bool,
) -> Answer:
  up, down = [c.is_better for c in found], [c.is_worse for c in found]
  right, wrong = (up, down) if better else (down, up)
  answer = verdict(sum(right) == len(baselines), any(wrong))
  return Answer(_listed(found), answer, _others(baselines, given), found)


def _by_corruption(
  evidence: Evidence, baseline: str
) -> tuple[tuple[Comparison, ...], str]:
  """Every corruption against one baseline, and the count in words."""
  evidence.given((baseline,))
  found = _on(evidence, [baseline], NAMES)
  better = [c for c in found if c.difference.value > 0]
  significant = sum(c.is_better for c in found)
  shown = f"better on {len(better)} of {len(found)}, {significant} of them"
  shown += " significantly"
  others = [
    f"{c.measure} {100 * c.difference.value:+z.1f}" + "*" * c.is_worse
    for c in found
    if c not in better
  ]
  return found, "; not on: ".join([shown, *filter(None, [", ".join(others)])])


def _on(
  evidence: Evidence, baselines: Sequence[str], names: Sequence[str]
) -> tuple[Comparison, ...]:
  """Means over severities of some corruptions, against some baselines."""
  shared = {b: evidence.corruptions(OURS, b) for b in baselines}
  questions = []
  for name, baseline in itertools.product(names, baselines):
    levels = shared[baseline].get(name, ())
    rows = {paired.corrupted(name, s): 1 for s in levels}
    questions += [(baseline, name, rows)] if rows else []
  if not questions:
    raise Missing(f"accuracy on {', '.join(names)}")
  return evidence.compare(questions)


def _listed(found: Sequence[Comparison]) -> str:
  parts = []
  for measure, group in itertools.groupby(found, lambda c: c.measure):
    shown = ", ".join(f"{METHODS[c.baseline]} {_tested(c)}" for c in group)
    parts.append(f"{measure}: {shown}")
  return "; ".join(parts)


def _tested(c: Comparison) -> str:
  return f"{points(c.difference)}, {p_text(c.adjusted)}"


def _others(wanted: Sequence[str], given: Sequence[str]) -> str:
  names = [METHODS[method] for method in wanted if method not in given]
  return " and ".join(names)


def _unmeasured(found: Sequence[Comparison | str]) -> str:
  names = [c if isinstance(c, str) else c.measure for c in found]
  return ", ".join(name for name in NAMES if name not in names)
