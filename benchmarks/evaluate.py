r"""Evaluation, clean and under PGD-10, beside PyTorch in eager mode.

    python -m benchmarks.evaluate --models=resnet18:64,wrn_16_2:128

Ours is what `--mode=evaluate` runs, from uint8 images on the host to bits.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import our_step, timing, torch_step
from ram_jax import parallel
from ram_jax.attacks.pgd import Attack
from ram_jax.evaluation import adversarial, clean
from ram_jax.models.classifier import Classifier

STEPS = 10


def measure(model: str, batch: int, repeats: int) -> dict[str, Any]:
  """One network.

  Args:
    model: its short name.
    batch: images at once.
    repeats: rounds.

  Returns:
    Images a second by side and the ratio, `clean` and of `pgd`.
  """
  step = our_step.build("standard", model, batch, **{"train.dtype": "float32"})
  images = timing.pictures(batch)
  labels = np.arange(batch, dtype=np.int32) % 10
  theirs = torch_step.evaluation(step, images, STEPS)
  state = step.training.create()
  network = parallel.replicate(
    Classifier(state.params, state.batch_stats, step.module)
  )
  attack = Attack(
    1.0, 1.0, STEPS, start="sphere", unroll=step.config.train.unroll
  )
  pgd = adversarial.Evaluator(attack, (1.0,), 2.5 / 7, 0, batch)
  key = jax.random.key(0)
  row = {}
  for name, their, ours in (
    ("clean", "clean", lambda: clean.evaluate(network, images, labels, batch)),
    (
      "pgd",
      "attack",
      lambda: list(pgd.results(network, images, labels, key, fresh)),
    ),
  ):
    sides = {"pytorch": theirs[their], "ours": ours}
    # Elsewhere every product of the evaluation is of full precision too.
    with jax.default_matmul_precision("highest"):
      found = timing.compare(sides, repeats)
    row[name] = {side: batch / found[side]["seconds"] for side in sides} | {
      "ratio": found["ours"]["ratio"]
    }
  return row


def fresh(name: str, compute: Callable[[], Any]) -> Any:
  """A cache that stores nothing."""
  del name
  return compute()


if __name__ == "__main__":
  title = __doc__.partition("\n")[0]
  models = "resnet18:64,wrn_16_2:128,wrn_50_2:8"
  timing.over_networks("evaluate", title, models, measure)
