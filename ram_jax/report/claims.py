"""Tests the paper's claims against the results of runs.

`CLAIMS` has one entry for each claim of sections 5 and 6, including the
hypothesis about frequencies: which metric of which methods is compared, and
when the runs agree with the claim.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ram_jax.report import groups as grouping
from ram_jax.report import pairs, statistics
from ram_jax.report.groups import configuration
from ram_jax.report.pairs import METHODS, NAMES, Metric, Missing, corruptions
from ram_jax.report.statistics import Estimate
from ram_jax.report.table import Table
from ram_jax.runs.results import Run

ROBUST_AUGMIX, STANDARD = "robust_augmix", "standard"
ADVERSARIAL, AUGMIX = "adversarial", "augmix"
BETTER, WORSE = 1, -1
# Our interpretation of "very similar": about the size of a marker in a figure
# with an axis from 0 to 100 %. The paper gives no number.
SIMILAR = 0.03
DIFFERENCES = (
  "differences: accuracy of RobustAugMix minus that of the baseline, in "
  "percentage points, with 95 % intervals"
)
ONE_SEED = (
  "one run per method: intervals of Agresti and Min (2005); exact two-sided "
  "tests: McNemar's test for single rows, and a sign-flip test on per-image "
  "sums for means over corruptions, severities or epsilons, because the "
  "samples are the images; neither the intervals nor the tests cover variation "
  "between seeds",
  "frequencies of one run per method: the intervals are those for independent "
  "samples, and therefore conservative (Newcombe 1998)",
)
SEVERAL_SEEDS = (
  "methods with several seeds in common: means of the differences between runs "
  "with the same seed, with Student's intervals and two-sided t-tests; the "
  "samples are the seeds",
)
HOW = (
  f"significant (*): p < {statistics.LEVEL:g} after Holm's correction over all "
  "comparisons of a claim (the p-values shown are corrected); not decided: the "
  "tests are consistent with both verdicts",
  "frequencies: mean accuracy under Fourier waves of up to 1/3, up to 2/3 and "
  "above 2/3 of the highest frequency along an axis, minus that of standard "
  "training",
  "training times: the results do not record whether the device was shared "
  "with other work",
)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A method against a baseline in one metric.

  Attributes:
    baseline: name of the baseline's method.
    measure: description of the metric.
    difference: the method minus the baseline.
    adjusted: the p-value after Holm's correction within the claim; None if
      nothing was tested.
  """

  baseline: str
  measure: str
  difference: Estimate
  adjusted: float | None

  @property
  def sign(self) -> int:
    """`BETTER` or `WORSE`, or 0 if the difference is not significant.

    Without a p-value, significant means that the interval excludes zero;
    without an interval, every nonzero difference counts.
    """
    d, sure = self.difference, True
    if self.adjusted is not None:
      sure = self.adjusted < statistics.LEVEL
    elif d.low is not None:
      sure = d.low > 0 or d.high < 0
    return sure * ((d.value > 0) - (d.value < 0))

  def __str__(self) -> str:
    d, p = self.difference, self.adjusted
    text = f"{100 * d.value:+z.1f}"
    if d.low is not None:
      text += f" [{100 * d.low:+z.1f}, {100 * d.high:+z.1f}]"
    if p is not None:
      text += ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"
    return text


# Comparisons -> verdict.
Rule = Callable[[Sequence[Comparison]], str]


def at_least(count: int, of: int, sign: int = BETTER, **signs: int) -> Rule:
  """Requires a number of comparisons with the same sign.

  Args:
    count: required number, from the paper.
    of: number of comparisons, including missing ones.
    sign: `BETTER` or `WORSE`.
    **signs: sign by measure, if not the same for all; other measures do not
      count.

  Returns:
    The rule. It agrees if at least `count` comparisons are significant with
    this sign, and disagrees if significant opposite ones make that impossible.
  """

  def rule(found: Sequence[Comparison]) -> str:
    ways = [signs.get(c.measure, 0) if signs else sign for c in found]
    right = [c.sign * way for c, way in zip(found, ways, strict=True)]
    return _verdict(right.count(1) >= count, of - right.count(-1) < count)

  return rule


