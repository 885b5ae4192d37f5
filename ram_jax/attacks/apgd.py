"""AutoPGD: PGD that adapts its step size (Croce and Hein, arXiv 2003.01690).

Follows AutoAttack (fra31/auto-attack `autopgd_base.py`), including its
defaults, with two differences: random starts are drawn with JAX's keys, and
perturbations stay inside the ball by a margin of a few rounding errors.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import checks, losses
from ram_jax.attacks import iterative, objectives
from ram_jax.attacks.norms import NORMS, l2_norm_in_order, radius_inside
from ram_jax.contracts import Arrays, Model

TARGETED = "targeted_dlr"  # the objective of targeted attacks
_INERTIA = 0.75  # weight of the gradient step; the rest is momentum
_INCREASES = 0.75  # fraction of steps that must increase the objective
# Added to L2 norms, as in the original code. Gradients can be this small, so
# it matters.
_SMALL = 1e-12


def _l2_direction(gradient: jax.Array) -> jax.Array:
  return gradient / (l2_norm_in_order(gradient) + _SMALL)


def _l2_project(delta: jax.Array, epsilon: jax.Array | float) -> jax.Array:
  limit = epsilon * (1 - 8 * float(jnp.finfo(delta.dtype).eps))
  return _l2_direction(delta) * jnp.minimum(l2_norm_in_order(delta), limit)


# These give bit-identical results for any batch size.
_NORMS = {
  **NORMS,
  "l2": dataclasses.replace(
    NORMS["l2"], project=_l2_project, direction=_l2_direction
  ),
}


@flax.struct.dataclass
class Point:
  """Images [B, H, W, C], and the objective's gradient and value [B] there."""

  images: jax.Array
  gradient: jax.Array
  value: jax.Array


@flax.struct.dataclass
class State(iterative.State):
  """State of a run; `best` contains the last misclassified images.

  Attributes:
    now: the current point.
    previous: the images before the last step.
    peak: the point with the largest objective so far.
    found: whether any misclassified images were found.
    step_size: length of the next step in pixel units.
    last_value: the objective after the last step.
    increases: how many steps since the last checkpoint increased the objective.
    checked_value: the largest objective up to the last checkpoint.
    halved: whether the last checkpoint halved the step size.
  """

  now: Point
  previous: jax.Array
  peak: Point
  found: jax.Array
  step_size: jax.Array
  last_value: jax.Array
  increases: jax.Array
  checked_value: jax.Array
  halved: jax.Array


