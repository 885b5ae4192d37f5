"""SGD with Nesterov momentum and the reference's learning rate schedules."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

SCHEDULES = ("cosine_epoch", "cosine_step", "constant", "piecewise")


def learning_rate(
  name: str,
  peak: jax.Array | float,
  steps_per_epoch: int,
  epochs: int,
  warmup_epochs: float = 0,
) -> Callable[[jax.Array], jax.Array]:
  """Learning rate as a function of the number of completed steps.

  Args:
    name: `cosine_epoch` (as in the author's code: constant within an epoch,
      `CosineAnnealingLR` stepped per epoch, to 0), `cosine_step` (as in
      AugMix's code, stepped per batch), `constant`, or `piecewise` (divided
      by 10 after a half and after three quarters of the epochs, as in Rice et
      al. 2020).
    peak: learning rate of the first step without a warm-up, > 0; it may be
      traced.
    steps_per_epoch: steps in an epoch.
    epochs: epochs in the run.
    warmup_epochs: epochs in which it also rises linearly, from `peak` over
      their number of steps; 0 for none.

  Returns:
    A schedule for optax.

  Raises:
    ValueError: for an unknown name.
  """
  if name not in SCHEDULES:
    raise ValueError(
      f"unknown schedule {name!r}: choose one of {', '.join(SCHEDULES)} "
      "(config.optimizer.schedule)"
    )

  def schedule(step: jax.Array | int) -> jax.Array:
    rate = decayed(step)
    if not warmup_epochs:
      return rate
    return rate * jnp.minimum(1, (step + 1) / (warmup_epochs * steps_per_epoch))

  def decayed(step: jax.Array | int) -> jax.Array:
    if name == "constant":
      return jnp.asarray(peak)
    if name == "piecewise":
      ends = [epochs * steps_per_epoch * share for share in (0.5, 0.75)]
      return peak * 0.1 ** sum(jnp.where(step >= end, 1, 0) for end in ends)
    done = step // steps_per_epoch if name == "cosine_epoch" else step
    whole = epochs if name == "cosine_epoch" else epochs * steps_per_epoch
    return peak / 2 * (1 + jnp.cos(math.pi * done / whole))

  return schedule


def sgd(
  schedule: Callable[[jax.Array], jax.Array],
  momentum: float,
  nesterov: bool,
  weight_decay: float,
  decay_all: bool = True,
) -> optax.GradientTransformation:
  """The update rule of `torch.optim.SGD`.

  Args:
    schedule: learning rate by step.
    momentum: in [0, 1).
    nesterov: whether to use Nesterov momentum.
    weight_decay: coefficient of the L2 penalty's gradient, >= 0.
    decay_all: whether it applies to biases and BatchNorm's scales as well, as
      in the author's code.

  Returns:
    The transformation.
  """

  def chosen(params: Any) -> Any:
    return jax.tree.map(lambda x: decay_all or x.ndim > 1, params)

  return optax.chain(
    optax.add_decayed_weights(weight_decay, None if decay_all else chosen),
    optax.sgd(schedule, momentum=momentum, nesterov=nesterov),
  )


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """A run's SGD as a function of its learning rate; equal if all fields are.

  Attributes:
    schedule: see `learning_rate`.
    steps_per_epoch: see `learning_rate`.
    epochs: see `learning_rate`.
    momentum: see `sgd`.
    nesterov: see `sgd`.
    weight_decay: see `sgd`.
    decay_all: see `sgd`.
    warmup_epochs: see `learning_rate`.
  """

  schedule: str
  steps_per_epoch: int
  epochs: int
  momentum: float
  nesterov: bool
  weight_decay: float
  decay_all: bool
  warmup_epochs: float

  def rates(self, peak: jax.Array | float) -> Callable[[jax.Array], jax.Array]:
    """The schedule that starts at `peak`."""
    length = self.steps_per_epoch, self.epochs, self.warmup_epochs
    return learning_rate(self.schedule, peak, *length)

  def __call__(self, peak: jax.Array | float) -> optax.GradientTransformation:
    """The optimizer whose learning rate starts at `peak`."""
    decay = self.weight_decay, self.decay_all
    return sgd(self.rates(peak), self.momentum, self.nesterov, *decay)