def within(radius: float) -> Rule:
  """Equivalence test: the absence of significant differences is not enough.

  Args:
    radius: every interval must be within [-radius, radius] (Schuirmann 1987,
      with 95 % instead of 90 % intervals).

  Returns:
    The rule. It disagrees if an interval is completely outside.
  """

  def rule(found: Sequence[Comparison]) -> str:
    differences = [c.difference for c in found]
    known = [(d.low, d.high) for d in differences if d.low is not None]
    # All seeds may be equal, for example at an accuracy of 0.
    equal = [d for d in differences if d.low is None and not d.value]
    inside = all(low > -radius and high < radius for low, high in known)
    return _verdict(
      inside and len(known) + len(equal) == len(differences),
      any(low > radius or high < -radius for low, high in known),
    )

  return rule


def longer(found: Sequence[Comparison]) -> str:
  """Agrees if longer than both baselines, disagrees if shorter than both.

  Over several seeds, the differences must be significant; one run per method
  allows no test.
  """
  signs = [c.sign for c in found]
  return _verdict(signs.count(1) == 2, signs.count(-1) == len(signs))


@dataclasses.dataclass(frozen=True)
class Test:
  """How a claim is tested.

  Attributes:
    rule: comparisons -> verdict.
    metric: what is compared.
    baselines: file names of the methods to compare with.
    method: file name of the method that the claim is about.
  """

  rule: Rule
  metric: Metric
  baselines: Sequence[str]
  method: str = ROBUST_AUGMIX


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim of the paper.

  Attributes:
    quote: quotation from the paper.
    paper: summary, with numbers if the paper gives any.
    test: how it is tested.
  """

  quote: str
  paper: str
  test: Test


CLAIMS = (
  Claim(
    "RobustAugMix improves over standard training in 15 out of 19 of the "
    "common corruptions",
    "better on 15 of 19",
    Test(at_least(15, of=19), corruptions(*NAMES), [STANDARD]),
  ),
  Claim(
    "RobustAugMix also outperforms robust (i.e., adversarial) training for "
    "every corruption type",
    "better on 19 of 19",
    Test(at_least(19, of=19), corruptions(*NAMES), [ADVERSARIAL]),
  ),
  Claim(
    "RobustAugMix does not always outperform vanilla AugMix on CIFAR10-C",
    "AugMix is better on some",
    Test(at_least(1, of=19, sign=WORSE), corruptions(*NAMES), [AUGMIX]),
  ),
  Claim(
    "more robust compared to the baselines when tested against Gaussian noise, "
    "glass blur, and JPEG compression",
    "better than all three baselines on each",
    Test(
      at_least(9, of=9),
      corruptions("gaussian_noise", "glass_blur", "jpeg_compression"),
      [STANDARD, ADVERSARIAL, AUGMIX],
    ),
  ),
  # The paper does not name the baseline. It cannot be adversarial training,
  # because another claim of the paper rules that out.
  Claim(
    "it does not perform as well against Fog",
    "worse than standard training or AugMix (the paper does not say which)",
    Test(at_least(1, of=2, sign=WORSE), corruptions("fog"), [STANDARD, AUGMIX]),
  ),
  Claim(
    "improves over standard training [...], particularly when tested against "
    "corruptions of higher severity levels",
    "larger gain at severities 4 and 5",
    Test(at_least(1, of=1), pairs.severity_contrast, [STANDARD]),
  ),
  Claim(
    "RobustAugMix achieves very similar adversarial accuracy to Robust "
    "training",
    f"interpreted as within {100 * SIMILAR:g} percentage points at every "
    "epsilon",
    Test(within(SIMILAR), pairs.each_epsilon, [ADVERSARIAL]),
  ),
  Claim(
    "and significantly improves over Standard and AugMix",
    "higher adversarial accuracy than both",
    Test(at_least(2, of=2), pairs.mean_over_epsilons, [STANDARD, AUGMIX]),
  ),
  Claim(
    "a drop in clean accuracy compared to Standard and AugMix training",
    "lower than both",
    Test(
      at_least(2, of=2, sign=WORSE), pairs.clean_accuracy, [STANDARD, AUGMIX]
    ),
  ),
  Claim(
    "an increased computational cost needed to train with adversarial "
    "perturbations",
    "longer than both",
    Test(longer, pairs.training_time, [STANDARD, AUGMIX]),
  ),
  Claim(
    "adversarial training enhances robustness to high-frequency corruptions "
    "(e.g., noise) at the cost of reduced robustness to lower-frequency "
    "corruptions (e.g., Fog)",
    "better at high, worse at low frequencies (a hypothesis)",
    Test(
      at_least(2, of=2, high=BETTER, low=WORSE),
      pairs.frequencies,
      [STANDARD],
      method=ADVERSARIAL,
    ),
  ),
  Claim(
    "The AugMix method brings robustness against low-frequency domain "
    "corruptions",
    "better at low frequencies",
    Test(
      at_least(1, of=1, low=BETTER),
      pairs.frequencies,
      [STANDARD],
      method=AUGMIX,
    ),
  ),
)


@dataclasses.dataclass(frozen=True)
class Answer:
  """The result of testing a claim.

  Attributes:
    claim: the claim.
    comparisons: the comparisons that were made.
    lacking: missing data that might change the verdict.
  """

  claim: Claim
  comparisons: Sequence[Comparison]
  lacking: str

  @property
  def verdict(self) -> str:
    """One of "agrees", "disagrees", "not decided", "not evaluated"."""
    found = self.comparisons
    return self.claim.test.rule(found) if found else "not evaluated"

  @property
  def found(self) -> str:
    """The comparisons as text; if there are many, a summary."""
    found = self.comparisons
    if len(found) <= 9:
      several = len({c.baseline for c in found}) > 1
      names = [c.measure + f", {c.baseline}" * several for c in found]
      parts = zip(names, found, strict=True)
      return "; ".join(f"{name}: {c}" for name, c in parts) or "-"
    better = sum(c.difference.value > 0 for c in found)
    sure = sum(c.sign == BETTER for c in found)
    others = [
      f"{c.measure} {100 * c.difference.value:+z.1f}" + "*" * (c.sign == WORSE)
      for c in found
      if c.difference.value <= 0
    ]
    text = f"better on {better} of {len(found)}, significantly on {sure}"
    return "; not on: ".join([text, *filter(None, [", ".join(others)])])


@dataclasses.dataclass(frozen=True)
class Claims:
  """The results of testing all claims.

  Attributes:
    rows: one for each of `CLAIMS`.
    notes: which runs were used and how, and what was omitted.
  """

  rows: tuple[Answer, ...]
  notes: tuple[str, ...]

  def table(self) -> Table:
    """One row per claim; footnotes name the runs and the tests."""
    rows = []
    for number, row in enumerate(self.rows, start=1):
      lacking = f" (without {row.lacking})" if row.lacking else ""
      claim, verdict = row.claim, row.verdict + lacking
      cells = (f'"{claim.quote}"', claim.paper, row.found, verdict)
      rows.append((str(number), *cells))
    # In narrow terminals, the table is transposed, and the number becomes the
    # header of the claim's column.
    header = ("", "claim", "in the paper", "these runs", "verdict")
    return Table(header, tuple(rows), self.notes)


def evaluate(runs: Sequence[Run]) -> Claims | None:
  """Tests the paper's claims.

  Args:
    runs: any runs; one configuration of each of the paper's four methods is
      used, with all its seeds. If there are several configurations of a method,
      the one most similar to that of RobustAugMix is used: same test images,
      data, network, updates.

  Returns:
    The results; None if there are runs of fewer than two of the methods.

  Raises:
    ValueError: if a correct.npz that is used is damaged or is from another
      evaluation.
  """
  chosen, notes = _choose(runs)
  if len(chosen) < 2:
    return None
  answers = tuple(_answer(claim, chosen) for claim in CLAIMS)
  seeds = {c.difference.seeds > 1 for a in answers for c in a.comparisons}
  how = [DIFFERENCES, *SEVERAL_SEEDS * (True in seeds)]
  how += ONE_SEED * (False in seeds)
  return Claims(answers, (*notes, *how, *HOW))


def _choose(
  runs: Sequence[Run],
) -> tuple[dict[str, tuple[Run, ...]], list[str]]:
  """The chosen runs by method, with all seeds, and notes on the choice."""
  chosen, named, notes = {}, [], []
  groups = grouping.groups(runs)
  for method, name in METHODS.items():
    found = [group.runs for group in groups if group.about["method"] == method]
    if not found:
      continue
    first = next(iter(chosen.values()), found[0])
    group = min(found, key=lambda runs: [*_unlike(first, runs).values()])
    chosen[method] = group
    rest = len(group) - 1
    others = f" and {rest} other seed{'s' * (rest > 1)}" if rest else ""
    count = sum(map(len, found))
    more = f" (chosen from {count} runs)" if count > len(group) else ""
    named.append(f"{name} is {group[0].about['name']}{others}{more}")
    both = f"{name} and {METHODS[first[0].about['method']]}"
    if differing := [n for n, d in _unlike(first, group).items() if d]:
      notes.append(
        f"{both} differ in more than the method: {', '.join(differing)}"
      )
    if only := _only_one(first[0], group[0]):
      notes.append(
        f"{both}: rows that only one of them has were omitted: {only}"
      )
  return chosen, ["; ".join(named), *notes]


def _unlike(first: Sequence[Run], second: Sequence[Run]) -> dict[str, bool]:
  """Which facts except the method differ, the most important ones first."""
  sides = []
  for run in (first[0], second[0]):
    data, about = run.head.get("data", {}), run.about
    facts = {"test images": data.get("test")}
    facts |= {"training images": data.get("train"), "network": about["model"]}
    facts |= {"updates": about.get("step"), "seed": None}
    for name, value in configuration(run).items():
      if not name.startswith(("method.", "weights.")):
        facts[name] = value
    sides.append(facts)
  names = sides[0] | sides[1]
  unlike = {name: sides[0].get(name) != sides[1].get(name) for name in names}
  seeds = [{run.about["seed"] for run in runs} for runs in (first, second)]
  return unlike | {"seed": not seeds[0] & seeds[1]}


def _only_one(first: Run, run: Run) -> str:
  """Counts the rows that only one run has, such as "5 corruption"."""
  mine, other = ({r.key: r.evaluator for r in x.rows} for x in (first, run))
  only = mine.keys() ^ other.keys()
  kinds = [
    kind
    for key, kind in (mine | other).items()
    if key in only and kind not in grouping.HIDDEN
  ]
  counts = collections.Counter(kinds)
  return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _verdict(agrees: bool, disagrees: bool) -> str:
  if agrees:
    return "agrees"
  return "disagrees" if disagrees else "not decided"


def _answer(claim: Claim, chosen: Mapping[str, Sequence[Run]]) -> Answer:
  found, lacking, subject = [], [], claim.test
  for baseline in subject.baselines:
    methods = (subject.method, baseline)
    try:
      for method in methods:
        if method not in chosen:
          raise Missing(f"a run of {METHODS[method]}")
      both = pairs.by_seed(*(chosen[method] for method in methods))
      for measure, difference in pairs.differences(subject.metric, both):
        if difference:
          found.append((METHODS[baseline], measure, difference))
        else:
          lacking.append(measure)
    except Missing as missing:
      lacking.append(str(missing))
  adjusted = statistics.holm([difference.p for *_, difference in found])
  rows = zip(found, adjusted, strict=True)
  comparisons = [Comparison(*row, p) for row, p in rows]
  return Answer(claim, comparisons, "; ".join(dict.fromkeys(lacking)))
