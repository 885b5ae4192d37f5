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
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any


def create(
  module: nn.Module,
  optimizer: optax.GradientTransformation,
  image_shape: tuple[int, int, int],
  key: jax.Array,
) -> TrainState:
  """Initializes parameters, statistics and optimizer.

  Args:
    module: a model of `ram_jax.models`.
    optimizer: the run's optimizer.
    image_shape: (H, W, C) of the images.
    key: one key.

  Returns:
    The state before the first step.
  """
  variables = module.init(key, jnp.zeros((1, *image_shape)), train=False)
  return begin(optimizer, variables["params"], variables["batch_stats"])


def begin(
  optimizer: optax.GradientTransformation, params: Any, batch_stats: Any
) -> TrainState:
  """The state before the first step, from given variables.

  Args:
    optimizer: the run's optimizer.
    params: parameters of the model.
    batch_stats: running statistics of the model.

  Returns:
    The state.
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=batch_stats,
    opt_state=optimizer.init(params),
  )
