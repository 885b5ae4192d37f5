"""Pillow's rotation, shear and translation, on uint8 images [H,W,C].

Pillow interpolates in doubles and truncates. Here, coordinates and weights are
32-bit fixed-point numbers. They are as precise as float32 and do not depend on
how a compiler orders or fuses operations, so the levels are the same for any
batch size. Only `bilinear` samples float images.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Fractional bits of a weight: positive cubic weights can add up to 1.25, and
# 255 times that fits in 31 bits.
_WEIGHT_BITS = 22
_ONE = 1 << _WEIGHT_BITS


def translate_x(levels: jax.Array, pixels: jax.Array) -> jax.Array:
  """Moves the image left by `pixels` (right if negative), filling with zeros.

  Equal to `Image.transform(size, AFFINE, (1, 0, pixels, 0, 1, 0))` with any
  resampling, for whole pixels.

  Args:
    levels: uint8 [H,W,C].
    pixels: scalar, an integer.

  Returns:
    uint8 [H,W,C].
  """
  width = levels.shape[1]
  source = jnp.arange(width, dtype=jnp.int32) + jnp.asarray(pixels, jnp.int32)
  inside = (source >= 0) & (source < width)
  moved = jnp.take(levels, jnp.clip(source, 0, width - 1), axis=1)
  return jnp.where(inside[:, None], moved, jnp.uint8(0))


def translate_y(levels: jax.Array, pixels: jax.Array) -> jax.Array:
  """Moves the image up by `pixels` (down if negative), filling with zeros."""
  return _transpose(translate_x(_transpose(levels), pixels))


def shear_x(
  levels: jax.Array, coefficient: jax.Array, cubic: bool = False
) -> jax.Array:
  """Shears along x: `Image.transform(size, AFFINE, (1, c, 0, 0, 1, 0))`.

  Every row moves by `c * (y + 1/2)` and is interpolated with its own weights.
  Pixels whose source is outside the image are zero.

  Args:
    levels: uint8 [H,W,C].
    coefficient: scalar c, |c| <= 1.
    cubic: whether to use Pillow's BICUBIC instead of BILINEAR.

  Returns:
    uint8 [H,W,C].
  """
  height, width, _ = levels.shape
  bits = coordinate_bits(height)
  slope = jnp.round(jnp.float32(coefficient) * (1 << bits)).astype(jnp.int32)
  shift = slope * (2 * jnp.arange(height, dtype=jnp.int32) + 1)  # doubled
  whole, part = split(shift[:, None], bits + 1)
  source = jnp.arange(width, dtype=jnp.int32) + whole
  pixel = source + (part >= _ONE // 2)  # pixel containing the source position

  def tap(offset: int) -> jax.Array:
    index = jnp.clip(source + offset, 0, width - 1)
    taken = jnp.take_along_axis(levels, index[..., None], axis=1)
    return taken.astype(jnp.int32)

  interpolate = _cubic if cubic else _linear
  sheared = interpolate(tap, part[..., None])
  inside = (pixel >= 0) & (pixel < width)
  return jnp.where(inside[..., None], sheared, 0).astype(jnp.uint8)


def shear_y(
  levels: jax.Array, coefficient: jax.Array, cubic: bool = False
) -> jax.Array:
  """Shears along y: `Image.transform(size, AFFINE, (1, 0, 0, c, 1, 0))`."""
  return _transpose(shear_x(_transpose(levels), coefficient, cubic))


def rotate_bilinear(levels: jax.Array, degrees: jax.Array) -> jax.Array:
  """`Image.rotate(degrees, BILINEAR)`: counterclockwise.

  Pixels whose source is outside the image are black.

  Args:
    levels: uint8 [H,W,C].
    degrees: scalar, a multiple of 1/2.

  Returns:
    uint8 [H,W,C].
  """
  height, width, channels = levels.shape
  bits = coordinate_bits(max(height, width))
  # Rounded by NumPy, because JAX treats float64 constants differently under
  # x64.
  turn = np.round(turns() * (1 << bits)).astype(np.int32)
  cos, sin = _row(jnp.asarray(turn), degrees)
  # Twice the distance from the center, so that it is an integer.
  right = 2 * jnp.arange(width, dtype=jnp.int32) + 1 - width
  down = (2 * jnp.arange(height, dtype=jnp.int32) + 1 - height)[:, None]
  x = (width << bits) + cos * right + sin * down
  y = (height << bits) - sin * right + cos * down
  inside = (x >= 0) & (x < width << (bits + 1))
  inside &= (y >= 0) & (y < height << (bits + 1))
  column, right_part = split(x - (1 << bits), bits + 1)
  row, down_part = split(y - (1 << bits), bits + 1)
  flat = levels.reshape(height * width, channels)

  def tap(dy: int, dx: int) -> jax.Array:
    index = jnp.clip(row + dy, 0, height - 1) * width
    index += jnp.clip(column + dx, 0, width - 1)
    return flat[index].astype(jnp.int32)

  corners = tap(0, 0), tap(0, 1), tap(1, 0), tap(1, 1)
  turned = mix_corners(corners, down_part[..., None], right_part[..., None])
  return jnp.where(inside[..., None], turned, 0).astype(jnp.uint8)


def rotate_nearest(levels: jax.Array, degrees: jax.Array) -> jax.Array:
  """`Image.rotate(degrees)`: nearest neighbor, in Pillow's 16.16 fixed point.

  Args:
    levels: uint8 [H,W,C].
    degrees: scalar, a multiple of 1/2.

  Returns:
    uint8 [H,W,C].
  """
  height, width, channels = levels.shape
  matrices = jnp.asarray(_fixed_matrices(height, width))
  a, b, c, d, e, f = _row(matrices, degrees)
  right = jnp.arange(width, dtype=jnp.int32)
  down = jnp.arange(height, dtype=jnp.int32)[:, None]
  x = (a * right + b * down + c) >> 16
  y = (d * right + e * down + f) >> 16
  inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
  index = jnp.where(inside, y * width + x, 0)
  turned = levels.reshape(height * width, channels)[index]
  return jnp.where(inside[..., None], turned, jnp.uint8(0))


def bilinear(
  image: jax.Array, index: jax.Array, down: jax.Array, right: jax.Array
) -> jax.Array:
  """Samples an image between its pixels, at the positions from `neighbors`.

  Args:
    image: floats [H,W,C].
    index: int32 [2,2,H,W].
    down: floats [H,W].
    right: floats [H,W].

  Returns:
    Floats [H,W,C].
  """
  flat = image.reshape(-1, image.shape[-1])
  down, right = down[..., None], right[..., None]
  (first, second), (third, fourth) = ((flat[i] for i in row) for row in index)
  upper = first + right * (second - first)
  lower = third + right * (fourth - third)
  return upper + down * (lower - upper)


def neighbors(
  row: jax.Array, column: jax.Array, border: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The four pixels around each position, in an image of the arrays' size.

  Args:
    row: floats [H,W].
    column: floats [H,W].
    border: how the image is mirrored: "reflect" at the centers of the outermost
      pixels, which are not repeated, or "symmetric" at their outer edges.

  Returns:
    Indices of the pixels, int32 [2,2,H,W] (above and below, before and after),
    and the fractional offsets down and right, in [0,1).
  """
  height, width = row.shape
  above, before = jnp.floor(row), jnp.floor(column)
  y, x = above.astype(jnp.int32), before.astype(jnp.int32)
  ys = jnp.stack([_mirror(y, height, border), _mirror(y + 1, height, border)])
  xs = jnp.stack([_mirror(x, width, border), _mirror(x + 1, width, border)])
  return ys[:, None] * width + xs, row - above, column - before


