r"""Times the training attack, PGD-7: in a loop, unrolled, and in PyTorch.

python -m benchmarks.attack --models=resnet18:32,wrn_16_2:64
"""

from typing import Any

import jax
import numpy as np

from benchmarks import our_step, timing, torch_step
from ram_jax import losses
from ram_jax.attacks.pgd import Attack
from ram_jax.image.color import dequantize
from ram_jax.models.classifier import Classifier

STEPS = 7


def measure(model: str, batch: int, repeats: int) -> dict[str, Any]:
  """Times the attack on one network.

  Args:
    model: short name of the network.
    batch: batch size.
    repeats: number of rounds.

  Returns:
    Results of `timing.compare` for one input `gradient` (sides `pytorch`,
    `ours`, and `all_gradients`, which also computes the weight gradients that
    the attack does not need) and for the `attack` (sides `pytorch`, `ours`,
    which is unrolled, and `loop`).
  """
  step = our_step.build("adversarial", model, batch)
  pictures = timing.pictures(batch)
  theirs = torch_step.evaluation(step, STEPS)
  state = step.training.create()
  network = Classifier(state.params, state.batch_stats, step.module)
  images = dequantize(jax.numpy.asarray(pictures))
  labels = np.arange(batch, dtype=np.int32) % 10
  keys = jax.random.split(jax.random.key(0), batch)

  def loss(network: Classifier, x: jax.Array) -> jax.Array:
    return losses.cross_entropy(network(x), labels).sum()

  @jax.jit
  def run(attack: Attack, network: Classifier) -> jax.Array:
    return attack(keys, images, labels, network)

  pixels = jax.jit(jax.grad(loss, 1))
  everything = jax.jit(jax.grad(loss, (0, 1)))
  unrolled = Attack(1.0, 2.5 / 7, STEPS, start="sphere", unroll=True)
  loop = unrolled.replace(unroll=False)
  gradient = {
    "pytorch": theirs["gradient"],
    "ours": lambda: pixels(network, images),
    "all_gradients": lambda: everything(network, images),
  }
  attack = {
    "pytorch": theirs["attack"],
    "ours": lambda: run(unrolled, network),
    "loop": lambda: run(loop, network),
  }
  return {
    "gradient": timing.compare(gradient, repeats),
    "attack": timing.compare(attack, repeats),
  }


def main() -> None:
  """Times the attack on every network and writes the results."""
  models = "resnet18:32,wrn_16_2:64,wrn_50_2:8"
  flags = timing.parser(__doc__, models).parse_args()
  for model, batch in timing.networks(flags.models):
    row = measure(model, batch, flags.repeats)
    timing.add("attack", {"model": model, "batch": batch} | row, flags.out)


if __name__ == "__main__":
  main()
