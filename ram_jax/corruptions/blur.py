"""CIFAR-10-C's blurs, except for motion blur (`motion.py`).

They act on uint8 values with fixed-point weights, so that the images do not
depend on the compiler. Source: hendrycks/robustness, `make_cifar_c.py`, which
uses filters from OpenCV, scikit-image and SciPy. Radii and standard deviations
are in pixels, independent of the image size.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.corruptions.corruption import corruption
from ram_jax.image import filters

# Parameters for severities 1 to 5. Defocus: radius of the disk, standard
# deviation of its smoothing. Glass: standard deviation of the blur before and
# after pixels move, number of moves. Zoom: end of the zoom factors, which are
# 0.01 apart. Gaussian: standard deviation.
_DEFOCUS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
_GLASS = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))
_ZOOM = (1.06, 1.11, 1.16, 1.21, 1.26)
_GAUSSIAN = (0.4, 0.6, 0.7, 0.8, 1)


@corruption(_DEFOCUS, lambda row, *_: filters.fixed_point(disk(*row)))
def defocus_blur(
  key: jax.Array, levels: jax.Array, weights: filters.Weights
) -> jax.Array:
  """Convolves the image with a small disk."""
  return filters.correlate(levels, weights, "reflect")


def _gaussian(deviation: float, *_: Any) -> filters.Weights:
  return filters.fixed_point(filters.gaussian_kernel(deviation))


@corruption(_GAUSSIAN, _gaussian)
def gaussian_blur(
  key: jax.Array, levels: jax.Array, weights: filters.Weights
) -> jax.Array:
  """Blurs with a Gaussian kernel."""
  return filters.correlate(levels, weights, "edge")


@corruption(_GLASS, lambda row, *_: (_gaussian(row[0]), row[1]))
def glass_blur(
  key: jax.Array, levels: jax.Array, parameters: tuple[filters.Weights, int]
) -> jax.Array:
  """Blurs, moves pixels around once or twice, and blurs again."""
  weights, moves = parameters
  levels = filters.correlate(levels, weights, "edge")
  height, width, _ = levels.shape
  bits = jax.random.bits(key, (height * width,), jnp.uint8)
  bits = bits.reshape(height, width)
  levels = copy_neighbors(bits, levels)  # uses the two lowest bits
  levels = copy_neighbors(jnp.where(moves > 1, bits >> 2, 0), levels)
  return filters.correlate(levels, weights, "edge")


def _zooms(end: float, shape: Sequence[int], *_: Any) -> filters.Weights:
  """Kernels [h,w,H,W] of the mean over the image and all its zooms."""
  height, width, channels = shape
  zooms = [1, *np.arange(1, end, 0.01)]
  rows = np.stack([_bands(height, zoom) for zoom in zooms])
  columns = np.stack([_bands(width, zoom) for zoom in zooms])
  kernels = np.einsum("zia,zjb->ijab", rows, columns) / len(rows)
  return filters.fixed_point(kernels, channels)


@corruption(_ZOOM, _zooms)
def zoom_blur(
  key: jax.Array, levels: jax.Array, weights: filters.Weights
) -> jax.Array:
  """Averages the image and zoomed-in versions of it.

  The original only supports square images; here, each axis of an image is
  enlarged about its own center.
  """
  return filters.correlate(levels, weights, "edge")


def copy_neighbors(bits: jax.Array, levels: jax.Array) -> jax.Array:
  """Keeps each pixel, or copies its upper, left or upper-left neighbor.

  The original intends to swap the two pixels, but the second half of its swap
  reads a view that the first half has overwritten. It processes pixels from
  last to first, so it always copies original values; here, all pixels are
  therefore copied in one step.

  Args:
    bits: uint8 [H,W]; the lowest bit selects the row above, the next bit the
      column to the left.
    levels: uint8 [H,W,C].

  Returns:
    uint8 [H,W,C]; the first two rows and columns are unchanged.
  """
  up, left = (bits & 1)[2:, 2:, None] > 0, (bits & 2)[2:, 2:, None] > 0
  here = jnp.where(left, levels[2:, 1:-1], levels[2:, 2:])
  above = jnp.where(left, levels[1:-1, 1:-1], levels[1:-1, 2:])
  return levels.at[2:, 2:].set(jnp.where(up, above, here))


def disk(radius: float, deviation: float) -> np.ndarray:
  """The pixels within a radius, smoothed by a 3x3 Gaussian.

  Args:
    radius: radius in pixels, below 2.
    deviation: standard deviation of the Gaussian, in pixels.

  Returns:
    Weights [5,5] that add up to one.
  """
  steps = np.arange(-2, 3)
  inside = np.hypot(steps, steps[:, None]) <= radius
  bell = np.exp(-(steps**2) / (2 * deviation**2)) * (abs(steps) <= 1)
  around = np.pad(inside / inside.sum(), 2)
  windows = np.lib.stride_tricks.sliding_window_view(around, (5, 5))
  return np.einsum("ijkl,k,l->ij", windows, *2 * [bell / bell.sum()])


def _bands(size: int, zoom: float) -> np.ndarray:
  """Weights [w,size] of neighboring pixels that enlarge the center of an axis.

  Equals SciPy's linear `zoom`, which aligns the centers of corner pixels,
  cropped to the original size.
  """
  kept = math.ceil(size / zoom)
  enlarged = round(kept * zoom)
  first = (size - kept) // 2
  pixel = np.arange(size)
  place = pixel + (enlarged - size) // 2
  place = place * ((kept - 1) / (enlarged - 1))
  source = first + place - pixel
  reach = math.ceil(size * (1 - 1 / _ZOOM[-1]) / 2) + 1
  steps = np.arange(-reach, reach + 1)[:, None]
  return np.maximum(1 - abs(source - steps), 0) * (place <= kept - 1)
