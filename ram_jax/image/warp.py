"""AugMix's five affine operations as one warp without gathers, for TPUs.

A source pixel is found by static slices and selects: first, every row moves by
whole pixels, so that all sources are then within a few columns of their
destination. The results equal those of `geometry`. Arrays have the images as
their last axis, [H,W,N], because it fills a TPU's lanes; a pixel's channels are
the bytes of an int32 word.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.image import geometry


class Bounds(NamedTuple):
  """How far warps at a given severity move the pixels of square images.

  Attributes:
    degrees: largest rotation.
    rows: largest distance from a destination to a source pixel in rows; also
      the largest whole-pixel move of a row.
    columns: the same in columns after that move.
  """

  degrees: int
  rows: int
  columns: int


def bounds(severity: float, size: int) -> Bounds:
  """The bounds of AugMix's draws; sources of weight zero may be outside."""
  severity += 1e-4  # drawn levels are rounded
  degrees = math.floor(3 * severity)
  angle, half = math.radians(degrees), (size - 1) / 2
  rows = max(
    math.floor(severity * size / 30),  # translation
    math.ceil(0.03 * severity * (size - 0.5)),  # shear
    math.ceil((math.sin(angle) + 1 - math.cos(angle)) * half),
  )
  stretch = (1 / math.cos(angle) - 1) * half
  return Bounds(degrees, rows, math.ceil(stretch + math.tan(angle) + 0.5))


def warp(
  words: jax.Array, motion: dict[str, jax.Array], limits: Bounds
) -> jax.Array:
  """Applies one operation's motion to each image.

  Args:
    words: int32 [H,H,N].
    motion: arguments [N] of Pillow's calls by operation, such as "rotate"; at
      most one argument is nonzero for each image.
    limits: bounds of all motions.

  Returns:
    int32 [H,H,N].
  """
  size = len(words)
  x, y, moves = _sources(motion, size, limits.degrees)
  bits = geometry.coordinate_bits(size)
  inside = (x >= 0) & (x < size << (bits + 1))
  inside &= (y >= 0) & (y < size << (bits + 1))
  column, right = geometry.split(x - (1 << bits), bits + 1)
  row, down = geometry.split(y - (1 << bits), bits + 1)
  corners = _corners(
    _move_rows(words, moves, limits), row, column, moves, limits
  )
  result = jnp.zeros_like(words)
  for byte in range(0, 24, 8):
    levels = [(corner >> byte) & 255 for corner in corners]
    mixed = geometry.mix_corners(levels, down, right)
    result |= mixed << byte
  return jnp.where(inside, result, 0)


def _sources(
  motion: dict[str, jax.Array], size: int, degrees: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Every pixel's source, x and y, and every row's whole-pixel move [H,1,N].

  The source is a fixed-point number as in `geometry`, twice the distance from
  the corner.
  """
  bits = geometry.coordinate_bits(size)
  cos, sin, tan = _rotation(motion["rotate"], degrees, bits)
  slope_x, slope_y = (
    jnp.round(slope * (1 << bits)).astype(jnp.int32)
    for slope in (motion["shear_x"], motion["shear_y"])
  )
  pixels_x = motion["translate_x"].astype(jnp.int32)
  pixels_y = motion["translate_y"].astype(jnp.int32)
  near = 2 * jnp.arange(size, dtype=jnp.int32) + 1
  right, down = near[:, None], near[:, None, None]
  center = (size << bits) - cos * size
  x = cos * right + (sin + slope_x) * down
  x += center - sin * size + (pixels_x << (bits + 1))
  y = (slope_y - sin) * right + cos * down
  y += center + sin * size + (pixels_y << (bits + 1))
  moved = tan * (down - size) + slope_x * down + (1 << bits)
  return x, y, (moved >> (bits + 1)) + pixels_x


def _rotation(degrees: jax.Array, most: int, bits: int) -> jax.Array:
  """Cosine, sine and tangent [3,N] of negated whole degrees, in fixed point."""
  known = np.arange(-most, most + 1)
  cos, sin = geometry.turns()[2 * known % 720].T
  table = np.round(np.stack([cos, sin, sin / cos]) * (1 << bits))
  chosen = jnp.round(degrees).astype(jnp.int32) == known[:, None]
  values = jnp.where(chosen, table.astype(np.int32)[..., None], 0)
  return jnp.sum(values, axis=1, dtype=jnp.int32)


def _move_rows(words: jax.Array, moves: jax.Array, limits: Bounds) -> jax.Array:
  """Moves every row left by its integer number of pixels.

  Returns:
    int32 [H,H+2*columns,N]; outside the image, its border is repeated.
  """
  size = len(words)
  margin = limits.rows + limits.columns
  padded = jnp.pad(words, ((0, 0), (margin, margin), (0, 0)), "edge")
  width = size + 2 * limits.columns
  moved = jnp.zeros_like(words, shape=(size, width, words.shape[2]))
  for move in range(-limits.rows, limits.rows + 1):
    first = limits.rows + move
    moved = jnp.where(moves == move, padded[:, first : first + width], moved)
  return moved


def _corners(
  moved: jax.Array,
  row: jax.Array,
  column: jax.Array,
  moves: jax.Array,
  limits: Bounds,
) -> list[jax.Array]:
  """The pixels around every source: the upper two, then the lower two."""
  size = len(row)
  place = jnp.arange(size, dtype=jnp.int32)
  row_offset = row - place[:, None, None]
  column_offset = column - place[:, None]
  border = ((limits.rows, limits.rows), (0, 0), (0, 0))
  moved, moves = (jnp.pad(a, border, "edge") for a in (moved, moves))
  # Without the barrier, the columns would be shifted again for every i.
  lines = jax.lax.optimization_barrier(
    [moved[:, j : j + size] for j in range(2 * limits.columns + 1)]
  )
  corners = [jnp.zeros_like(row)] * 4
  for i in range(2 * limits.rows + 1):
    offset = column_offset - moves[i : i + size]
    near = [line[i : i + size] for line in lines]
    left = right = near[-1]
    for j in reversed(range(2 * limits.columns)):
      here = offset == j - limits.columns
      left = jnp.where(here, near[j], left)
      right = jnp.where(here, near[j + 1], right)
    upper = row_offset == i - limits.rows
    lower = row_offset + 1 == i - limits.rows
    corners = [
      jnp.where(chosen, new, old)
      for chosen, new, old in zip(
        (upper, upper, lower, lower), (left, right) * 2, corners, strict=True
      )
    ]
  return corners
