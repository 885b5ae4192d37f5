"""The training state, which is passed from step to step."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn


@flax.struct.dataclass
class TrainState:
  """The state in a checkpoint; without keys and device axis.

  Attributes:
    step: number of updates so far, int32.
    params: trained parameters.
    batch_stats: BatchNorm's running means and (unbiased) variances.
    opt_state: the optimizer's state (momentum, step count).
    average: averaged `params` and `batch_stats`; None without averaging.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  average: Any = None


def create(
  module: nn.Module,
  optimizer: optax.GradientTransformation,
  image_shape: tuple[int, int, int],
  averaged: bool,
  key: jax.Array,
) -> TrainState:
  """Initializes parameters, statistics and optimizer.

  Args:
    module: a model of `ram_jax.models`.
    optimizer: the run's optimizer.
    image_shape: (H, W, C) of the images.
    averaged: whether the run averages its weights.
    key: one key.

  Returns:
    The state before the first step.
  """
  variables = module.init(key, jnp.zeros((1, *image_shape)), train=False)
  chosen = variables["params"], variables["batch_stats"]
  return begin(optimizer, *chosen, averaged=averaged)


def begin(
  optimizer: optax.GradientTransformation,
  params: Any,
  batch_stats: Any,
  averaged: bool = False,
) -> TrainState:
  """The state before the first step, from given variables.

  Args:
    optimizer: the run's optimizer.
    params: parameters of the model.
    batch_stats: running statistics of the model.
    averaged: whether the run averages its weights.

  Returns:
    The state.
  """
  average = {"params": params, "batch_stats": batch_stats}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=batch_stats,
    opt_state=optimizer.init(params),
    average=jax.tree.map(jnp.copy, average) if averaged else None,
  )
