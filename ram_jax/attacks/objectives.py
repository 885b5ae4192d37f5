"""Objectives that attacks maximize: functions of logits and classes.

Except for the cross-entropy, they are above 0 only for misclassified examples.
The two DLR losses are invariant to scaling of the logits, so their gradients do
not vanish where the softmax saturates (Croce and Hein, arXiv 2003.01690).
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from ram_jax import losses

# Added to the denominators of the DLR losses, as in auto-attack.
_SMALL = 1e-12


def margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Largest logit of another class minus that of the label.

  Args:
    logits: scores [B, K], two or more classes.
    labels: integer classes [B].

  Returns:
    Margins [B] in the default float type, above 0 if misclassified.

  Raises:
    ValueError: if labels are not classes, or there are too few classes.
  """
  logits = _scores(logits, labels, 2, "margin")
  others = jnp.where(_is_class(logits, labels), -jnp.inf, logits)
  return jnp.max(others, axis=-1) - of_class(logits, labels)


def dlr(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Difference of logits ratio: the margin over z_(1) - z_(3).

  z_(k) is the k-th largest logit.

  Args:
    logits: scores [B, K], three or more classes.
    labels: integer classes [B].

  Returns:
    Losses [B] in the default float type, at least -1.

  Raises:
    ValueError: if labels are not classes, or there are too few classes.
  """
  logits = _scores(logits, labels, 3, "dlr")
  top, _ = jax.lax.top_k(logits, 3)
  return margin(logits, labels) / (top[:, 0] - top[:, 2] + _SMALL)


def targeted_dlr(
  logits: jax.Array, labels: jax.Array, targets: jax.Array
) -> jax.Array:
  """Target's logit minus the label's, over z_(1) - (z_(3) + z_(4)) / 2.

  z_(k) is the k-th largest logit.

  Args:
    logits: scores [B, K], four or more classes.
    labels: integer classes [B].
    targets: integer classes [B] to aim at, other than the labels.

  Returns:
    Losses [B] in the default float type.

  Raises:
    ValueError: if labels are not classes, or there are too few classes.
  """
  logits = _scores(logits, labels, 4, "targeted_dlr")
  top, _ = jax.lax.top_k(logits, 4)
  scale = top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _SMALL
  return (of_class(logits, targets) - of_class(logits, labels)) / scale


# By name: (logits [B, K], labels [B]) -> [B]. The cross-entropy also takes
# probabilities [B, K] in place of labels.
OBJECTIVES: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "cross_entropy": losses.cross_entropy,
  "dlr": dlr,
  "margin": margin,
}


def _scores(
  logits: jax.Array, labels: jax.Array, least: int, name: str
) -> jax.Array:
  """Checks logits and labels; casts logits to the default float type."""
  if logits.shape[-1] < least:
    raise ValueError(
      f"objective {name!r} needs at least {least} classes, not "
      f"{logits.shape[-1]}: choose another"
    )
  integer = jnp.issubdtype(labels.dtype, jnp.integer)
  if labels.shape != logits.shape[:-1] or not integer:
    raise ValueError(
      f"objective {name!r} needs integer classes [B], not targets of shape "
      f"{labels.shape} and dtype {labels.dtype} for logits {logits.shape}"
    )
  return logits.astype(jnp.result_type(float))


def _is_class(logits: jax.Array, classes: jax.Array) -> jax.Array:
  """Mask of the classes [B], bool [B, K]."""
  return jnp.arange(logits.shape[-1]) == classes[:, None]


def of_class(logits: jax.Array, classes: jax.Array) -> jax.Array:
  """Logits [B] of the classes [B]."""
  return jnp.take_along_axis(logits, classes[:, None], axis=-1)[:, 0]
