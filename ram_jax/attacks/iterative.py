"""Fields, loops and complete runs that attacks share."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from ram_jax import checks, losses
from ram_jax.attacks import targets
from ram_jax.attacks.norms import NORMS
from ram_jax.contracts import Model

RANKS = 9  # number of target classes that AutoAttack tries, one after another


# A length in pixel units. JAX rebuilds pytrees with tracers and placeholders as
# leaves, so only plain numbers are checked.
LENGTH: checks.Rule = (
  "a finite number, at least 0, in pixel units",
  lambda v: not isinstance(v, float | int) or 0 <= v < math.inf,
)


@flax.struct.dataclass
class Iterative:
  """An attack with many steps, which can be run a few steps at a time.

  A subclass has a `label` and these methods, for a batch of B examples that the
  model classifies correctly:

  - `start(keys, images, labels, targets, model) -> state` before the first
    step. `targets` are integers [B]: the classes that a targeted attack aims
    at, or the number of an untargeted attack's restart, 0 for the first run.
  - `step(state, model) -> state` after one more step of every example.
  - `images(state)`: adversarial images [B,H,W,C], or the input where none was
    found.
  - `found(state)`: whether one was found, bool [B].

  Every leaf of the state has a leading axis B. Each example has its own
  `state.iteration` and key, so finished examples can be replaced by new ones
  between two steps, and the result does not depend on the rest of the batch.

  An attack is a pytree whose only leaf is epsilon, so changing epsilon needs no
  recompilation.

  Attributes:
    epsilon: radius of the ball in pixel units (images are in [0, 1]).
    steps: iterations per run.
    norm: 'l2' or 'linf'.
    unroll: whether to unroll the loops; useful on CPUs, where convolutions
      inside XLA loops are slow.
    targeted: whether the attack aims at a class.
  """

  epsilon: jax.Array | float
  steps: int = flax.struct.field(pytree_node=False, default=100)
  norm: str = flax.struct.field(pytree_node=False, default="l2")
  unroll: bool = flax.struct.field(pytree_node=False, default=False)

  targeted: ClassVar[bool] = False

  def __post_init__(self) -> None:
    checks.check(
      vars(self),
      norm=checks.one_of(*NORMS),
      steps=checks.integer(1),
      epsilon=LENGTH,
    )

  @jax.named_scope("attack")
  def __call__(
    self, keys: jax.Array, images: jax.Array, labels: jax.Array, model: Model
  ) -> jax.Array:
    """Searches for misclassified images in the ball.

    Args:
      keys: keys [B], one per example.
      images: floats [B,H,W,C] in [0,1].
      labels: integer classes [B].
      model: images -> logits [B,K]; a pytree if it has variables.

    Returns:
      Misclassified images [B,H,W,C] in [0,1], at most epsilon from the inputs
      (to within 1e-6). An input is returned unchanged if it is misclassified
      itself, or if no misclassified image is found. A targeted attack tries the
      classes with the 2nd to 10th largest logits, and returns the first
      success. No gradient flows through the result.
    """
    images = jax.lax.stop_gradient(images)
    logits = jax.lax.stop_gradient(model(images))
    classes = jnp.zeros((len(labels), 1), int)
    if self.targeted:
      classes = targets.by_logit(logits, labels)[:, :RANKS]

    def step(_: Any, state: Any) -> Any:
      return self.step(state, model)

    def attack(rank: jax.Array | int, best: tuple) -> tuple:
      found, adversarial = best
      key = jax.vmap(lambda key: jax.random.fold_in(key, rank))(keys)
      aim = jnp.take(classes, rank, axis=1)
      state = self.start(key, images, labels, aim, model)
      state = repeat(0, self.steps, step, state, self.unroll)
      adversarial = select(found, adversarial, self.images(state))
      return found | self.found(state), adversarial

    start = ~losses.correct(logits, labels), images
    found = repeat(0, classes.shape[1], attack, start, self.unroll)
    return jax.lax.stop_gradient(found[1])

  def exhausted(self, state: Any) -> jax.Array:
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
