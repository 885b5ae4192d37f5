"""The paper's sentences beside what runs say.

`CLAIMS` has one row per sentence of section 5, and of section 6 where that
names costs and the hypothesis: which metric of which methods is compared, and
when the runs agree.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ram_jax.report import compare, pairs, statistics
from ram_jax.report.pairs import NAMES, Metric, Missing, Pair, corruptions
from ram_jax.report.statistics import Difference
from ram_jax.report.table import Table
from ram_jax.runs import results
from ram_jax.runs.results import Run

SCHEMA = 2
ROBUST_AUGMIX, STANDARD = "robust_augmix", "standard"
ADVERSARIAL, AUGMIX = "adversarial", "augmix"
# The paper's names in sentences.
METHODS = {
  ROBUST_AUGMIX: "RobustAugMix",
  STANDARD: "standard training",
  ADVERSARIAL: "adversarial training",
  AUGMIX: "AugMix",
}
LEVEL = 0.05
BETTER, WORSE = 1, -1
# Our reading of "very similar": about the size of a marker in a figure whose
# axis goes from 0 to 100 %. The paper gives no number.
SIMILAR = 0.03
# Fields of a configuration that differ between any two runs, or say where data
# and weights are stored, which are known by their fingerprints.
OWN = ("name", "seed", "method", "weights")
PLACES = ("folder", "tfds_dir", "path", "label", "preset", "notes")
HOW = (
  "differences are RobustAugMix's accuracy minus the other's, in points, with "
  "95 % intervals (Agresti and Min 2005)",
  "tests are exact, two-sided, and of one network each: McNemar's, and of "
  "means over corruptions, severities or epsilons sign flips of each image's "
  "sum, as the images are the samples; they do not cover the choice of seed",
  f"significant (*): p < {LEVEL:g} after Holm's correction over all "
  "comparisons of a sentence, as p is shown; not decided: the tests leave both "
  "open",
  "frequencies: mean accuracy under Fourier waves of up to 1/3, up to 2/3 and "
  "above 2/3 of the highest frequency along an axis, minus that of standard "
  "training; intervals as if of different images, rather too wide (Newcombe "
  "1998)",
  "training times are of one training each; results do not tell whether other "
  "work shared the device",
)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A method against a baseline in one metric.

  Attributes:
    baseline: the paper's name of its method.
    measure: what was compared, in words.
    difference: the method minus the baseline.
    adjusted: the p-value after Holm's correction within the sentence; None
      where nothing was tested.
  """

  baseline: str
  measure: str
  difference: Difference
  adjusted: float | None

  @property
  def sign(self) -> int:
    """`BETTER` or `WORSE` where that is sure, else 0."""
    d, sure = self.difference, True
    if self.adjusted is not None:
      sure = self.adjusted < LEVEL
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
  """At least some of the comparisons go one way.

  Args:
    count: how many, in the paper.
    of: how many there are, those that are lacking included.
    sign: the way, `BETTER` or `WORSE`.
    **signs: by measure, where they differ; others do not count.

  Returns:
    The rule: it agrees with that many significant ones, and disagrees where
    significant ones the other way leave fewer.
  """

  def rule(found: Sequence[Comparison]) -> str:
    ways = [signs.get(c.measure, 0) if signs else sign for c in found]
    right = [c.sign * way for c, way in zip(found, ways, strict=True)]
    return _verdict(right.count(1) >= count, of - right.count(-1) < count)

  return rule


def within(radius: float) -> Rule:
  """Equivalence: similar is shown, not merely unrefuted.

  Args:
    radius: every interval must be inside -radius to radius (Schuirmann 1987,
      with 95 % intervals for his 90 %).

  Returns:
    The rule: it disagrees where an interval is outside.
  """

  def rule(found: Sequence[Comparison]) -> str:
    ends = [(c.difference.low, c.difference.high) for c in found]
    return _verdict(
      all(low > -radius and high < radius for low, high in ends),
      any(low > radius or high < -radius for low, high in ends),
    )

  return rule


def longer(found: Sequence[Comparison]) -> str:
  """Longer than both; disagrees if never, as there is no test."""
  signs = [c.sign for c in found]
  return _verdict(signs.count(1) == 2, signs.count(-1) == len(signs))


@dataclasses.dataclass(frozen=True)
class Test:
  """What decides about a sentence.

  Attributes:
    rule: gives the verdict.
    metric: what is compared.
    baselines: file names of the methods that it compares with.
    method: file name of the method that it is about.
  """

  rule: Rule
  metric: Metric
  baselines: Sequence[str]
  method: str = ROBUST_AUGMIX


@dataclasses.dataclass(frozen=True)
class Claim:
  """A sentence of the paper.

  Attributes:
    name: short, for machines.
    quote: its words.
    paper: what it comes to, in numbers where it has any.
    test: decides.
  """

  name: str
  quote: str
  paper: str
  test: Test


