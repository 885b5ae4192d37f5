"""Accuracy under attack, for several epsilons."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import numpy as np

from ram_jax import checks, contracts, parallel
from ram_jax import keys as keys_lib
from ram_jax.attacks.pgd import Attack, finite_gradients
from ram_jax.contracts import Batch, Cache, Note, Row, Setting
from ram_jax.evaluation import attack_checks, clean, precision, rows
from ram_jax.image.color import dequantize
from ram_jax.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Evaluator(contracts.Evaluator):
  """Accuracy against epsilon (paper, figure 2).

  Attributes:
    attack: its epsilon and step size are replaced by those of the sweep.
    epsilons: radii of the attack's ball, for pixels in [0,1].
    relative_step_size: step size in units of epsilon.
    check_images: number of test images, from the start of the test set, on
      which the attack itself is checked; all if there are fewer; 0: no check.
    batch_size: examples per batch, over all devices; does not change results.
    precision: precision of the attack's search, see `precision.py`.
  """

  attack: Attack
  epsilons: tuple[float, ...]
  relative_step_size: float
  check_images: int
  batch_size: int
  precision: str = precision.FULL

  def __post_init__(self) -> None:
    if not isinstance(self.attack, Attack):
      raise ValueError(
        "attack: this evaluator supports only pgd; use the autoattack "
        "evaluator for others (docs/autoattack.md)"
      )
    some = "one or more finite numbers, each at least 0"
    checks.check(
      vars(self),
      epsilons=(some, lambda v: v and all(0 <= e < np.inf for e in v)),
      relative_step_size=checks.POSITIVE,
      check_images=checks.integer(0),
    )

  def results(
    self, model: Classifier, batch: Batch, key: jax.Array, cache: Cache
  ) -> Iterator[Row | Note]:
    """Yields a row per epsilon, then the checks of the attack.

    Args:
      model: the classifier, on the devices.
      batch: `images` uint8 [N,H,W,C] and `labels` int32 [N].
      key: source of the attack's random starts, together with an example's
        position.
      cache: stores the results for each epsilon.

    Yields:
      See `contracts.Evaluator`.
    """
    search = precision.Searched(model, self.precision)
    by_epsilon = {}
    for epsilon in map(float, self.epsilons):
      shared = (*parallel.replicate((self._sized(epsilon), key)), search)
      attack = functools.partial(robust, shared, batch, self.batch_size)
      found = cache(str(epsilon), attack)
      by_epsilon[epsilon] = found["correct"]
      yield rows.row("adversarial", self.settings(epsilon), found)
    if self.check_images:
      yield from self._check(model, batch, key, by_epsilon)

  def _sized(self, epsilon: float) -> Attack:
    step_size = epsilon * self.relative_step_size
    return self.attack.replace(epsilon=epsilon, step_size=step_size)

  def _check(
    self,
    model: Classifier,
    batch: Batch,
    key: jax.Array,
    by_epsilon: dict[float, np.ndarray],
  ) -> Iterator[Row | Note]:
    """Checks for signs that the attack fails."""
    right = clean.per_example(model, batch, self.batch_size)["correct"]
    some = {name: part[: self.check_images] for name, part in batch.items()}
    search = precision.Searched(model, self.precision)
    count, devices = len(some["labels"]), jax.device_count()
    # No larger than necessary, and a multiple of the number of devices.
    size = min(self.batch_size, -(-count // devices) * devices)

    def attacked(attack: Attack, epsilon: float) -> dict[str, np.ndarray]:
      sized = dataclasses.replace(self, attack=attack)._sized(epsilon)
      return robust((*parallel.replicate((sized, key)), search), some, size)

    first = {epsilon: row[:count] for epsilon, row in by_epsilon.items()}
    yield from attack_checks.probe_model(self.attack, model, some, size)
    yield from attack_checks.probe(self.attack, first, right[:count], attacked)
    yield from attack_checks.sweep_warnings(self.attack, right, by_epsilon)

  def settings(self, epsilon: float) -> dict[str, Setting]:
    """Settings of the row of an epsilon."""
    return {
      "attack": self.attack.label,
      "norm": self.attack.norm,
      "steps": self.attack.steps,
      "restarts": self.attack.restarts,
      "start": self.attack.start,
      "relative_step_size": self.relative_step_size,
      "epsilon": epsilon,
    }


@parallel.per_example
def robust(
  shared: tuple[Attack, jax.Array, precision.Searched],
  positions: jax.Array,
  batch: dict[str, jax.Array],
) -> dict[str, jax.Array]:
  """Attacks a batch.

  Args:
    shared: the attack, the evaluation's key and the classifier. The attacked
      images are classified in the ambient precision.
    positions: positions in the test set, int32 [b].
    batch: `images` uint8 [b,H,W,C] and `labels` int32 [b].

  Returns:
    `correct` and `finite` (logits) of the attacked images, bools [b].
  """
  attack, key, search = shared
  keys = keys_lib.per_example(key, positions)
  images, labels = dequantize(batch["images"]), batch["labels"]
  attacked = attack(keys, images, labels, finite_gradients(search))
  return clean.judged(search.model(attacked), labels)
