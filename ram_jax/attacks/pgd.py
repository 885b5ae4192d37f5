"""Projected gradient descent on the pixels (Madry et al., arXiv 1706.06083)."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from ram_jax import checks, losses
from ram_jax.attacks.iterative import LENGTH, repeat, select
from ram_jax.attacks.norms import NORMS
from ram_jax.attacks.objectives import OBJECTIVES


@flax.struct.dataclass
class Attack:
  """PGD: steepest ascent of an objective inside a ball and [0, 1].

  An attack is a pytree whose leaves are epsilon, step_size and, if set, limit,
  so `attack.replace(epsilon=...)` needs no recompilation. If the model treats
  examples independently, result i depends only on `keys[i]`, `images[i]` and
  `targets[i]`.

  The author's code starts from a standard normal draw projected onto the ball.
  For 32x32 color images, the norm of the draw is about 55, so this is
  equivalent to the start 'sphere'.

  Attributes:
    epsilon: radius of the ball in pixel units (images are in [0, 1]).
    step_size: step length in pixel units; 2.5 epsilon / 7 in the paper.
    steps: gradient steps.
    restarts: number of runs from different random starts. For each example, a
      misclassified result is preferred; ties go to the largest objective.
    norm: 'l2' or 'linf'.
    start: 'none', 'uniform' (in the ball) or 'sphere' (on its surface).
    objective: 'cross_entropy', 'dlr' or 'margin' (`attacks/objectives.py`).
    unroll: whether to unroll the loops; useful on CPUs, where convolutions
      inside XLA loops are slow.
    limit: number of gradient steps to take, at most `steps`; None: all. Unlike
      `steps`, it is a leaf of the pytree. With `unroll`, the remaining steps
      are computed and discarded. Otherwise they cost nothing, but in a loop of
      unknown length, a GPU waits for the host at each step.
  """

  epsilon: jax.Array | float
  step_size: jax.Array | float
  steps: int = flax.struct.field(pytree_node=False, default=7)
  restarts: int = flax.struct.field(pytree_node=False, default=1)
  norm: str = flax.struct.field(pytree_node=False, default="l2")
  start: str = flax.struct.field(pytree_node=False, default="uniform")
  objective: str = flax.struct.field(pytree_node=False, default="cross_entropy")
  unroll: bool = flax.struct.field(pytree_node=False, default=False)
  limit: jax.Array | None = None

  @property
  def label(self) -> str:
    """The attack's name in tables."""
    usual = self.objective == "cross_entropy"
    return f"PGD-{self.steps}" + ("" if usual else f" ({self.objective})")

  def __post_init__(self) -> None:
    checks.check(
      vars(self),
      norm=checks.one_of(*NORMS),
      start=checks.one_of(*NORMS["l2"].starts),
      objective=checks.one_of(*OBJECTIVES),
      steps=checks.integer(0),
      restarts=checks.integer(1),
      epsilon=LENGTH,
      step_size=LENGTH,
    )

  @jax.named_scope("attack")
  def __call__(
    self,
    keys: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    model: Callable[[jax.Array], jax.Array],
  ) -> jax.Array:
    """Finds images in the ball that the model misclassifies.

    Args:
      keys: random keys [B], one for each example.
      images: pixels [B, H, W, C] in [0, 1].
      targets: integer classes [B], or, for cross-entropy, probabilities
        [B, K].
      model: images -> logits [B, K]; a pytree if it has variables.

    Returns:
      Images [B, H, W, C] in [0, 1], at most epsilon from the inputs (to within
      1e-6). No gradient flows through them.
    """
    images = jax.lax.stop_gradient(images)
    model = jax.tree.map(_stop_gradient, model)
    if self.restarts == 1:
      return jax.lax.stop_gradient(self._run(keys, images, targets, model, 0))

    def restart(i: jax.Array | int, best: tuple) -> tuple:
      found = self._run(keys, images, targets, model, i)
      return _better(best, (found, *self._judge(model(found), targets)))

    first = self._run(keys, images, targets, model, 0)
    best = (first, *self._judge(model(first), targets))
    best = repeat(1, self.restarts, restart, best, self.unroll)
    return jax.lax.stop_gradient(best[0])

  def _run(
    self,
    keys: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    model: Callable,
    restart: jax.Array | int,
  ) -> jax.Array:
    """Runs the attack from one random start."""

    def loss(x: jax.Array) -> jax.Array:
      return jnp.sum(OBJECTIVES[self.objective](model(x), targets))

    def step(_: Any, x: jax.Array) -> jax.Array:
      ascent = NORMS[self.norm].direction(jax.grad(loss)(x))
      return self._clip(images, x - images + self.step_size * ascent)

    def limited(i: jax.Array, x: jax.Array) -> jax.Array:
      return jnp.where(i < self.limit, step(i, x), x)

    start = self._start(keys, images, restart)
    if self.limit is None:
      return repeat(0, self.steps, step, start, self.unroll)
    if self.unroll:
      return repeat(0, self.steps, limited, start, True)
    return repeat(0, self.limit, step, start, False)

  def _start(
    self, keys: jax.Array, images: jax.Array, restart: jax.Array | int
  ) -> jax.Array:
    """Images plus a random point of the ball, bit-identical in any batch."""
    draw = NORMS[self.norm].starts[self.start]
    points = jax.vmap(
      lambda key: draw(
        jax.random.fold_in(key, restart), images.shape[1:], images.dtype
      )
    )(keys)
    # Points of the unit ball need no projection. This clipping does not change
    # values; it keeps the compiler from fusing multiplication and addition,
    # which would skip a rounding for some batch sizes only.
    delta = jnp.clip(self.epsilon * points, -self.epsilon, self.epsilon)
    return jnp.clip(images + delta, 0, 1).astype(images.dtype)

  def _clip(self, images: jax.Array, delta: jax.Array) -> jax.Array:
    """Images plus delta, projected onto the ball and clipped to [0, 1].

    The images are in [0, 1], so clipping only brings pixels closer to them, and
    the result stays in the ball.
    """
    delta = NORMS[self.norm].project(delta, self.epsilon)
    return jnp.clip(images + delta, 0, 1).astype(images.dtype)

  def _judge(
    self, logits: jax.Array, targets: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Whether each example is misclassified, and its objective."""
    wrong = ~losses.correct(logits, targets)
    return wrong, OBJECTIVES[self.objective](logits, targets)


def finite_gradients(
  model: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array], jax.Array]:
  """Wraps a model so that an attack only sees finite gradients.

  A NaN gradient would make the attacked image NaN, which says nothing about the
  network. Replaced by 0, it leaves the image unchanged. If the logits are NaN,
  too, the image stays as it is and counts as misclassified. Training does not
  use this function, so that a NaN gradient stops the run.

  Args:
    model: images -> logits [B, K]; a pytree.

  Returns:
    A pytree that returns the same logits. In its gradient with respect to the
    images, NaN becomes 0 and infinities become the largest finite numbers.
  """
  return jax.tree_util.Partial(_on_finite_gradients, model)


def _on_finite_gradients(model: Callable, images: jax.Array) -> jax.Array:
  return model(_pass(images))


@jax.custom_vjp
def _pass(images: jax.Array) -> jax.Array:
  """The identity, with finite gradients."""
  return images


_pass.defvjp(lambda x: (x, None), lambda _, g: (jnp.nan_to_num(g),))


def _better(old: tuple, new: tuple) -> tuple:
  """The better of two (images, wrong, objective) for each example."""
  _, old_wrong, old_loss = old
  _, new_wrong, new_loss = new
  take = (new_wrong & ~old_wrong) | (
    (new_wrong == old_wrong) & (new_loss > old_loss)
  )

  return select(take, new, old)


def _stop_gradient(leaf: Any) -> Any:
  """Stops gradients of arrays; leaves plain functions unchanged."""
  return jax.lax.stop_gradient(leaf) if hasattr(leaf, "dtype") else leaf
