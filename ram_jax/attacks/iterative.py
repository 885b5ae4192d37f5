"""Base classes of AutoAttack's attacks, and helpers for all attacks."""

import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from ram_jax import checks
from ram_jax.attacks.norms import NORMS
from ram_jax.contracts import Arrays

# A length in pixel units. JAX rebuilds pytrees with tracers and placeholders as
# leaves, so only plain numbers are checked.
LENGTH: checks.Rule = (
  "a finite number, at least 0, in pixel units",
  lambda v: not isinstance(v, float | int) or 0 <= v < math.inf,
)


@flax.struct.dataclass
class State:
  """State of an attack; every leaf has a leading axis B.

  Attributes:
    batch: as given to `Iterative.start`; its `images` are the clean ones.
    iteration: number of steps so far, integers [B].
    best: the images that the attack has found so far [B,H,W,C].
  """

  batch: Arrays
  iteration: jax.Array
  best: jax.Array


@flax.struct.dataclass
class Iterative:
  """An attack with many steps, which is run a few steps at a time.

  A subclass has these methods, for a batch of B examples that the model
  classifies correctly:

  - `start(keys, batch, model) -> state` before the first step. `batch` has
    `images` [B,H,W,C] in [0,1], `labels`, integers [B], and `targets`, integers
    [B]: the classes that a targeted attack aims at, or the number of an
    untargeted attack's restart, 0 for the first run.
  - `step(state, model) -> state` after one more step of every example.
  - `found(state)`: whether `state.best` is misclassified and in the ball, bool
    [B].

  Each example has its own `state.iteration` and key, so finished examples can
  be replaced by new ones between two steps, and an example's result does not
  depend on the rest of the batch (`evaluation/pool.py`).

  An attack is a pytree whose only leaf is epsilon, so changing epsilon needs no
  recompilation.

  Attributes:
    epsilon: radius of the ball in pixel units (images are in [0, 1]).
    steps: iterations per run.
    norm: 'l2' or 'linf'.
  """

  epsilon: jax.Array | float
  steps: int = flax.struct.field(pytree_node=False, default=100)
  norm: str = flax.struct.field(pytree_node=False, default="l2")

  def __post_init__(self) -> None:
    checks.check(
      vars(self),
      norm=checks.one_of(*NORMS),
      steps=checks.integer(1),
      epsilon=LENGTH,
    )

  def images(self, state: State) -> jax.Array:
    """Adversarial images [B,H,W,C]; clean ones where none were found."""
    return select(self.found(state), state.best, state.batch["images"])

  def exhausted(self, state: State) -> jax.Array:
    """Whether an example has used up its steps, bool [B]."""
    return state.iteration >= self.steps


def repeat(
  first: int,
  last: int | jax.Array,
  body: Callable,
  value: Any,
  unroll: bool,
) -> Any:
  """Applies body(i, value) for i from first to last - 1.

  Args:
    first: first value of i.
    last: value of i at which to stop; an integer if the loop is unrolled.
    body: (i, value) -> value.
    value: initial value, a pytree.
    unroll: whether to unroll the loop, for CPUs, where convolutions inside XLA
      loops are slow.

  Returns:
    The final value.
  """
  if not unroll:
    return jax.lax.fori_loop(first, last, body, value)
  body = jax.jit(body)  # Traced once, not once per step.
  for i in range(first, last):
    value = body(i, value)
  return value


def select(condition: jax.Array, new: Any, old: Any) -> Any:
  """Chooses between two values for each example.

  Args:
    condition: bool [B].
    new: arrays [B, ...], any pytree.
    old: the same.

  Returns:
    Values of `new` where the condition is true, else of `old`.
  """

  def choose(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)

  return jax.tree.map(choose, new, old)
