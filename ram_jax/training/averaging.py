"""Averages of the weights over training: EMA and SWA.

EMA as in Rebuffi et al. (arXiv 2103.01946), SWA as in Izmailov et al. (arXiv
1803.05407). After each step, both compute `average = share * average +
(1 - share) * weights`, where `share` depends on the step.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

NAMES = ("none", "ema", "swa")
BATCH_NORM = ("copied", "averaged", "reestimated")


@dataclasses.dataclass(frozen=True)
class Averaging:
  """How a run averages its weights.

  Attributes:
    name: `none` (`update` is not called), `ema` or `swa`.
    decay: maximum weight of the old average in the EMA.
    start: fraction of training, from its beginning, during which the average is
      a copy of the weights.
    batch_norm: running statistics of the average: `copied` from the last
      weights, `averaged` like the weights, or `reestimated` after training.
    steps_per_epoch: steps in an epoch.
    total_steps: steps in the run.
  """

  name: str
  decay: float
  start: float
  batch_norm: str
  steps_per_epoch: int
  total_steps: int

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
    share = self._ema(step) if self.name == "ema" else self._swa(step)

    def mean(old: jax.Array, new: jax.Array) -> jax.Array:
      return share * old + (1 - share) * new

    if self.batch_norm == "averaged":
      batch_stats = jax.tree.map(mean, average["batch_stats"], batch_stats)
    params = jax.tree.map(mean, average["params"], params)
    return {"params": params, "batch_stats": batch_stats}

  def _ema(self, step: jax.Array) -> jax.Array:
    """Weight of the old average, where t counts steps after the start."""
    t = step - jnp.asarray(self.start * self.total_steps)
    return jnp.where(t < 0, 0, jnp.minimum(self.decay, (1 + t) / (10 + t)))

  def _swa(self, step: jax.Array) -> jax.Array:
    """Weight of the old average; epoch ends after the start count equally."""
    # With a margin for rounding: 0.7 of 30 epochs is less than 21.
    before = int(self.start * self.total_steps / self.steps_per_epoch + 1e-9)
    epochs = (step // self.steps_per_epoch - before).astype(float)
    ends = step % self.steps_per_epoch == 0
    share = jnp.where(ends, (epochs - 1) / jnp.maximum(epochs, 1), 1)
    return jnp.where(epochs < 1, 0, share)
