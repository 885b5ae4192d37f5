"""Shared by iterative attacks: checks of fields, and complete runs."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ram_jax import losses
from ram_jax.attacks.norms import NORMS
from ram_jax.contracts import IterativeAttack, Model

# AutoAttack's targeted attacks use the 2nd to 10th most likely classes.
LAST_RANK = 10


def check_fields(norm: str, epsilon: Any, steps: Any) -> None:
  """Rejects invalid fields.

  Args:
    norm: name of a norm.
    epsilon: radius; not checked if it is traced.
    steps: iterations.

  Raises:
    ValueError: naming the field.
  """
  if norm not in NORMS:
    raise ValueError(
      f"norm {norm!r} does not exist: choose one of {sorted(NORMS)}"
    )
  if not isinstance(steps, int) or steps < 1:
    raise ValueError(
      f"steps {steps!r} is not possible: give a whole number, at least 1"
    )
  # JAX rebuilds pytrees with tracers and placeholders as leaves.
  if isinstance(epsilon, float | int) and not 0 <= epsilon < math.inf:
    raise ValueError(
      f"epsilon {epsilon} is not a size: give a finite number of at least 0, "
      "in pixel units"
    )


def run(
  attack: IterativeAttack,
  keys: jax.Array,
  images: jax.Array,
  labels: jax.Array,
  model: Model,
  unroll: bool,
) -> jax.Array:
  """Runs all steps of an untargeted attack.

  Args:
    attack: the attack.
    keys: keys [B].
    images: floats [B,H,W,C] in [0,1].
    labels: integer classes [B].
    model: the model under attack.
    unroll: unroll the loop, for CPUs.

  Returns:
    Floats [B,H,W,C]; a misclassified image is unchanged.
  """
  wrong = ~losses.correct(model(images), labels)
  found, _ = _run(attack, keys, images, labels, labels, model, unroll)
  return jnp.where(_column(wrong), images, found)


def run_targets(
  attack: IterativeAttack,
  keys: jax.Array,
  images: jax.Array,
  labels: jax.Array,
  model: Model,
  unroll: bool,
) -> jax.Array:
  """Runs a targeted attack once for every target, the most likely first.

  Args:
    attack: the attack.
    keys: keys [B].
    images: floats [B,H,W,C] in [0,1].
    labels: integer classes [B].
    model: the model under attack.
    unroll: unroll the loops, for CPUs.

  Returns:
    Floats [B,H,W,C]: the result for the first successful target; a
    misclassified image is unchanged.
  """
  logits = model(images)
  ranked = targets(logits)

  def try_target(i: jax.Array | int, best: tuple) -> tuple:
    adversarial, found = best
    target = ranked[:, i]
    new, hit = _run(attack, keys, images, labels, target, model, unroll)
    take = hit & ~found
    return jnp.where(_column(take), new, adversarial), found | take

  best = (images, ~losses.correct(logits, labels))
  return repeat(0, ranked.shape[1], try_target, best, unroll)[0]


def targets(logits: jax.Array) -> jax.Array:
  """The target classes of a targeted attack.

  Args:
    logits: scores [B, K] of the clean images.

  Returns:
    Classes [B, R], the 2nd to 10th most likely ones, in this order; fewer if
    there are fewer classes.
  """
  last = min(LAST_RANK, logits.shape[-1])
  return jax.lax.top_k(logits, last)[1][:, 1:]


def repeat(
  first: int, last: int, body: Callable, value: Any, unroll: bool
) -> Any:
  """Applies a function repeatedly.

  Args:
    first: first value of i.
    last: value of i at which to stop.
    body: (i, value) -> value.
    value: the first one, a pytree.
    unroll: unroll the loop, for CPUs, where convolutions inside XLA loops are
      slow.

  Returns:
    The last value.
  """
  if not unroll:
    return jax.lax.fori_loop(first, last, body, value)
  body = jax.jit(body)  # Traced once, not once a step.
  for i in range(first, last):
    value = body(i, value)
  return value


def _run(
  attack: IterativeAttack,
  keys: jax.Array,
  images: jax.Array,
  labels: jax.Array,
  target: jax.Array,
  model: Model,
  unroll: bool,
) -> tuple[jax.Array, jax.Array]:
  """Images and whether they are adversarial, after all steps."""
  state = attack.start(keys, images, labels, target, model)
  state = repeat(
    0, attack.steps, lambda _, s: attack.step(s, model), state, unroll
  )
  return attack.images(state), attack.found(state)


def _column(flags: jax.Array) -> jax.Array:
  """Flags [B] that broadcast against images."""
  return flags[:, None, None, None]
