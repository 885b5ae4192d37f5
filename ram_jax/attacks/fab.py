"""Fast adaptive boundary attack, FAB (Croce and Hein, arXiv 1907.02044)."""

import flax.struct
import jax
import jax.numpy as jnp

from ram_jax import losses
from ram_jax.attacks import iterative
from ram_jax.attacks.norms import NORMS
from ram_jax.attacks.objectives import of_class
from ram_jax.attacks.targets import by_distance
from ram_jax.contracts import Arrays, Model

# Norms over the last axis.
_LENGTHS = {
  "l2": lambda x: jnp.sqrt(jnp.sum(jnp.square(x), -1)),
  "linf": lambda x: jnp.max(jnp.abs(x), -1),
}
# How fast each pixel moves toward the hyperplane (see `project`), as a function
# of the magnitude of its entry in the normal vector.
_SPEEDS = {"l2": lambda size: size, "linf": jnp.sign}
_SHORTEST = 1e-8  # lower bound for lengths when projections are weighted


@flax.struct.dataclass
class State(iterative.State):
  """State of the attack; `best`: the nearest misclassified iterates so far.

  Attributes:
    current: the iterates [B,H,W,C].
    norm: distance [B] of `best` from the clean images; infinite if there are
      no misclassified iterates.
  """

  current: jax.Array
  norm: jax.Array


@flax.struct.dataclass
class Fab(iterative.Iterative):
  """FAB: searches for the nearest misclassified point.

  Follows AutoAttack (fra31/auto-attack `fab_base.py`). The attack starts from
  the clean image. Each step projects the iterate and the clean image onto the
  linearized decision boundary inside [0, 1], and moves to a weighted mean of
  the two projections, slightly beyond the boundary. From a misclassified point,
  it then steps back toward the clean image. The boundary is that of the target
  class (FAB-T) or, if untargeted, of the class whose boundary is nearest.
  Untargeted restarts begin at random points at a distance of epsilon / 2;
  otherwise, epsilon only determines which examples count as successes.

  Attributes:
    targeted: whether to attack the target class.
    alpha_max: maximum weight of the clean image's projection.
    eta: step length as a multiple of the distance to the linearized boundary.
    beta: fraction of the perturbation that remains after a step back.
  """

  targeted: bool = flax.struct.field(pytree_node=False, default=True)
  alpha_max: float = flax.struct.field(pytree_node=False, default=0.1)
  eta: float = flax.struct.field(pytree_node=False, default=1.05)
  beta: float = flax.struct.field(pytree_node=False, default=0.9)

  def start(self, keys: jax.Array, batch: Arrays, model: Model) -> State:
    """State at clean images or random points; see `iterative.Iterative`."""
    del model
    images, labels = batch["images"], batch["labels"]
    current = images
    if not self.targeted:
      draw = NORMS[self.norm].starts["sphere"]
      points = jax.vmap(lambda key: draw(key, images.shape[1:], images.dtype))
      moved = jnp.clip(images + self.epsilon / 2 * points(keys), 0, 1)
      current = iterative.select(batch["targets"] > 0, moved, images)
    return State(
      batch=batch,
      iteration=jnp.zeros(labels.shape, jnp.int32),
      best=images,
      current=current,
      norm=jnp.full(labels.shape, jnp.inf, images.dtype),
    )

  def step(self, state: State, model: Model) -> State:
    """One step for every example; see `iterative.Iterative`."""
    images, labels = state.batch["images"], state.batch["labels"]
    given, current = (x.reshape(len(x), -1) for x in (images, state.current))
    aim = state.batch["targets"]
    if not self.targeted:
      aim = by_distance(model, state.current, labels, self.norm)[:, 0]
    value, gradient = _linearize(model, state.current, labels, aim)
    moved = self._move(given, current, value, gradient)
    norm = _LENGTHS[self.norm](moved - given)
    moved = moved.reshape(images.shape)
    wrong = ~losses.correct(model(moved), labels)
    better = wrong & (norm < state.norm)
    back = images + self.beta * (moved - images)
    return state.replace(
      iteration=state.iteration + 1,
      best=iterative.select(better, moved, state.best),
      current=iterative.select(wrong, back, moved),
      norm=jnp.where(better, norm, state.norm),
    )

  def found(self, state: State) -> jax.Array:
    """Whether a misclassified point was found in the ball, bool [B]."""
    return state.norm <= self.epsilon

  def _move(
    self,
    given: jax.Array,
    current: jax.Array,
    value: jax.Array,
    gradient: jax.Array,
  ) -> jax.Array:
    """The next iterate [B, D], before any step back."""
    points = jnp.stack((current, given))
    # The linearization at `current`, evaluated at both points. This form is
    # exact at `current`; a difference of two inner products would suffer from
    # cancellation near the boundary.
    values = value + jnp.sum(gradient * (points - current), -1)
    deltas = project(points, gradient, values, self.norm)
    length, length_given = jnp.maximum(_LENGTHS[self.norm](deltas), _SHORTEST)
    alpha = jnp.minimum(length / (length + length_given), self.alpha_max)
    ahead, ahead_given = points + self.eta * deltas
    mean = (1 - alpha)[:, None] * ahead + alpha[:, None] * ahead_given
    return jnp.clip(mean, 0, 1)


