"""SGD with Nesterov momentum and the reference's learning rate schedules."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

SCHEDULES = ("cosine_epoch", "cosine_step", "constant")


def learning_rate(
  name: str, peak: jax.Array | float, steps_per_epoch: int, epochs: int
) -> Callable[[jax.Array], jax.Array]:
  """Learning rate as a function of the number of completed steps.

  Args:
    name: `cosine_epoch` (as in the author's code: constant within an epoch,
      `CosineAnnealingLR` stepped per epoch, to 0), `cosine_step` (as in
      AugMix's code, stepped per batch) or `constant`.
    peak: learning rate of the first step, > 0; it may be traced.
    steps_per_epoch: steps in an epoch.
    epochs: epochs in the run.

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

  def schedule(step: jax.Array) -> jax.Array:
    if name == "constant":
      return jnp.asarray(peak)
    done = step // steps_per_epoch if name == "cosine_epoch" else step
    whole = epochs if name == "cosine_epoch" else epochs * steps_per_epoch
    return peak / 2 * (1 + jnp.cos(math.pi * done / whole))

  return schedule


def sgd(
  schedule: Callable[[jax.Array], jax.Array],
  momentum: float,
  nesterov: bool,
  weight_decay: float,
) -> optax.GradientTransformation:
  """The update rule of `torch.optim.SGD`; weight decay on every parameter.

  Args:
    schedule: learning rate by step.
    momentum: in [0, 1).
    nesterov: whether to use Nesterov momentum.
    weight_decay: coefficient of the L2 penalty's gradient, >= 0. It also
      applies to BatchNorm's scales and biases, as in the author's code.

  Returns:
    The transformation.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
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
  """

  schedule: str
  steps_per_epoch: int
  epochs: int
  momentum: float
  nesterov: bool
  weight_decay: float

  def rates(self, peak: jax.Array | float) -> Callable[[jax.Array], jax.Array]:
    """The schedule that starts at `peak`."""
    return learning_rate(self.schedule, peak, self.steps_per_epoch, self.epochs)

  def __call__(self, peak: jax.Array | float) -> optax.GradientTransformation:
    """The optimizer whose learning rate starts at `peak`."""
    return sgd(
      self.rates(peak), self.momentum, self.nesterov, self.weight_decay
    )