@flax.struct.dataclass
class Apgd(iterative.Iterative):
  """APGD: PGD with momentum; it halves the step size when progress stalls.

  Attributes:
    objective: 'cross_entropy', 'dlr', 'margin' or 'targeted_dlr'.
  """

  objective: str = flax.struct.field(pytree_node=False, default="cross_entropy")

  def __post_init__(self) -> None:
    super().__post_init__()
    allowed = checks.one_of(*objectives.OBJECTIVES, TARGETED)
    checks.check(vars(self), objective=allowed)

  def start(self, keys: jax.Array, batch: Arrays, model: Model) -> State:
    """State at random points on the sphere; see `iterative.Iterative`."""
    images = batch["images"]
    draw = _NORMS[self.norm].starts["sphere"]
    points = jax.vmap(lambda key: draw(key, images.shape[1:], images.dtype))
    points = self._clip(images, self.epsilon * points(keys))
    now, wrong = self._evaluate(points, batch, model)
    zeros = jnp.zeros(len(images), int)
    return State(
      batch=batch,
      iteration=zeros,
      now=now,
      previous=points,
      peak=now,
      best=points,
      found=wrong,
      step_size=jnp.broadcast_to(2 * self.epsilon, zeros.shape).astype(
        images.dtype
      ),
      # The original code compares the value after the first step with 0, not
      # with the value at the start.
      last_value=jnp.zeros_like(now.value),
      increases=zeros,
      checked_value=now.value,
      halved=jnp.ones_like(wrong),
    )

  def step(self, state: State, model: Model) -> State:
    """One step for every example; see `iterative.Iterative`."""
    images = self._moved(state)
    now, wrong = self._evaluate(images, state.batch, model)
    peak = iterative.select(now.value > state.peak.value, now, state.peak)
    state = state.replace(
      iteration=state.iteration + 1,
      now=now,
      previous=state.now.images,
      peak=peak,
      best=iterative.select(wrong, images, state.best),
      found=state.found | wrong,
      last_value=now.value,
      increases=state.increases + (now.value > state.last_value),
    )
    return self._checked(state)

  def found(self, state: State) -> jax.Array:
    """Whether an adversarial example was found, bool [B]."""
    return state.found

  def _moved(self, state: State) -> jax.Array:
    """Steepest ascent and projection, then momentum and projection."""
    given, here = state.batch["images"], state.now.images
    shape = (-1, *[1] * (given.ndim - 1))
    size = state.step_size.reshape(shape)
    inertia = jnp.where(state.iteration == 0, 1, _INERTIA).reshape(shape)
    inertia = inertia.astype(given.dtype)
    ascent = _NORMS[self.norm].direction(state.now.gradient)
    ahead = self._clip(given, here - given + size * ascent)
    moved = (
      here + inertia * (ahead - here) + (1 - inertia) * (here - state.previous)
    )
    return self._clip(given, moved - given)

  def _checked(self, state: State) -> State:
    """Checks at checkpoints whether the search has stalled.

    If so, halves the step size and continues from the peak.
    """
    window = jnp.asarray(_windows(self.steps))[state.iteration - 1]
    checkpoint = window > 0
    stalls = state.increases <= _INCREASES * window
    stalls |= ~state.halved & (state.checked_value >= state.peak.value)
    halve = checkpoint & stalls
    return state.replace(
      now=iterative.select(halve, state.peak, state.now),
      step_size=jnp.where(halve, state.step_size / 2, state.step_size),
      increases=jnp.where(checkpoint, 0, state.increases),
      checked_value=iterative.select(
        checkpoint, state.peak.value, state.checked_value
      ),
      halved=jnp.where(checkpoint, halve, state.halved),
    )

  def _evaluate(
    self, images: jax.Array, batch: Arrays, model: Model
  ) -> tuple[Point, jax.Array]:
    """The point, and whether the images are misclassified, bool [B]."""
    labels = batch["labels"]

    def total(x: jax.Array) -> tuple[jax.Array, tuple]:
      logits = model(x)
      if self.objective == TARGETED:
        value = objectives.targeted_dlr(logits, labels, batch["targets"])
      else:
        value = objectives.OBJECTIVES[self.objective](logits, labels)
      return jnp.sum(value), (value, logits)

    gradient, (value, logits) = jax.grad(total, has_aux=True)(images)
    # NaN gradients would make the images NaN; with 0, only momentum is left.
    point = Point(images, jnp.nan_to_num(gradient), value)
    return point, ~losses.correct(logits, labels)

  def _clip(self, images: jax.Array, delta: jax.Array) -> jax.Array:
    """Images plus delta, projected onto the ball and clipped to [0, 1]."""
    limit = radius_inside(self.epsilon, images.dtype)
    delta = _NORMS[self.norm].project(delta, limit)
    return jnp.clip(images + delta, 0, 1).astype(images.dtype)


def _windows(steps: int) -> np.ndarray:
  """Length of the window that ends with each step, or 0, int [steps].

  Args:
    steps: iterations of a run. For 100, the windows have 22, 19, 16, 13, 10,
      7, 6 and 6 steps.
  """
  longest, shorter, shortest = (
    max(percent * steps // 100, 1) for percent in (22, 3, 6)
  )
  windows = np.zeros(steps, int)
  length, end = longest, longest
  while end <= steps:
    windows[end - 1] = length
    length = max(length - shorter, shortest)
    end += length
  return windows