CLAIMS = (
  Claim(
    "more_than_standard",
    "RobustAugMix improves over standard training in 15 out of 19 of the "
    "common corruptions",
    "better on 15 of 19",
    Test(at_least(15, of=19), corruptions(*NAMES), [STANDARD]),
  ),
  Claim(
    "more_than_adversarial",
    "RobustAugMix also outperforms robust (i.e., adversarial) training for "
    "every corruption type",
    "better on 19 of 19",
    Test(at_least(19, of=19), corruptions(*NAMES), [ADVERSARIAL]),
  ),
  Claim(
    "not_always_augmix",
    "RobustAugMix does not always outperform vanilla AugMix on CIFAR10-C",
    "AugMix is better on some",
    Test(at_least(1, of=19, sign=WORSE), corruptions(*NAMES), [AUGMIX]),
  ),
  Claim(
    "noise_glass_jpeg",
    "more robust compared to the baselines when tested against Gaussian noise, "
    "glass blur, and JPEG compression",
    "better than all three baselines on each",
    Test(
      at_least(9, of=9),
      corruptions("gaussian_noise", "glass_blur", "jpeg_compression"),
      [STANDARD, ADVERSARIAL, AUGMIX],
    ),
  ),
  # Which baseline, the paper does not say. Adversarial training it is not, by
  # another of its sentences.
  Claim(
    "fog",
    "it does not perform as well against Fog",
    "worse than standard training or AugMix (not said which)",
    Test(at_least(1, of=2, sign=WORSE), corruptions("fog"), [STANDARD, AUGMIX]),
  ),
  Claim(
    "severities",
    "improves over standard training [...], particularly when tested against "
    "corruptions of higher severity levels",
    "larger gain at severities 4 and 5",
    Test(at_least(1, of=1), pairs.severity_contrast, [STANDARD]),
  ),
  Claim(
    "similar_under_attack",
    "RobustAugMix achieves very similar adversarial accuracy to Robust "
    "training",
    f"read as: within {100 * SIMILAR:g} points at every epsilon",
    Test(within(SIMILAR), pairs.each_epsilon, [ADVERSARIAL]),
  ),
  Claim(
    "more_robust",
    "and significantly improves over Standard and AugMix",
    "higher adversarial accuracy than both",
    Test(at_least(2, of=2), pairs.mean_over_epsilons, [STANDARD, AUGMIX]),
  ),
  Claim(
    "clean_cost",
    "a drop in clean accuracy compared to Standard and AugMix training",
    "lower than both",
    Test(
      at_least(2, of=2, sign=WORSE), pairs.clean_accuracy, [STANDARD, AUGMIX]
    ),
  ),
  Claim(
    "training_time",
    "an increased computational cost needed to train with adversarial "
    "perturbations",
    "longer than both",
    Test(longer, pairs.training_time, [STANDARD, AUGMIX]),
  ),
  Claim(
    "adversarial_frequencies",
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
    "augmix_frequencies",
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
  """What runs say about a sentence.

  Attributes:
    name: the claim's.
    quote: the paper's words.
    paper: what they come to.
    found: numbers of the runs, in words.
    verdict: "agrees", "disagrees", "not decided" or "not evaluated".
    lacking: what was not there and might change the verdict.
    comparisons: the tests.
  """

  name: str
  quote: str
  paper: str
  found: str
  verdict: str
  lacking: str
  comparisons: Sequence[Comparison]


@dataclasses.dataclass(frozen=True)
class Claims:
  """Every sentence, answered.

  Attributes:
    runs: those that answer, by method.
    rows: one for each of `CLAIMS`.
    notes: with which runs and how, and what was left out.
  """

  runs: Mapping[str, Run]
  rows: tuple[Answer, ...]
  notes: tuple[str, ...]

  def table(self) -> Table:
    """One row per sentence; footnotes say how and with which runs."""
    rows = []
    for number, row in enumerate(self.rows, start=1):
      lacking = f" (without {row.lacking})" if row.lacking else ""
      cells = (f'"{row.quote}"', row.paper, row.found, row.verdict + lacking)
      rows.append((str(number), *cells))
    # The number is the title of a row that fills a narrow terminal.
    header = ("", "the paper", "which says", "these runs", "verdict")
    return Table(header, tuple(rows), self.notes)

  def tree(self) -> dict[str, Any]:
    """The content of claims.json."""
    names = ("name", "seed")
    runs = {m: {n: r.about[n] for n in names} for m, r in self.runs.items()}
    rows = [dataclasses.asdict(row) for row in self.rows]
    return {"schema": SCHEMA, "runs": runs, "rows": rows, "notes": self.notes}


def evaluate(runs: Sequence[Run]) -> Claims | None:
  """Answers the paper's sentences from runs.

  Args:
    runs: any; those of the paper's four methods are used, one of each. Of
      several of one method, the one is taken that is most like the first
      RobustAugMix: same test images, data, network, updates, seed.

  Returns:
    The answers; None where fewer than two of the methods are there.

  Raises:
    ValueError: a correct.npz that is damaged or of another evaluation.
  """
  chosen, notes = _choose(runs)
  if len(chosen) < 2:
    return None
  named = [f"{METHODS[m]} is {run.about['name']}" for m, run in chosen.items()]
  correct = {m: results.read_correct(run) for m, run in chosen.items()}
  notes = (", ".join(named), *notes, *HOW)
  rows = tuple(_answer(claim, chosen, correct) for claim in CLAIMS)
  return Claims(chosen, rows, notes)


def write(runs: Sequence[Run], folder: str | os.PathLike) -> list[pathlib.Path]:
  """Writes claims.md and claims.json, each whole or not at all.

  Args:
    runs: as `evaluate` takes them.
    folder: where to write; made if absent.

  Returns:
    Paths of the two files; none where fewer than two of the methods are there.

  Raises:
    ValueError: a correct.npz that is damaged or of another evaluation.
  """
  claims = evaluate(runs)
  if claims is None:
    return []
  return compare.write_texts(
    pathlib.Path(folder) / "claims",
    "# The paper's sentences\n\n" + claims.table().markdown(),
    claims.tree(),
  )


def _choose(runs: Sequence[Run]) -> tuple[dict[str, Run], list[str]]:
  """One run of each method, and what a reader must know about them."""
  groups = {
    method: [run for run in runs if run.about["method"] == method]
    for method in METHODS
  }
  first = next(filter(None, groups.values()), [None])[0]
  chosen, notes = {}, []
  for method, group in groups.items():
    if not group:
      continue
    run = min(group, key=lambda run: list(_unlike(first, run).values()))
    chosen[method], name = run, METHODS[method]
    if len(group) > 1:
      notes.append(
        f"{name}: {run.about['name']}, one of {len(group)} runs given"
      )
    both = f"{name} and {METHODS[first.about['method']]}"
    if differing := [n for n, d in _unlike(first, run).items() if d]:
      notes.append(
        f"{both} differ in more than the method: {', '.join(differing)}"
      )
    if only := _only_one(first, run):
      notes.append(f"{both}: left out what only one of them has: {only}")
  return chosen, notes


def _unlike(first: Run, run: Run) -> dict[str, bool]:
  """Whether each fact differs, beside the method; the gravest come first."""
  sides = []
  for side in (first, run):
    data, about = side.head.get("data", {}), side.about
    facts = {"test images": data.get("test")}
    facts |= {"training images": data.get("train"), "network": about["model"]}
    facts |= {"updates": about.get("step"), "seed": about["seed"]}
    config = pd.json_normalize(side.head.get("config", {})).to_dict("records")
    for name, value in config[0].items():
      if name.split(".")[0] not in OWN and name.split(".")[-1] not in PLACES:
        facts[name] = value
    sides.append(facts)
  return {n: sides[0].get(n) != sides[1].get(n) for n in sides[0] | sides[1]}


def _only_one(first: Run, run: Run) -> str:
  """How many rows only one of two runs has, such as "5 of corruption"."""
  rows = {row.key: row.evaluator for row in (*first.rows, *run.rows)}
  both = {row.key for row in first.rows} & {row.key for row in run.rows}
  counts = collections.Counter(rows[key] for key in rows if key not in both)
  return ", ".join(f"{count} of {name}" for name, count in counts.items())


def _verdict(agrees: bool, disagrees: bool) -> str:
  if agrees:
    return "agrees"
  return "disagrees" if disagrees else "not decided"


def _answer(
  claim: Claim,
  runs: Mapping[str, Run],
  correct: Mapping[str, Mapping[str, np.ndarray]],
) -> Answer:
  found, lacking, test = [], [], claim.test
  for baseline in test.baselines:
    methods = (test.method, baseline)
    names = [METHODS[method] for method in methods]
    try:
      for method, name in zip(methods, names, strict=True):
        if method not in runs:
          raise Missing(f"a run of {name}")
      sides = ([part[m] for m in methods] for part in (runs, correct))
      for measure, difference in test.metric(Pair(names, *sides)):
        if difference:
          found.append((names[1], measure, difference))
        else:
          lacking.append(measure)
    except Missing as missing:
      lacking.append(str(missing))
  tested = [difference.p for *_, difference in found]
  adjusted = tested if None in tested else statistics.holm(tested)
  rows = zip(found, adjusted, strict=True)
  comparisons = [Comparison(*row, p) for row, p in rows]
  return Answer(
    claim.name,
    claim.quote,
    claim.paper,
    _in_words(comparisons),
    test.rule(comparisons) if comparisons else "not evaluated",
    "; ".join(dict.fromkeys(lacking)),
    comparisons,
  )


def _in_words(found: Sequence[Comparison]) -> str:
  """The comparisons; of many, how many are better."""
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
  text = f"better on {better} of {len(found)}, {sure} of them significantly"
  return "; not on: ".join([text, *filter(None, [", ".join(others)])])