def _mirror(index: jax.Array, size: int, border: str) -> jax.Array:
  """Maps an index inside or outside the image to a pixel."""
  repeated = {"reflect": 0, "symmetric": 1}[border]
  period = 2 * (size - 1 + repeated)
  index = index % period
  return jnp.minimum(index, period - repeated - index)


def _transpose(levels: jax.Array) -> jax.Array:
  """Swaps rows and columns."""
  return jnp.swapaxes(levels, 0, 1)


def _row(table: jax.Array, degrees: jax.Array) -> jax.Array:
  """The table's row for an angle; there is one for every half degree."""
  return table[jnp.round(2 * degrees).astype(jnp.int32) % 720]


def coordinate_bits(size: int) -> int:
  """Number of fractional bits for which 3 times the size fits in 31 bits."""
  return 29 - math.ceil(math.log2(size))


def split(fixed: jax.Array, bits: int) -> tuple[jax.Array, jax.Array]:
  """Whole part (floor) and fraction, the fraction as a weight."""
  part = fixed & ((1 << bits) - 1)
  surplus = bits - _WEIGHT_BITS
  part = part >> surplus if surplus >= 0 else part << -surplus
  return fixed >> bits, part


def _mix(first: jax.Array, second: jax.Array, part: jax.Array) -> jax.Array:
  """Linear interpolation of levels, as a fixed-point number."""
  return (first << _WEIGHT_BITS) + (second - first) * part


