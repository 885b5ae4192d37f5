"""The parts of ram_jax's evaluation of one batch, as functions to be timed."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import our_step, timing
from ram_jax import parallel
from ram_jax.attacks.pgd import Attack
from ram_jax.corruptions import SEVERITIES
from ram_jax.evaluation import adversarial, clean, corruption
from ram_jax.models.classifier import Classifier

STEPS = 10


def parts(
  model: str, batch: int, names: tuple[str, ...]
) -> dict[str, Callable[[], Any]]:
  """Builds the parts of what `--mode=evaluate` runs for one batch.

  They start from uint8 images on the host, and return which images are
  classified correctly.

  Args:
    model: short name of the network.
    batch: batch size.
    names: corruptions to evaluate, at all severities.

  Returns:
    `clean`, `pgd` and, if there are names, `corruptions`: functions that block
    until their result is available.
  """
  step = our_step.build("standard", model, batch, **{"train.dtype": "float32"})
  images = timing.pictures(batch)
  labels = np.arange(batch, dtype=np.int32) % 10
  state = step.training.create()
  network = parallel.replicate(
    Classifier(state.params, state.batch_stats, step.module)
  )
  unroll = step.config.train.unroll
  attack = Attack(1.0, 1.0, STEPS, start="sphere", unroll=unroll)
  evaluators = {
    "clean": clean.Evaluator(batch),
    "pgd": adversarial.Evaluator(attack, (1.0,), 2.5 / 7, 0, batch),
  }
  if names:
    evaluators["corruptions"] = corruption.Evaluator(
      10, "", "", True, 0, "", names, SEVERITIES, batch, ("cifar_c",)
    )
  key = jax.random.key(0)
  data = {"images": images, "labels": labels}

  def run(evaluator: Any) -> Callable[[], list]:
    return lambda: list(evaluator.results(network, data, key, fresh))

  return {name: run(evaluator) for name, evaluator in evaluators.items()}


def fresh(name: str, compute: Callable[[], Any]) -> Any:
  """A cache that stores nothing."""
  del name
  return compute()
