"""Norm balls of perturbations: projection, steepest ascent, random points."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Draw = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class Norm:
  """The operations of a norm that an attack uses.

  Attributes:
    project: (delta [B, ...], epsilon) -> nearest delta in the ball.
    direction: gradient [B, ...] -> unit step of steepest ascent; 0 for a zero
      gradient.
    starts: by name, (key, shape, dtype) -> a random point of the unit ball.
  """

  project: Callable[[jax.Array, jax.Array | float], jax.Array]
  direction: Callable[[jax.Array], jax.Array]
  starts: Mapping[str, Draw]


def radius_inside(epsilon: jax.Array | float, dtype: Any) -> jax.Array:
  """A radius that leaves room for the rounding of image + perturbation.

  Pixels are at most 1, so the rounding error of the sum is up to a quarter of
  machine epsilon. For a small radius, this exceeds the tolerance with which
  `evaluation/suite.py` confirms successes, 1e-6 times the radius.

  Args:
    epsilon: radius of the ball.
    dtype: float type of the images.

  Returns:
    The smaller radius, at least 0.
  """
  return jnp.maximum(epsilon - float(jnp.finfo(dtype).eps) / 4, 0)


def l2_norm(x: jax.Array) -> jax.Array:
  """Euclidean norm of each example.

  Args:
    x: array [B, ...].

  Returns:
    Norms [B, 1, ...], to be broadcast against `x`.
  """
  axes = tuple(range(1, x.ndim))
  return jnp.sqrt(jnp.sum(jnp.square(x), axes, keepdims=True))


def l2_norm_in_order(x: jax.Array) -> jax.Array:
  """A slower `l2_norm` whose results are bit-identical in any batch."""
  squares = jax.vmap(_squares_in_order)(x)
  return jnp.sqrt(squares).reshape(-1, *[1] * (x.ndim - 1))


def l2_project(delta: jax.Array, epsilon: jax.Array | float) -> jax.Array:
  """Nearest point of the L2 ball.

  Args:
    delta: perturbations [B, ...].
    epsilon: radius in pixel units, 0 or more.

  Returns:
    Perturbations [B, ...] of norm at most epsilon.
  """
  info = jnp.finfo(delta.dtype)
  # Inside by a few rounding errors: the norm sums thousands of squares.
  limit = epsilon * (1 - 8 * float(info.eps))
  norm = jnp.maximum(l2_norm(delta), float(info.tiny))
  return delta * jnp.minimum(1, limit / norm)


def l2_direction(gradient: jax.Array) -> jax.Array:
  """Gradient of each example, scaled to length 1.

  Args:
    gradient: gradients [B, ...].

  Returns:
    Unit vectors [B, ...]; zero where the gradient is zero.
  """
  axes = tuple(range(1, gradient.ndim))
  # A saturated model's gradients underflow when squared, so scale them first.
  largest = jnp.max(jnp.abs(gradient), axes, keepdims=True)
  usable = largest >= float(jnp.finfo(gradient.dtype).tiny)
  scaled = gradient / jnp.where(usable, largest, 1)
  return scaled / jnp.maximum(l2_norm(scaled), 1)


def l2_sphere(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
  """A uniformly random point on the unit sphere.

  Args:
    key: random key.
    shape: shape of one example.
    dtype: float type.

  Returns:
    A point of this shape, of norm 1 (to within 1e-6, and never above 1).
  """
  point = jax.random.normal(key, shape, dtype)
  info = jnp.finfo(dtype)
  # Inside the sphere by a few rounding errors, so no draw needs a projection.
  length = jnp.sqrt(_squares_in_order(point)) * (1 + 4 * float(info.eps))
  return point / jnp.maximum(length, float(info.tiny))


def _squares_in_order(x: jax.Array) -> jax.Array:
  """Pairwise sum of squares: bit-identical however a batch is split.

  The order of `jnp.sum` depends on the number of examples on a device.
  """
  info = jnp.finfo(x.dtype)
  # The minimum keeps the compiler from fusing multiplication and addition,
  # which would skip a rounding for some batch sizes only.
  terms = jnp.minimum(jnp.square(x).ravel(), float(info.max))
  terms = jnp.pad(terms, (0, 2 ** math.ceil(math.log2(x.size)) - x.size))
  while terms.size > 1:
    first, second = jnp.split(terms, 2)
    terms = first + second
  return terms[0]


def l2_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
  """A uniformly random point in the unit ball.

  The first d coordinates of a uniformly random point on the unit sphere in
  d + 2 dimensions are uniform in the ball (Voelker et al. 2017). This needs one
  draw instead of a direction and a radius u^(1/d).

  Args:
    key: random key.
    shape: shape of one example.
    dtype: float type.

  Returns:
    A point of this shape, of norm at most 1.
  """
  return l2_sphere(key, (math.prod(shape) + 2,), dtype)[:-2].reshape(shape)


def linf_project(delta: jax.Array, epsilon: jax.Array | float) -> jax.Array:
  """Nearest point of the L-infinity ball.

  Args:
    delta: perturbations [B, ...].
    epsilon: radius in pixel units, 0 or more.

  Returns:
    Perturbations [B, ...] in [-epsilon, epsilon].
  """
  return jnp.clip(delta, -epsilon, epsilon)


def linf_uniform(
  key: jax.Array, shape: tuple[int, ...], dtype: Any
) -> jax.Array:
  """A uniformly random point in the box from -1 to 1.

  Args:
    key: random key.
    shape: shape of one example.
    dtype: float type.

  Returns:
    A point of this shape.
  """
  return jax.random.uniform(key, shape, dtype, -1, 1)


def linf_sphere(
  key: jax.Array, shape: tuple[int, ...], dtype: Any
) -> jax.Array:
  """A random point on the surface of the box from -1 to 1.

  This is a uniform point divided by its largest magnitude, like the start of
  APGD in AutoAttack for this norm (auto-attack `autopgd_base.py`).

  Args:
    key: random key.
    shape: shape of one example.
    dtype: float type.

  Returns:
    A point of this shape whose largest entry has magnitude 1.
  """
  point = linf_uniform(key, shape, dtype)
  return point / jnp.max(jnp.abs(point))


def origin(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
  """The center of the ball.

  Args:
    key: not used.
    shape: shape of one example.
    dtype: float type.

  Returns:
    Zeros of this shape.
  """
  del key
  return jnp.zeros(shape, dtype)


NORMS: Mapping[str, Norm] = {
  "l2": Norm(
    l2_project,
    l2_direction,
    {"none": origin, "uniform": l2_uniform, "sphere": l2_sphere},
  ),
  "linf": Norm(
    linf_project,
    jnp.sign,
    {"none": origin, "uniform": linf_uniform, "sphere": linf_sphere},
  ),
}
