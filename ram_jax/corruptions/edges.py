"""OpenCV's edge detection, distances and small filters, in integer arithmetic.

Arrays are int32 or bool [H,W]; compilers cannot change integer results. Only
the table of `equalize` is computed in float32, as in OpenCV.
Source: OpenCV, `imgproc/src/canny.cpp`, `distransf.cpp`, `histogram.cpp`.
"""

import functools

import jax
import jax.numpy as jnp

# The tangent of 22.5 degrees with 15 fractional bits.
_TANGENT = 13573
# Distances are integers, in units of 1 / PARTS pixel. The three constants are
# the lengths of a step along an axis, a diagonal step, and a knight's move.
PARTS = 10_000
_STEP, _DIAGONAL, _KNIGHT = PARTS, 14_000, 21_969


def canny(levels: jax.Array, low: int, high: int) -> jax.Array:
  """cv2.Canny with aperture 3 and the gradient's L1 norm.

  Args:
    levels: int32 [H,W] in 0..255.
    low: gradients above this belong to an edge if connected to a strong one.
    high: gradients above this are strong.

  Returns:
    bool [H,W], true on edges.
  """
  padded = jnp.pad(levels, 1, mode="edge")
  rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
  columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
  x = rows[:, 2:] - rows[:, :-2]
  y = columns[2:] - columns[:-2]
  size = jnp.abs(x) + jnp.abs(y)
  thin = (size > low) & _is_peak(x, y, size)

  def grow(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    found, _ = state
    grown = _dilate(found) & thin
    return grown, jnp.any(grown != found)

  start = (thin & (size > high), jnp.array(True))
  return jax.lax.while_loop(lambda state: state[1], grow, start)[0]


def _is_peak(x: jax.Array, y: jax.Array, size: jax.Array) -> jax.Array:
  """Whether a gradient is a local maximum along its own direction."""
  padded = jnp.pad(size, 1)
  height, width = size.shape

  def at(down: int, right: int) -> jax.Array:
    return padded[1 + down :, 1 + right :][:height, :width]

  steep = jnp.abs(y) << 15
  flat = jnp.abs(x) * _TANGENT
  horizontal = (size > at(0, -1)) & (size >= at(0, 1))
  vertical = (size > at(-1, 0)) & (size >= at(1, 0))
  falling = (size > at(-1, -1)) & (size > at(1, 1))
  rising = (size > at(-1, 1)) & (size > at(1, -1))
  diagonal = jnp.where((x ^ y) < 0, rising, falling)
  is_vertical = steep > flat + (jnp.abs(x) << 16)
  return jnp.where(
    steep < flat, horizontal, jnp.where(is_vertical, vertical, diagonal)
  )


def _dilate(mask: jax.Array) -> jax.Array:
  """The pixels of a mask [H,W], and their eight neighbors."""
  padded = jnp.pad(mask, 1)
  rows = padded[:-2] | padded[1:-1] | padded[2:]
  return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def distance(edges: jax.Array, limit: int) -> jax.Array:
  """cv2.distanceTransform(DIST_L2, 5) to the nearest edge, up to a limit.

  The 5x5 chamfer distance is a piecewise linear norm, so it is the maximum of
  four linear forms, and the nearest edge in a row is the one with the smallest
  horizontal distance.

  Args:
    edges: bool [H,W].
    limit: largest distance in pixels, also used where there is no edge.

  Returns:
    int32 [H,W], in units of 1/10000 pixel (`PARTS`).
  """
  height, width = edges.shape
  padded = jnp.pad(edges, ((0, 0), (limit, limit)))
  right = jnp.full(edges.shape, limit, jnp.int32)
  for step in reversed(range(limit)):
    before = padded[:, limit - step :][:, :width]
    after = padded[:, limit + step :][:, :width]
    right = jnp.where(before | after, step, right)
  rows = jnp.pad(right, ((limit, limit), (0, 0)), constant_values=limit)

  # A loop, so that the compiler does not recompute the rows' distances.
  def nearer(down: jax.Array, nearest: jax.Array) -> jax.Array:
    above = jax.lax.dynamic_slice_in_dim(rows, limit - down, height)
    below = jax.lax.dynamic_slice_in_dim(rows, limit + down, height)
    right = jnp.minimum(above, below)
    return jnp.minimum(nearest, _chamfer(right, down.astype(jnp.int32)))

  start = jnp.full(edges.shape, limit * _STEP, jnp.int32)
  return jax.lax.fori_loop(0, min(limit, height), nearer, start)


def _chamfer(right: jax.Array, down: int) -> jax.Array:
  """The distance between pixels that are `right` and `down` pixels apart."""
  along, across = _KNIGHT - 2 * _STEP, 2 * _DIAGONAL - _KNIGHT
  forms = (
    (_STEP, along),
    (_KNIGHT - _DIAGONAL, across),
    (across, _KNIGHT - _DIAGONAL),
    (along, _STEP),
  )
  return functools.reduce(jnp.maximum, (a * right + b * down for a, b in forms))


def equalize(levels: jax.Array, count: int) -> jax.Array:
  """cv2.equalizeHist of an image whose levels lie below `count`."""
  tally = levels[..., None] == jnp.arange(count)
  histogram = jnp.sum(tally, axis=(0, 1), dtype=jnp.int32)
  lowest = jnp.argmax(histogram > 0)
  others = levels.size - histogram[lowest]
  scale = 255 / jnp.maximum(others, 1).astype(jnp.float32)
  below = jnp.cumsum(histogram) - histogram[lowest]
  table = jnp.round(below.astype(jnp.float32) * scale).astype(jnp.int32)
  return jnp.where(others == 0, levels, table[levels])


def correlate(levels: jax.Array, kernel: tuple) -> jax.Array:
  """cv2.filter2D with a 3x3 integer kernel, unclipped; reflects the border."""
  height, width = levels.shape
  padded = jnp.pad(levels, 1, mode="reflect")
  return sum(
    weight * padded[down : down + height, right : right + width]
    for down, row in enumerate(kernel)
    for right, weight in enumerate(row)
    if weight
  )
