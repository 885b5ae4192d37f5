"""CIFAR-10-C's digital corruptions: color, JPEG, pixelation, elastic transform.

All except the elastic transform are computed in integers, and rounded as in the
original. Source: hendrycks/robustness, `make_cifar_c.py`, which uses
scikit-image, OpenCV, SciPy and Pillow. Parameters that depend on the image size
in the original are relative to it here.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from PIL import Image

from ram_jax.corruptions import jpeg
from ram_jax.corruptions.corruption import corruption
from ram_jax.image import color, geometry

# Parameters for severities 1 to 5. Brightness: added to the brightest channel,
# in quarters of a level. Contrast: factor, in hundredths. Saturation: factor
# and added constant, in tenths. Pixelate: fraction of the size. Elastic:
# displacement of pixels, its smoothness, and displacement of three points, as
# fractions of the smaller side. JPEG: Pillow's quality.
_BRIGHTNESS = (51, 102, 153, 204, 306)
_CONTRAST = (75, 50, 40, 30, 15)
_SATURATE = ((3, 0), (1, 0), (15, 0), (20, 1), (25, 2))
_PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)
_ELASTIC = (
  (0, 0, 0.08),
  (0.05, 0.2, 0.07),
  (0.08, 0.06, 0.06),
  (0.1, 0.04, 0.05),
  (0.1, 0.03, 0.03),
)
_QUALITY = (80, 65, 58, 50, 40)


@corruption(_BRIGHTNESS)
def brightness(key: jax.Array, levels: jax.Array, added: int) -> jax.Array:
  """Increases the value in HSV; hue and saturation do not change."""
  wide, value, _ = _value(levels)
  brighter = jnp.minimum(4 * value + added, 4 * 255)
  scaled = wide * brighter // jnp.maximum(4 * value, 1)
  # Black has no hue: it becomes gray.
  return jnp.where(value == 0, brighter // 4, scaled)


@corruption(_SATURATE)
def saturate(
  key: jax.Array, levels: jax.Array, parameters: tuple[int, int]
) -> jax.Array:
  """Changes the saturation in HSV; the constant tints grays red (hue 0)."""
  factor, constant = parameters
  wide, value, range_ = _value(levels)
  # New range between the largest and the smallest channel, in tenths of a
  # level; each channel keeps its relative position in the range.
  depth = jnp.minimum(factor * range_ + constant * value, 10 * value)
  red = jnp.array([0, 1, 1], jnp.int32)
  below = jnp.where(range_ == 0, red, value - wide)
  whole = 10 * jnp.maximum(range_, 1)
  return value - (depth * below + whole - 1) // whole


@corruption(_CONTRAST)
def contrast(key: jax.Array, levels: jax.Array, kept: int) -> jax.Array:
  """Moves every channel toward its mean; exact up to 8 million pixels."""
  wide = levels.astype(jnp.int32)
  pixels = wide.shape[0] * wide.shape[1]
  mean, rest = jnp.divmod(jnp.sum(wide, (0, 1), dtype=jnp.int32), pixels)
  lost = 100 - kept
  return (kept * wide + lost * mean + lost * rest // pixels) // 100


@corruption(_QUALITY, lambda quality, *_: jpeg.divisors(quality))
def jpeg_compression(
  key: jax.Array, levels: jax.Array, divisors: tuple[jpeg.Divisors, ...]
) -> jax.Array:
  """Compresses and decompresses the image as JPEG."""
  return jpeg.compress(levels, divisors)


def _blocks(
  fraction: float, shape: Sequence[int], *_: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
  return [_boxes(size, fraction) for size in shape[:2]]


@corruption(_PIXELATE, _blocks)
def pixelate(
  key: jax.Array, levels: jax.Array, boxes: list[tuple[jax.Array, jax.Array]]
) -> jax.Array:
  """Downscales the image by averaging pixels, and enlarges it again.

  For each row and each column, `boxes` contains the first and last pixel of the
  box that is averaged.
  """
  wide = levels.astype(jnp.int32)
  for axis in (1, 0):
    first, last = boxes[axis]
    wide = jnp.take(wide, first, axis) + jnp.take(wide, last, axis) + 1 >> 1
  return wide


def _elastic(
  row: tuple[float, ...], shape: Sequence[int], *_: Any
) -> dict[str, Any]:
  movement, smoothness, corners = (min(shape[:2]) * part for part in row)
  found = {"corners": corners}
  if movement:
    rows, columns = (smoothing(size, smoothness) for size in shape[:2])
    found |= {"movement": movement, "rows": rows, "columns": columns}
  return found


@corruption(_ELASTIC, _elastic)
def elastic_transform(
  key: jax.Array, levels: jax.Array, parameters: dict[str, Any]
) -> jax.Array:
  """Applies a random affine map, and then smooth random displacements.

  Parameters are `corners`, the largest displacement in pixels of the three
  points that define the map, and, if pixels are displaced, `movement`, the
  scale of the displacements in pixels, and their smoothing matrices `rows` and
  `columns`.
  """
  height, width, _ = levels.shape
  corner_key, pixel_key = jax.random.split(key)
  moves = _uniform(corner_key, (3, 2), parameters["corners"])
  row, column = affine_source(height, width, moves)
  places = [geometry.neighbors(row, column, "reflect")]
  if "movement" in parameters:
    noise = _uniform(pixel_key, (2, height, width), 1)
    smooth = jnp.matmul(parameters["rows"], noise, precision="highest")
    smooth = jnp.matmul(smooth, parameters["columns"].T, precision="highest")
    row, column = parameters["movement"] * smooth + jnp.mgrid[:height, :width]
    places.append(geometry.neighbors(row, column, "symmetric"))
  # A loop, because the compiler would otherwise repeat the first interpolation
  # for every pixel of the second, which is six times slower.
  moved, _ = jax.lax.scan(
    lambda moved, place: (geometry.bilinear(moved, *place), None),
    color.dequantize(levels, jnp.float32),
    jax.tree.map(lambda *arrays: jnp.stack(arrays), *places),
  )
  return color.truncate(moved)


def affine_source(
  height: int, width: int, moves: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Source of each pixel when three points around the center are displaced.

  Args:
    height: height of the image.
    width: width of the image.
    moves: floats [3,2], x and y of each point's displacement, in pixels.

  Returns:
    Row and column [H,W], floats.
  """
  # As in the original, x of the center is half the height.
  center = np.array([height // 2, width // 2])
  side = min(height, width) // 3
  before = center + side * np.array([[1, 1], [1, -1], [-1, -1]])
  after = before + moves
  (right, down), (right_2, down_2) = after[1] - after[0], after[2] - after[1]
  # Coordinates along the moved sides of the triangle, whose original sides
  # pointed up and to the left.
  y, x = jnp.mgrid[:height, :width]
  x, y = x - after[0, 0], y - after[0, 1]
  area = right * down_2 - down * right_2
  up = (down_2 * x - right_2 * y) / area
  left = (right * y - down * x) / area
  return before[0, 1] - 2 * side * up, before[0, 0] - 2 * side * left


def _uniform(key: jax.Array, shape: tuple, limit: float) -> jax.Array:
  """Floats from -limit to limit, drawn as a flat array, which is faster."""
  row = jax.random.uniform(key, (math.prod(shape),), jnp.float32, -limit, limit)
  return row.reshape(shape)


def _value(levels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Levels as int32, their maximum [H,W,1], and maximum minus minimum."""
  wide = levels.astype(jnp.int32)
  value = jnp.max(wide, axis=-1, keepdims=True)
  return wide, value, value - jnp.min(wide, axis=-1, keepdims=True)


def _boxes(size: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
  """First and last pixel [size] of the box that is averaged for each pixel."""
  # Every row is an image with one white pixel.
  weights = Image.fromarray(np.eye(size, dtype=np.float32))
  for width in (int(size * fraction), size):
    weights = weights.resize((width, size), Image.Resampling.BOX)
  inside = np.asarray(weights) > 0
  return inside.argmax(axis=0), size - 1 - inside[::-1].argmax(axis=0)


def smoothing(size: int, deviation: float) -> np.ndarray:
  """A Gaussian filter as a matrix, with a mirrored border.

  Args:
    size: size of the axis to smooth, in pixels.
    deviation: standard deviation, in pixels, of the Gaussian, which is
      truncated at three standard deviations.

  Returns:
    float32 [size,size]; rows add up to one.
  """
  # Every column is a unit impulse.
  smoothed = scipy.ndimage.gaussian_filter1d(
    np.eye(size), deviation, axis=0, truncate=3
  )
  return smoothed.astype(np.float32)
