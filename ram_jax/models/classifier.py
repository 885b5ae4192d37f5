"""A network with its variables, and its forward pass over several views."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from ram_jax.models import layers
from ram_jax.models.batch_norm import MOMENTUM

VARIANCES = ("/var", ".running_var")  # suffixes of names in Flax and PyTorch
SHOWN = 6  # maximum number of names in a message


@flax.struct.dataclass
class Classifier:
  """A network as a function of images; a pytree whose leaves are variables.

  Pass it to jitted functions as an argument: closing over it would embed all
  weights in the program.

  Attributes:
    params: parameters of the module.
    batch_stats: running statistics of batch normalization.
    module: the network, `(images, train) -> logits`, with a method `features`.
    batch_norm: 'running' normalizes with the running statistics; 'batch' with
      those of the batch, without updating the running ones.
  """

  params: Any
  batch_stats: Any
  module: nn.Module = flax.struct.field(pytree_node=False)
  batch_norm: str = flax.struct.field(pytree_node=False, default="running")

  def __call__(self, images: jax.Array) -> jax.Array:
    """Logits [B, K] for images [B, H, W, C] in [0, 1]."""
    return self._apply(images, "__call__")

  def features(self, images: jax.Array) -> jax.Array:
    """Features [B, D] before the head for images [B, H, W, C] in [0, 1]."""
    return self._apply(images, "features")

  def _apply(self, images: jax.Array, method: str) -> jax.Array:
    variables = {"params": self.params, "batch_stats": self.batch_stats}
    if self.batch_norm == "running":
      return self.module.apply(variables, images, False, method=method)
    outputs, _ = self.module.apply(
      variables, images, True, method=method, mutable=["batch_stats"]
    )
    return outputs


@flax.struct.dataclass
class Ensemble:
  """The mean of the predicted probabilities of several classifiers.

  Attributes:
    members: the classifiers; their networks may differ.
  """

  members: tuple[Classifier, ...]

  def __call__(self, images: jax.Array) -> jax.Array:
    """Logarithms [B, K] of the mean probabilities; images as in Classifier."""
    logits = jnp.stack([member(images) for member in self.members])
    log_p = jax.nn.log_softmax(logits.astype(jnp.result_type(float)))
    return jax.nn.logsumexp(log_p, axis=0) - jnp.log(len(self.members))


def check_values(what: str, variables: Mapping[str, Any]) -> None:
  """Rejects variables with invalid values.

  Args:
    what: name of the variables, for the message.
    variables: arrays by name, possibly nested.

  Raises:
    ValueError: with the arrays that contain a NaN, a number that is infinite in
      the default float type, or a negative running variance, and with the first
      of these values.
  """
  found = []
  for path, array in traverse_util.flatten_dict(dict(variables)).items():
    name, values = "/".join(path), np.asarray(array)
    if values.dtype.kind != "f":  # a counter
      continue
    with np.errstate(over="ignore"):
      bad = ~np.isfinite(values.astype(jnp.result_type(float)))
    if name.endswith(VARIANCES):
      bad |= values < 0
    if bad.any():
      found.append(f"{name} ({bad.sum()} of {bad.size}, {values[bad][0]:.4g})")
  if found:
    raise ValueError(
      f"{what} cannot be used: {len(found)} array(s) with non-finite values or "
      f"negative running variances: {', '.join(found[:SHOWN])}"
      f"{' and more' * (len(found) > SHOWN)}: choose another file or checkpoint"
    )


def forward_views(
  module: nn.Module,
  params: Any,
  batch_stats: Any,
  views: tuple[jax.Array, ...],
  separate: bool,
  unroll: bool = False,
) -> tuple[tuple[jax.Array, ...], Any]:
  """The training forward pass over several views of a batch.

  Args:
    module: the network, `(images, train) -> logits`.
    params: parameters of the module.
    batch_stats: running statistics of batch normalization.
    views: images [B, H, W, C] in [0, 1], one array for each view.
    separate: True normalizes each view with its own statistics and updates the
      running ones view by view, like successive forward passes (the author's
      code); False normalizes all views with common statistics, like one forward
      pass over their concatenation (AugMix's code).
    unroll: whether to process separate views one after another, and to compute
      weight gradients over parts of the batch, which is faster on CPUs. Only
      changes rounding.

  Returns:
    Logits [B, K] of each view, and the new running statistics.
  """

  def forward(images: jax.Array) -> tuple[jax.Array, Any]:
    variables = {"params": params, "batch_stats": batch_stats}
    in_parts = nn.intercept_methods(layers.in_parts)
    with in_parts if unroll else contextlib.nullcontext():
      logits, update = module.apply(
        variables, images, True, mutable=["batch_stats"]
      )
    return logits, update["batch_stats"]

  if not separate or len(views) == 1:
    logits, new_stats = forward(jnp.concatenate(views))
    return tuple(jnp.split(logits, len(views))), new_stats
  if unroll:
    # Under jit, `forward` is traced once instead of once per view.
    logits, updates = zip(*map(jax.jit(forward), views), strict=True)
    updates = jax.tree.map(lambda *x: x, *updates)
  else:
    logits, updates = jax.vmap(forward)(jnp.stack(views))

  def chain(old: jax.Array, update: Iterable[jax.Array]) -> jax.Array:
    # Each update started from `old`; the difference is the view's contribution.
    new = old
    for view in update:
      new = MOMENTUM * new + (view - MOMENTUM * old)
    return new

  return tuple(logits), jax.tree.map(chain, batch_stats, updates)
