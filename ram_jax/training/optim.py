"""SGD with (Nesterov) momentum, and its learning-rate schedules."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ram_jax import checks

SCHEDULES = ("cosine_epoch", "cosine_step", "constant", "piecewise")


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """SGD as a function of the peak learning rate; compared by its fields.

  Attributes:
    schedule: `cosine_epoch` (as in the author's code: constant within an epoch,
      `CosineAnnealingLR` stepped per epoch, to 0), `cosine_step` (as in
      AugMix's code, stepped per batch), `constant`, or `piecewise` (divided by
      10 halfway through the epochs and again after three quarters, as in Rice
      et al. 2020).
    steps_per_epoch: steps in an epoch.
    epochs: epochs in the run.
    momentum: in [0, 1).
    nesterov: whether to use Nesterov momentum.
    weight_decay: coefficient of the L2 penalty's gradient, >= 0.
    decay_all: whether it applies to biases and BatchNorm's scales as well, as
      in the author's code.
    warmup_epochs: number of epochs during which the rate is also multiplied by
      a factor that rises linearly to 1; 0 for none.

  Raises:
    ValueError: for an unknown schedule.
  """

  schedule: str
  steps_per_epoch: int
  epochs: int
  momentum: float
  nesterov: bool
  weight_decay: float
  decay_all: bool
  warmup_epochs: float

  def __post_init__(self) -> None:
    known = checks.one_of(*SCHEDULES)
    checks.check(vars(self), "config.optimizer.", schedule=known)

  def rate(self, peak: jax.Array | float, step: jax.Array | int) -> jax.Array:
    """The learning rate after `step` steps; without warm-up, `peak` at 0."""
    rate = self._decayed(peak, step)
    if not self.warmup_epochs:
      return rate
    steps = self.warmup_epochs * self.steps_per_epoch
    return rate * jnp.minimum(1, (step + 1) / steps)

  def _decayed(
    self, peak: jax.Array | float, step: jax.Array | int
  ) -> jax.Array:
    steps = self.epochs * self.steps_per_epoch
    if self.schedule == "constant":
      return jnp.asarray(peak)
    if self.schedule == "piecewise":
      ends = [steps * share for share in (0.5, 0.75)]
      return peak * 0.1 ** sum(jnp.where(step >= end, 1, 0) for end in ends)
    done, whole = step, steps
    if self.schedule == "cosine_epoch":
      done, whole = step // self.steps_per_epoch, self.epochs
    return peak / 2 * (1 + jnp.cos(math.pi * done / whole))

  def __call__(self, peak: jax.Array | float) -> optax.GradientTransformation:
    """The update rule of `torch.optim.SGD`, with this peak learning rate."""

    def chosen(params: Any) -> Any:
      return jax.tree.map(lambda x: x.ndim > 1, params)

    return optax.chain(
      optax.add_decayed_weights(
        self.weight_decay, None if self.decay_all else chosen
      ),
      optax.sgd(
        functools.partial(self.rate, peak),
        momentum=self.momentum,
        nesterov=self.nesterov,
      ),
    )
