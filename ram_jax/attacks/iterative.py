"""What attacks of many steps share: checks of fields, and complete runs."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ram_jax import losses
from ram_jax.attacks.norms import NORMS
from ram_jax.contracts import IterativeAttack, Model

# Targeted attacks of AutoAttack aim at the 2nd to 10th most likely class.
LAST_RANK = 10


def check_fields(norm: str, epsilon: Any, steps: Any) -> None:
  """Rejects fields with which no attack is possible.

  Args:
    norm: name of a norm.
    epsilon: radius; not checked where it is traced.
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
      f"steps {steps!r} is not possible: give a whole number, 1 or more"
    )
  # jax rebuilds pytrees with tracers and placeholders in the leaves' place.
  if isinstance(epsilon, float | int) and not 0 <= epsilon < math.inf:
    raise ValueError(
      f"epsilon {epsilon} is not a size: give a number of pixel units, "
      "0 or more and finite"
    )


def run(
  attack: IterativeAttack,
  keys: jax.Array,
  images: jax.Array,
  labels: jax.Array,
  model: Model,
  unroll: bool,
) -> jax.Array:
  """Runs all steps of an attack without targets.

  Args:
    attack: the attack.
    keys: keys [B].
    images: floats [B,H,W,C] in [0,1].
    labels: integer classes [B].
    model: the model under attack.
    unroll: write the loop out, for CPUs.

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
    unroll: write the loops out, for CPUs.

  Returns:
    Floats [B,H,W,C]: what the first successful target finds; a misclassified
    image is unchanged.
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
  """The classes that a targeted attack aims at.

  Args:
    logits: scores [B, K] of the clean images.

  Returns:
    Classes [B, R], the 2nd to 10th most likely ones in this order; fewer where
    there are fewer classes.
  """
  last = min(LAST_RANK, logits.shape[-1])
  return jax.lax.top_k(logits, last)[1][:, 1:]


def repeat(
  first: int, last: int, body: Callable, value: Any, unroll: bool
) -> Any:
  """Applies a function again and again.

  Args:
    first: first value of i.
    last: value of i at which to stop.
    body: (i, value) -> value.
    value: the first one, a pytree.
    unroll: write the loop out: for CPUs, where XLA's convolutions inside a
      loop are slow.

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
