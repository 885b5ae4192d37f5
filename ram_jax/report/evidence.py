"""What several runs can say about a sentence: which runs, which tests."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ram_jax.data.cifar_c import NAMES
from ram_jax.report import corruption_numbers, paired, seeds
from ram_jax.report.paired import Difference
from ram_jax.runs import results as runs
from ram_jax.runs.results import Run

OURS, STANDARD = "robust_augmix", "standard"
ADVERSARIAL, AUGMIX = "adversarial", "augmix"
# The paper's names in sentences.
METHODS = {
  OURS: "RobustAugMix",
  STANDARD: "standard training",
  ADVERSARIAL: "adversarial training",
  AUGMIX: "AugMix",
}
BASELINES = (STANDARD, ADVERSARIAL, AUGMIX)
LEVEL = 0.05


class Missing(Exception):
  """Says what a sentence's answer would need."""


@dataclasses.dataclass(frozen=True)
class Comparison:
  """RobustAugMix against a baseline in one measure.

  Attributes:
    baseline: file name of its method.
    measure: what was compared, in words.
    difference: RobustAugMix minus the baseline.
    adjusted: the p-value after Holm's correction within the sentence.
  """

  baseline: str
  measure: str
  difference: Difference
  adjusted: float

  @property
  def is_better(self) -> bool:
    """Whether RobustAugMix is significantly better."""
    return self.adjusted < LEVEL and self.difference.value > 0

  @property
  def is_worse(self) -> bool:
    """Whether it is significantly worse."""
    return self.adjusted < LEVEL and self.difference.value < 0


@dataclasses.dataclass(frozen=True)
class Evidence:
  """One run of each method, and which images it classified correctly.

  Attributes:
    runs: by the file name of the method.
    bits: rows of correct.npz by method; those that can be paired.
    notes: what was left out and why, one sentence each.
  """

  runs: Mapping[str, Run]
  bits: Mapping[str, Mapping[str, np.ndarray]]
  notes: tuple[str, ...]

  def results(self, method: str) -> dict[str, Any]:
    """Results of a method's run; raises Missing without one."""
    if method not in self.runs:
      raise Missing(f"a run of {METHODS[method]}")
    return self.runs[method].results

  def part(self, name: str, *methods: str) -> list[dict[str, Any]]:
    """A part of the results of several methods, measured in one way.

    Args:
      name: "adversarial", "corruption" or "fourier".
      *methods: file names of the methods.

    Returns:
      The parts.

    Raises:
      Missing: a run, its part, or one way of measuring.
    """
    parts = []
    for method in methods:
      if name not in self.results(method):
        raise Missing(f"{name!r} in the results of {METHODS[method]}")
      parts.append(self.results(method)[name])
    for key in ("attack", "label", "generated", "seed", "norm", "total"):
      values = [part.get(key) for part in parts]
      if any(value != values[0] for value in values):
        raise Missing(
          f"one {key!r} of {name!r} for "
          f"{' and '.join(METHODS[method] for method in methods)}"
        )
    return parts

  def epsilons(self, *methods: str) -> list[float]:
    """Sizes above 0 of the attack that all of the methods met."""
    self.part("adversarial", *methods)
    found = [runs.adversarial(self.results(method)) for method in methods]
    shared = [e for e in found[0] if e and all(e in other for other in found)]
    if not shared:
      raise Missing("an epsilon above 0 that all were measured at")
    return shared

  def corruptions(self, *methods: str) -> dict[str, tuple[int, ...]]:
    """Severities that all of the methods met, by corruption of the 19."""
    self.part("corruption", *methods)
    found = {}
    for name in NAMES:
      cells = [
        corruption_numbers.cells(self.results(method), name)
        for method in methods
      ]
      found[name] = tuple(s for s in cells[0] if all(s in c for c in cells))
    return {
      name: severities for name, severities in found.items() if severities
    }

  def given(self, baselines: Sequence[str]) -> list[str]:
    """Those of the baselines that can be paired with RobustAugMix."""
    self.results(OURS)
    found = [method for method in baselines if method in self.bits]
    if OURS in self.bits and found:
      return found
    for method in baselines:
      self.results(method)
    lacking = [m for m in (OURS, *baselines) if m not in self.bits]
    names = ", ".join(METHODS[method] for method in lacking)
    raise Missing(f"correct.npz of {names}, on the same test images")

  def compare(
    self, questions: Sequence[tuple[str, str, Mapping[str, int]]]
  ) -> tuple[Comparison, ...]:
    """Tests RobustAugMix against baselines, all for one sentence.

    Args:
      questions: baseline, measure in words, and weights of rows as
        `paired.difference` takes them.

    Returns:
      One comparison each, their p-values adjusted together.
    """
    found = [
      paired.difference(self.bits[OURS], self.bits[baseline], weights)
      for baseline, _, weights in questions
    ]
    adjusted = paired.holm([difference.p for difference in found])
    return tuple(
      Comparison(baseline, measure, difference, p)
      for (baseline, measure, _), difference, p in zip(
        questions, found, adjusted, strict=True
      )
    )


