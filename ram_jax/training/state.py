"""The training state, which is passed from step to step."""

from typing import Any

import flax
import jax
from ml_collections import ConfigDict

from ram_jax.training import split


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
