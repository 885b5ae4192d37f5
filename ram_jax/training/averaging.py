"""Averages of the weights over training: EMA and SWA.

EMA as in Rebuffi et al. (arXiv 2103.01946), SWA as in Izmailov et al. (arXiv
1803.05407). Both are `average = decay * average + (1 - decay) * weights` after
each step, with a decay that depends on the step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

NAMES = ("none", "ema", "swa")
BATCH_NORM = ("copied", "averaged", "reestimated")


@dataclasses.dataclass(frozen=True)
class Averaging:
  """How a run averages its weights.

  Attributes:
    decay: weight of the old average by the number of completed steps.
    batch_norm: running statistics of the average: `copied` from the last
      weights, `averaged` like the weights, or `reestimated` after training.
  """

  decay: Callable[[jax.Array], jax.Array]
  batch_norm: str

  def update(
    self, average: Any, params: Any, batch_stats: Any, step: jax.Array
  ) -> dict[str, Any]:
    """The average after a step.

    Args:
      average: `params` and `batch_stats` before the step.
      params: parameters after the step.
      batch_stats: running statistics after the step.
      step: number of completed steps, this one included.

    Returns:
      The new `params` and `batch_stats`.
    """
    decay = self.decay(step)

    def mean(old: jax.Array, new: jax.Array) -> jax.Array:
      return decay * old + (1 - decay) * new

    if self.batch_norm == "averaged":
      batch_stats = jax.tree.map(mean, average["batch_stats"], batch_stats)
    params = jax.tree.map(mean, average["params"], params)
    return {"params": params, "batch_stats": batch_stats}


def build(
  name: str,
  decay: float,
  start: float,
  batch_norm: str,
  steps_per_epoch: int,
  total_steps: int,
) -> Averaging | None:
  """Builds the averaging that a config describes.

  Args:
    name: `none`, `ema` or `swa`.
    decay: maximum decay of the EMA.
    start: share of the training during which the average is a copy.
    batch_norm: see `Averaging`.
    steps_per_epoch: steps in an epoch.
    total_steps: steps in the run.

  Returns:
    The averaging, None without one.
  """
  first = start * total_steps
  if name == "none":
    return None
  if name == "ema":
    return Averaging(_exponential(decay, first), batch_norm)
  return Averaging(_equal(first, steps_per_epoch), batch_norm)


def evaluated(config: ConfigDict) -> bool:
  """Whether a run's average is evaluated, not its last weights."""
  return config.average.name != "none" and config.evaluate.average


def _exponential(decay: float, first: float) -> Callable:
  """min(decay, (1 + t) / (10 + t)), t steps after `first`."""

  def schedule(step: jax.Array) -> jax.Array:
    since = step - jnp.asarray(first)
    growing = jnp.minimum(decay, (1 + since) / (10 + since))
    return jnp.where(since >= 0, growing, 0)

  return schedule


def _equal(first: float, steps_per_epoch: int) -> Callable:
  """Equal weights for the ends of all epochs after step `first`."""
  before = int(first // steps_per_epoch)

  def schedule(step: jax.Array) -> jax.Array:
    epochs = step // steps_per_epoch - before
    ends = step % steps_per_epoch == 0
    old = (epochs - 1) / jnp.maximum(epochs, 1).astype(jnp.result_type(float))
    return jnp.where(epochs < 1, 0, jnp.where(ends, old, 1))

  return schedule