def mix_corners(
  corners: Sequence[jax.Array], down: jax.Array, right: jax.Array
) -> jax.Array:
  """Bilinear interpolation of levels, truncated, with weights from `split`."""
  first, second, third, fourth = corners
  upper = _mix(first, second, right)
  lower = _mix(third, fourth, right)
  return (upper + _product(lower - upper, down)) >> _WEIGHT_BITS


def _linear(tap: Callable, part: jax.Array) -> jax.Array:
  """Two-tap interpolation, truncated."""
  return _mix(tap(0), tap(1), part) >> _WEIGHT_BITS


def _cubic(tap: Callable, part: jax.Array) -> jax.Array:
  """Four-tap interpolation (Keys, a = -1), clipped and truncated."""
  square = _product(part, part)
  cube = _product(square, part)
  before = 2 * square - part - cube
  after = part + square - cube
  beyond = cube - square
  # The remaining weight, so that constant images do not change.
  here = _ONE - before - after - beyond
  total = tap(-1) * before + tap(0) * here + tap(1) * after + tap(2) * beyond
  return jnp.clip(total >> _WEIGHT_BITS, 0, 255)


def _product(value: jax.Array, part: jax.Array) -> jax.Array:
  """`value * part / 2^22` for |value| < 2^30 and weights below one."""
  half = _WEIGHT_BITS // 2
  mask = (1 << half) - 1
  high, low = value >> half, value & mask
  part_high, part_low = part >> half, part & mask
  middle = low * part_high + high * part_low + ((low * part_low) >> half)
  return high * part_high + (middle >> half)


@functools.cache
def turns() -> np.ndarray:
  """Cosine and sine [720,2] of Pillow's negated angle for each half degree."""
  angles = [-math.radians(half / 2) for half in range(720)]
  return np.array(
    [[round(math.cos(a), 15), round(math.sin(a), 15)] for a in angles]
  )


@functools.cache
def _fixed_matrices(height: int, width: int) -> np.ndarray:
  """Pillow's 16.16 matrices [720,6] of the rotations about the center."""
  cos, sin = turns().T
  x, y = width / 2, height / 2
  # How the source (x, y) moves per pixel, and the source of the first pixel.
  right, down = np.array([cos, -sin]), np.array([sin, cos])
  corner = right * -x + down * -y + np.array([[x], [y]])
  first = corner + right * 0.5 + down * 0.5
  rows = np.stack([right, down, first], axis=1).reshape(6, -1).T
  return np.floor(rows * 65536 + 0.5).astype(np.int32)