def project(
  points: jax.Array, normals: jax.Array, values: jax.Array, norm: str
) -> jax.Array:
  """Shortest path to a hyperplane inside the box [0, 1].

  The delta of smallest norm with <normal, delta> = -value and 0 <= point +
  delta <= 1. Every pixel moves toward the hyperplane at its own speed (the
  magnitude of its entry in the normal vector in L2, 1 in L-infinity) until it
  reaches its bound. The distance covered is therefore a concave, piecewise
  linear function of time. Newton's method from the left finds the time of
  arrival exactly: no iterate passes the solution, and each iterate before it
  fixes more pixels at their bounds. This takes a few iterations, whereas
  sorting all D bounds is slow.

  Args:
    points: pixels [..., D] in [0, 1].
    normals: normal vectors of the hyperplanes, broadcast to [..., D].
    values: the linear function's values [...] at the points, 0 on the
      hyperplane. NaN counts as 0.
    norm: 'l2' or 'linf'.

  Returns:
    Deltas [..., D]. If the hyperplane does not intersect the box, they lead to
    the corner of the box nearest to it. Pixels whose entry in the normal vector
    is 0 do not move.
  """
  info = jnp.finfo(points.dtype)
  normals, values = _scale(normals, values)
  toward = -jnp.sign(normals) * jnp.where(values < 0, -1, 1)[..., None]
  room = jnp.where(toward > 0, 1 - points, points) * jnp.abs(toward)
  slope, distance = jnp.abs(normals), jnp.abs(values)
  speed = _SPEEDS[norm](slope)

  def newton(time: jax.Array) -> jax.Array:
    fixed = time[..., None] * speed >= room
    left = distance - jnp.sum(jnp.where(fixed, slope * room, 0), -1)
    rate = jnp.sum(jnp.where(fixed, 0, slope * speed), -1)
    new = jnp.where(rate > 0, left / jnp.where(rate > 0, rate, 1), info.max)
    # Infinity times a speed of 0 would be NaN.
    return jnp.clip(new, time, float(info.max))

  start = jnp.zeros_like(distance)
  _, time = jax.lax.while_loop(
    lambda times: jnp.any(times[1] > times[0]),
    lambda times: (times[1], newton(times[1])),
    (start, newton(start)),
  )
  return toward * jnp.minimum(time[..., None] * speed, room)


def _scale(
  normals: jax.Array, values: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The same hyperplanes, with normals whose largest magnitude is 1.

  Without this scaling, squares of a saturated model's gradients would
  underflow. A gradient whose entries are all subnormal counts as zero.
  """
  tiny = float(jnp.finfo(normals.dtype).tiny)
  largest = jnp.max(jnp.abs(normals), -1)
  usable = largest >= tiny
  values = jnp.where(usable & ~jnp.isnan(values), values, 0)
  largest = jnp.where(usable, largest, 1)
  normals = jnp.where(usable[..., None], normals / largest[..., None], 0)
  return normals, values / largest


def _linearize(
  model: Model, images: jax.Array, labels: jax.Array, aim: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The logit of class `aim` minus the label's [B], and its gradient [B, D]."""

  def difference(images: jax.Array) -> jax.Array:
    logits = model(images)
    change = of_class(logits, aim) - of_class(logits, labels)
    return change.astype(images.dtype)

  value, pull_back = jax.vjp(difference, images)
  (gradient,) = pull_back(jnp.ones_like(value))
  return value, jnp.nan_to_num(gradient).reshape(len(value), -1)
