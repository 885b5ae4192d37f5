"""Accuracy under attack, at several epsilon."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from ram_jax import keys as keys_lib
from ram_jax import losses, parallel
from ram_jax.attacks.pgd import Attack, finite_gradients
from ram_jax.evaluation import attack_checks, clean, correctness
from ram_jax.evaluation.cache import Part, fresh
from ram_jax.image.color import dequantise
from ram_jax.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Accuracy against epsilon (paper, figure 2).

  Attributes:
    attack: its epsilon and step size are replaced by those of the sweep.
    epsilons: radii of the attack's ball, in pixel units of [0,1].
    relative_step_size: step size in units of epsilon.
    check_images: first N images on which it is checked that the attack works,
      all where there are fewer; 0: no check.
    batch_size: examples at once over all devices; it changes no result.
  """

  attack: Attack
  epsilons: tuple[float, ...]
  relative_step_size: float
  check_images: int
  batch_size: int

  def __post_init__(self) -> None:
    good = [
      isinstance(e, float | int) and 0 <= e < np.inf for e in self.epsilons
    ]
    if not good or not all(good):
      raise ValueError(
        f"epsilons are {self.epsilons}: give numbers, at least one, each "
        "finite and at least 0"
      )
    if not 0 < self.relative_step_size < np.inf:
      raise ValueError(
        f"relative_step_size is {self.relative_step_size}: give a finite "
        "number above 0"
      )
    if self.check_images < 0:
      raise ValueError(
        f"check_images is {self.check_images}: give how many, or 0 for none"
      )

  def run(
    self,
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    key: jax.Array,
    part: Part = fresh,
  ) -> dict[str, Any]:
    """Finds the examples that stay correct, for every epsilon.

    Args:
      model: the classifier, on the devices.
      images: uint8 [N,H,W,C].
      labels: int32 [N].
      key: the attack's random starts come from it and the example's position
        alone.
      part: keeps what was measured for each epsilon (`cache.Parts.of`).

    Returns:
      `attack` (how the numbers were got); `by_epsilon`, a list of `epsilon`,
      `correct` (bool [N]), `total`, and where there are any the number
      `not_finite` of attacked images whose logits are not finite; and `checks`:
      `images`, numbers of `attack_checks`, and `warnings`, sentences.
    """
    batch = {"images": images, "labels": labels}
    rows = []
    for epsilon in map(float, self.epsilons):
      attack = self.attack.replace(
        epsilon=epsilon, step_size=epsilon * self.relative_step_size
      )
      shared = parallel.replicate((attack, key)) + (model,)
      measure = functools.partial(_robust, shared, batch, self.batch_size)
      found = part(str(epsilon), measure)
      row = {"epsilon": epsilon, "correct": found["correct"]}
      row |= {"total": len(labels)} | correctness.not_finite(found["finite"])
      rows.append(row)
    results = {"attack": self.describe(), "by_epsilon": rows}
    if self.check_images:
      results["checks"] = self._check(model, batch, key, rows)
    return results

  def _check(
    self,
    model: Classifier,
    batch: dict[str, np.ndarray],
    key: jax.Array,
    rows: list[dict[str, Any]],
  ) -> dict[str, Any]:
    """Signs that the attack fails, in numbers and sentences."""
    by_epsilon = {row["epsilon"]: row["correct"] for row in rows}
    right = clean.per_example(model, batch, self.batch_size)["correct"]
    some = {name: part[: self.check_images] for name, part in batch.items()}
    count, devices = len(some["labels"]), jax.device_count()
    # No more than is needed, and a multiple of the devices.
    size = min(self.batch_size, -(-count // devices) * devices)

    def measure(attack: Attack, epsilon: float) -> dict[str, np.ndarray]:
      attack = attack.replace(
        epsilon=epsilon, step_size=epsilon * self.relative_step_size
      )
      return _robust((*parallel.replicate((attack, key)), model), some, size)

    first = {epsilon: row[:count] for epsilon, row in by_epsilon.items()}
    checks, found = {"images": count}, []
    for numbers, sentences in (
      attack_checks.probe_model(model, some, size),
      attack_checks.probe(self.attack, first, right[:count], measure),
    ):
      checks |= numbers
      found += sentences
    norm = self.attack.norm
    found += attack_checks.sweep_warnings(right, by_epsilon, norm)
    return checks | {"warnings": found}

  def describe(self) -> dict[str, Any]:
    """How the numbers are got, for tables and titles."""
    return {
      "name": self.attack.label,
      "norm": self.attack.norm,
      "steps": self.attack.steps,
      "restarts": self.attack.restarts,
      "start": self.attack.start,
      "step_size": f"{self.relative_step_size:.3f} epsilon",
    }


@parallel.per_example
def _robust(
  shared: tuple[Attack, jax.Array, Classifier],
  positions: jax.Array,
  batch: dict[str, jax.Array],
) -> dict[str, jax.Array]:
  """`correct` and `finite`, the logits, of the attacked images, bools [b]."""
  attack, key, model = shared
  keys = keys_lib.per_example(key, positions)
  images, labels = dequantise(batch["images"]), batch["labels"]
  logits = model(attack(keys, images, labels, finite_gradients(model)))
  return {
    "correct": losses.correct(logits, labels),
    "finite": losses.finite(logits),
  }
