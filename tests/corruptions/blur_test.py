"""Blurs equal the original's, and SciPy's filters at other sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage  # a dependency of scikit-learn

from ram_jax.corruptions import blur
from ram_jax.image import filters
from tests.corruptions import reference

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
  "function", [blur.defocus_blur, blur.zoom_blur, blur.gaussian_blur]
)
def test_equals_the_original(function, shared_data):
  for difference in reference.differences(function, shared_data):
    assert difference.max() <= 1
    # Rounding errors can put a result just below an integer before truncation.
    assert np.mean(difference > 0) <= 0.06


@functools.partial(jax.jit, static_argnums=(1, 2))
def run(levels, function, severity):
  images = jnp.asarray(levels, jnp.float32) / 255
  keys = jax.random.split(jax.random.key(0), len(levels))
  blurred = jax.vmap(
    lambda key, x: reference.corrupt_one(function, key, x, severity)
  )(keys, images)
  return jnp.round(255 * blurred).astype(jnp.uint8)


def truncated(images):
  """Truncates floats in [0,255]; tolerates rounding errors below integers."""
  return np.floor(np.asarray(images, float) + 1e-6).astype(np.uint8)


@pytest.mark.parametrize("deviation", [0.05, 0.4, 1])
def test_gaussian_equals_scipy(deviation):
  levels = RNG.integers(0, 256, (33, 28, 3), np.uint8)
  levels[:9, :9] = 255
  kernel = filters.gaussian_kernel(deviation)
  actual = filters.correlate(levels, filters.fixed_point(kernel), "edge")
  expected = scipy.ndimage.gaussian_filter(
    levels.astype(float), (deviation, deviation, 0), mode="nearest"
  )
  # Weights have 23 bits: rounding 81 of them changes a level by up to 1e-3.
  difference = truncated(expected).astype(int) - np.asarray(actual)
  assert np.abs(difference).max() <= 1
  assert np.mean(difference != 0) <= 1e-3


@pytest.mark.parametrize(("side", "severity"), [(28, 5), (45, 4), (96, 1)])
def test_zoom_equals_scipy(side, severity):
  levels = RNG.integers(0, 256, (1, side, side, 3), np.uint8)
  total = levels[0].astype(float)
  zooms = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
  for zoom in zooms:
    kept = int(np.ceil(side / zoom))
    start = (side - kept) // 2
    center = levels[0, start : start + kept, start : start + kept]
    large = scipy.ndimage.zoom(center.astype(float), (zoom, zoom, 1), order=1)
    start = (len(large) - side) // 2
    total += large[start : start + side, start : start + side]
  expected = truncated(total / (len(zooms) + 1))
  actual = np.asarray(run(levels, blur.zoom_blur, severity)[0])
  difference = expected.astype(int) - actual
  assert np.abs(difference).max() <= 1
  assert np.mean(difference != 0) <= 1e-3


def test_disk_is_whole_and_symmetric():
  for row in ((0.3, 0.4), (1, 0.2), (1.5, 0.1)):
    kernel = blur.disk(*row)
    np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-12)
    np.testing.assert_array_equal(kernel, kernel[::-1].T)
  # With negligible smoothing: a cross of five pixels, and a square of nine.
  assert (blur.disk(1, 0.1) > 0.1).sum() == 5
  assert (blur.disk(1.5, 0.1) > 0.1).sum() == 9


def test_glass_equals_swapping_in_numpy():
  height, width = 11, 14
  levels = RNG.integers(0, 256, (height, width, 3), np.uint8)
  bits = RNG.integers(0, 4, (height, width), np.uint8)
  actual = blur.copy_neighbors(jnp.asarray(bits), jnp.asarray(levels))
  pixels = levels.copy()
  for y in range(height - 1, 1, -1):
    for x in range(width - 1, 1, -1):
      up, left = bits[y, x] & 1, bits[y, x] >> 1
      here, there = pixels[y, x], pixels[y - up, x - left]
      pixels[y, x], pixels[y - up, x - left] = there, here
  np.testing.assert_array_equal(actual, pixels)
  assert (pixels[2:, 2:] != levels[2:, 2:]).any()


def test_glass_moves_each_way_equally_often():
  """Two ramps (columns and rows) show where each pixel comes from."""
  ramp = np.stack([*np.mgrid[:64, :64], np.zeros((64, 64))], axis=-1)
  levels = np.repeat(np.uint8(4 * ramp)[None], 8, axis=0)
  for severity, iterations in ((1, 1), (2, 1), (4, 2)):
    # The blur does not change a ramp, except at the borders.
    found = np.asarray(run(levels, blur.glass_blur, severity), int)
    # The second blur truncates, so a value may be one level lower.
    moves = np.round((levels - found)[:, 8:-8, 8:-8, :2] / 4)
    # Each move is 0 or 1 pixels with equal probability, for 18,432 pixels and
    # two axes.
    assert moves.mean() == pytest.approx(iterations / 2, abs=0.02)
