"""Losses per example: cross-entropy, and divergences between predictions."""

import jax
import jax.numpy as jnp

# AugMix's code and the author's clamp the mixture to [1e-7, 1] before the log.
MIXTURE_FLOOR = 1e-7


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Cross-entropy of the softmax of logits, per example.

  Args:
    logits: scores [B, K].
    targets: integer classes [B], or probabilities [B, K].

  Returns:
    Losses [B] in nats, finite for every finite input.
  """
  log_p = _log_softmax(logits)
  if targets.shape == logits.shape:
    return -jnp.sum(targets * log_p, axis=-1)
  return -jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]


def smooth(targets: jax.Array, classes: int, share: float) -> jax.Array:
  """Label smoothing, as in torch.nn.CrossEntropyLoss.

  Args:
    targets: integer classes [B], or probabilities [B, K].
    classes: number of classes K.
    share: weight of the uniform distribution in the result, in [0, 1].

  Returns:
    Probabilities [B, K].
  """
  if targets.ndim == 1:
    targets = one_hot(targets, classes)
  return (1 - share) * targets + share / classes


def one_hot(labels: jax.Array, classes: int) -> jax.Array:
  """Classes [B] as probabilities [B, K] in the default float type."""
  return jax.nn.one_hot(labels, classes, dtype=jnp.result_type(float))


def correct(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Whether the target has the largest logit.

  Args:
    logits: scores [B, K].
    targets: integer classes [B], or probabilities [B, K].

  Returns:
    Booleans [B]; False if a logit is NaN or infinite, because argmax would
    return the first NaN as the prediction.
  """
  labels = targets
  if targets.ndim == logits.ndim:
    labels = jnp.argmax(targets, axis=-1)
  return finite(logits) & (jnp.argmax(logits, axis=-1) == labels)


def finite(logits: jax.Array) -> jax.Array:
  """Whether all logits [B, K] of an example are finite, booleans [B]."""
  return jnp.all(jnp.isfinite(logits), axis=-1)


def jensen_shannon(*logits: jax.Array) -> jax.Array:
  """Exact Jensen-Shannon divergence between softmax distributions.

  (1/n) sum_i KL(p_i || M), where M is the mean of the n distributions, as in
  AugMix (arXiv 1912.02781, equation 2) and RobustAugMix. It is computed from
  log-probabilities, so that 0 log 0 and its gradient are 0 without a clamp.

  Args:
    *logits: two or more arrays of scores [B, K].

  Returns:
    Divergences [B] in nats, between 0 and log(n).
  """
  log_p = _log_softmax(jnp.stack(logits))
  log_mixture = jax.nn.logsumexp(log_p, axis=0) - jnp.log(len(logits))
  return _mean_divergence(log_p, log_mixture)


def clamped_jensen_shannon(*logits: jax.Array) -> jax.Array:
  """Jensen-Shannon divergence with the mixture clamped to [1e-7, 1].

  This is the version in google-research/augmix `cifar.py` and in the author's
  code. It differs from the exact divergence where the mean probability is below
  1e-7. Unlike in those implementations, the value and the gradient are finite
  even if a probability underflows.

  Args:
    *logits: two or more arrays of scores [B, K].

  Returns:
    Divergences [B] in nats.
  """
  log_p = _log_softmax(jnp.stack(logits))
  mixture = jnp.clip(jnp.mean(jnp.exp(log_p), axis=0), MIXTURE_FLOOR, 1.0)
  return _mean_divergence(log_p, jnp.log(mixture))


def kullback_leibler(logits: jax.Array, others: jax.Array) -> jax.Array:
  """KL(p || q) of two softmax distributions.

  Args:
    logits: scores [B, K] of p.
    others: scores [B, K] of q.

  Returns:
    Divergences [B] in nats, at least 0 up to rounding.
  """
  return _mean_divergence(_log_softmax(logits)[None], _log_softmax(others))


def _log_softmax(logits: jax.Array) -> jax.Array:
  """Log-probabilities in the default float type, whatever the logits' type."""
  return jax.nn.log_softmax(logits.astype(jnp.result_type(float)), axis=-1)


def _mean_divergence(log_p: jax.Array, log_mixture: jax.Array) -> jax.Array:
  """Mean over n of KL(p_i || mixture); exp(log p) may underflow to 0."""
  terms = jnp.exp(log_p) * (log_p - log_mixture)
  return _mean(jnp.sum(terms, axis=-1))


@jax.custom_vjp
def _mean(values: jax.Array) -> jax.Array:
  """Mean over n of values [n, B]; its gradient is divided by n exactly.

  The compiler turns a division by a constant into a multiplication, unless the
  numerator is also a constant. With the barrier, the gradient of a weighted
  loss is bit-identical whether the weight is a constant or an argument.
  """
  return jnp.mean(values, axis=0)


def _mean_gradient(values: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
  count = jax.lax.optimization_barrier(jnp.asarray(len(values), gradient.dtype))
  return (jnp.broadcast_to(gradient / count, values.shape),)


_mean.defvjp(lambda values: (jnp.mean(values, axis=0), values), _mean_gradient)
