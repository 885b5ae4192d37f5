"""The training state, which is passed from step to step."""

from collections.abc import Mapping
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


def evaluated(config: ConfigDict, state: Mapping[str, Any]) -> dict[str, Any]:
  """The variables of the network that is evaluated.

  Args:
    config: the run's config.
    state: the fields of a `TrainState`, or those in a checkpoint.

  Returns:
    `params` and `batch_stats` of the averaged or the last weights, with a
    single set of BatchNorm variables.

  Raises:
    ValueError: if the state lacks them.
  """
  averaged = config.average.name != "none" and config.evaluate.average
  try:
    found = state["average"] if averaged else state
    variables = found["params"], found["batch_stats"]
    if chosen := split.build(config):
      variables = chosen.select(*variables, config.evaluate.batch_norm)
  except (KeyError, TypeError) as error:
    raise ValueError(
      f"the checkpoint lacks what this configuration needs ({error!r}): choose "
      "another --workdir"
    ) from error
  return dict(zip(("params", "batch_stats"), variables, strict=True))
