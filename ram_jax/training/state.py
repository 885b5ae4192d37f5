"""The training state, which is passed from step to step."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from ram_jax.training import split
from ram_jax.training.split import Split


@flax.struct.dataclass
class TrainState:
  """The state in a checkpoint; it contains no keys and has no device axis.

  Attributes:
    step: number of updates so far, int32.
    params: trained parameters.
    batch_stats: BatchNorm's running means and (unbiased) variances.
    opt_state: the optimizer's state (momentum, step count).
    average: averaged `params` and `batch_stats`; None without averaging.

  With a split BatchNorm, parameters and statistics are those of `Split.double`.
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
  doubled: Split | None,
  averaged: bool,
  key: jax.Array,
) -> TrainState:
  """Initializes parameters, statistics and optimizer.

  Args:
    module: a model of `ram_jax.models`.
    optimizer: the run's optimizer.
    image_shape: (H, W, C) of the images.
    doubled: how BatchNorm is split, if it is.
    averaged: whether the run averages its weights.
    key: random key for the initial parameters.

  Returns:
    The state before the first step.
  """
  variables = module.init(key, jnp.zeros((1, *image_shape)), train=False)
  chosen = variables["params"], variables["batch_stats"]
  if doubled:
    chosen = doubled.double(*chosen)
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


def saved(config: ConfigDict, params: Any, batch_stats: Any) -> dict[str, Any]:
  """The part of a run's state that is evaluated.

  Args:
    config: the run's config.
    params: parameters of the network, or their shapes.
    batch_stats: its running statistics, or their shapes.

  Returns:
    A tree with the same structure as in a checkpoint.
  """
  if chosen := split.build(config):
    params, batch_stats = chosen.double(params, batch_stats)
  variables = {"params": params, "batch_stats": batch_stats}
  if _averaged(config):
    variables = {"average": variables}
  return {"step": 0} | variables


def evaluated(config: ConfigDict, state: Any) -> tuple[Any, Any]:
  """Parameters and running statistics of the network that is evaluated.

  Args:
    config: the run's config.
    state: a `TrainState`, or an object with the tree of `saved`.

  Returns:
    Those of the averaged or the last weights, with a single set of BatchNorm
    variables.
  """
  found = state.average if _averaged(config) else vars(state)
  variables = found["params"], found["batch_stats"]
  if chosen := split.build(config):
    variables = chosen.select(*variables, config.evaluate.batch_norm)
  return variables


def _averaged(config: ConfigDict) -> bool:
  return config.average.name != "none" and config.evaluate.average