def gather(given: Sequence[Run]) -> Evidence:
  """Takes one run of each of the paper's methods.

  Args:
    given: any runs. Of several of one method, the one is taken that is most
      like the first RobustAugMix: same test images, data, network, seed.

  Returns:
    The evidence.

  Raises:
    ValueError: a correct.npz that is damaged or of another evaluation.
  """
  by_method = {method: [] for method in METHODS}
  for run in given:
    by_method.get(run.results["run"].get("method"), []).append(run)
  first = next(filter(None, by_method.values()), [None])[0]
  chosen, notes = {}, []
  for method, candidates in by_method.items():
    if candidates:
      chosen[method] = min(candidates, key=functools.partial(_unlike, first))
    if len(candidates) > 1:
      name = chosen[method].results["run"]["name"]
      notes.append(
        f"{METHODS[method]}: {name}, one of {len(candidates)} runs given"
      )
  bits = {}
  for method, run in chosen.items():
    try:
      found = paired.load(run)
    except FileNotFoundError:
      notes.append(
        f"{METHODS[method]}: no {paired.NAME} beside its results.json, which "
        "--mode=evaluate writes"
      )
      continue
    try:
      paired.check_images(first, run)
      bits[method] = found
    except ValueError as error:
      notes.append(str(error))
  for method, run in chosen.items():
    if differing := _differing(first, run):
      notes.append(
        f"{METHODS[method]} and {first.label} differ in more than the method: "
        f"{', '.join(differing)}"
      )
  return Evidence(chosen, bits, tuple(notes))


def _unlike(first: Run, run: Run) -> list[bool]:
  """Smaller for runs that are more like the first; the gravest comes first."""
  pairs = zip(_facts(first).values(), _facts(run).values(), strict=True)
  return [ours != theirs for ours, theirs in pairs]


def _facts(run: Run) -> dict[str, Any]:
  data, about = run.results.get("data", {}), run.results["run"]
  return {
    "test images": data.get("test"),
    "training images": data.get("train"),
    "network": about["model"],
    "updates": about.get("step"),
    "seed": about["seed"],
  }


def _differing(first: Run, run: Run) -> list[str]:
  """What differs beside the method: facts, then fields of the configuration."""
  pairs = zip(_facts(first).items(), _facts(run).values(), strict=True)
  found = [name for (name, ours), theirs in pairs if ours != theirs]
  sides = [seeds.flat(r.results.get("config", {})) for r in (first, run)]
  for name in sorted(sides[0].keys() | sides[1].keys()):
    # Of two networks the weights are never the same.
    own = name.startswith(("method.", "weights.")) or name in seeds.ALONE
    place = name.split(".")[-1] in seeds.PLACES
    values = [side.get(name) for side in sides]
    if values[0] != values[1] and not (own or place):
      found.append(name)
  return found
