"""Target classes of a targeted attack, the most promising first."""

import jax
import jax.numpy as jnp

from ram_jax.attacks.norms import l2_norm
from ram_jax.contracts import Model

# For each norm of perturbations, the dual norm of gradients [B,H,W,C].
_DUAL_NORMS = {
  "l2": lambda x: l2_norm(x).ravel(),
  "linf": lambda x: jnp.sum(jnp.abs(x), axis=(1, 2, 3)),
}


def by_logit(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Ranks all classes except the label by logit, as AutoAttack does.

  Args:
    logits: scores [B, K] of the clean images.
    labels: integer classes [B].

  Returns:
    Classes [B, K-1], the largest logit first.
  """
  return _ranked(-logits, labels)


def by_distance(
  model: Model, images: jax.Array, labels: jax.Array, norm: str = "l2"
) -> jax.Array:
  """Ranks all classes except the label by distance to their decision boundary.

  The distance, in a linear approximation, is the absolute margin to the class
  over the dual norm of the margin's gradient (FAB; with the L2 norm also MALT:
  Melamed et al., NeurIPS 2024). The Jacobian needs the memory of K simultaneous
  backward passes.

  Args:
    model: images -> logits [B, K], each example independently.
    images: pixels [B, H, W, C] in [0, 1].
    labels: integer classes [B].
    norm: norm of the distance, "l2" or "linf".

  Returns:
    Classes [B, K-1], the nearest first.
  """
  logits, pull_back = jax.vjp(lambda x: model(x), images)
  count = logits.shape[-1]
  own = jax.nn.one_hot(labels, count, dtype=logits.dtype)

  def length(other: jax.Array) -> jax.Array:
    (gradient,) = pull_back(own - other)
    return _DUAL_NORMS[norm](gradient)

  lengths = jax.vmap(length)(jnp.eye(count, dtype=logits.dtype)).T
  margins = jnp.take_along_axis(logits, labels[:, None], axis=-1) - logits
  tiny = float(jnp.finfo(logits.dtype).tiny)
  return _ranked(jnp.abs(margins) / jnp.maximum(lengths, tiny), labels)


def _ranked(costs: jax.Array, labels: jax.Array) -> jax.Array:
  """Classes [B, K-1] other than the labels, by ascending costs [B, K]."""
  largest = float(jnp.finfo(costs.dtype).max)
  costs = jnp.nan_to_num(costs, nan=largest, posinf=largest)
  own = jnp.arange(costs.shape[-1]) == labels[:, None]
  return jnp.argsort(jnp.where(own, jnp.inf, costs), axis=-1)[:, :-1]
