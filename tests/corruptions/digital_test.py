"""Digital corruptions equal the original's, and the libraries that it uses."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage  # a dependency of scikit-learn
from PIL import Image

from ram_jax.corruptions import digital
from ram_jax.image import geometry
from tests.corruptions import reference

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


@pytest.mark.parametrize(
  ("function", "unequal"),
  [
    # Largest values that are whole: doubles leave some of them just below.
    (digital.brightness, 0.04),
    (digital.saturate, 0.09),
    (digital.contrast, 0),
    (digital.pixelate, 0),
    (digital.jpeg_compression, 0),
  ],
)
def test_equals_the_original(function, unequal, shared_data):
  for difference in reference.differences(function, shared_data):
    assert difference.max() <= 1
    assert np.mean(difference > 0) <= unequal


def run(function, levels, severity):
  image = jnp.asarray(levels, jnp.float32) / 255
  made = reference.corrupt_one(function, KEY, image, severity)
  return np.round(255 * np.asarray(made)).astype(int)


def hsv(levels, change):
  """Python's own HSV: levels [H,W,3] with `change` made to (h, s, v)."""
  pixels = [
    colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(pixel / 255))))
    for pixel in levels.reshape(-1, 3)
  ]
  return 255 * np.clip(pixels, 0, 1).reshape(levels.shape)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_hsv_equals_python(severity):
  levels = RNG.integers(0, 256, (12, 13, 3), np.uint8)
  levels[0] = RNG.integers(0, 256, (13, 1))  # grays
  levels[1, :5] = 0
  levels[1, 5:] = 255
  more = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
  bright = hsv(levels, lambda h, s, v: (h, s, min(v + more, 1)))
  factor, added = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[
    severity - 1
  ]
  strong = hsv(levels, lambda h, s, v: (h, min(s * factor + added, 1), v))
  for function, expected in (
    (digital.brightness, bright),
    (digital.saturate, strong),
  ):
    actual = run(function, levels, severity)
    # Truncated: at most one below, and integers are.
    assert (actual <= expected + 1e-6).all() and (
      actual > expected - 1 - 1e-6
    ).all()


@pytest.mark.parametrize("size", [(28, 28), (33, 48), (96, 70)])
def test_pixelate_equals_pillow(size):
  levels = RNG.integers(0, 256, (*size, 3), np.uint8)
  image = Image.fromarray(levels)
  for severity, share in enumerate((0.95, 0.9, 0.85, 0.75, 0.65), 1):
    small = int(size[1] * share), int(size[0] * share)
    expected = image.resize(small, Image.Resampling.BOX).resize(
      image.size, Image.Resampling.BOX
    )
    actual = run(digital.pixelate, levels, severity)
    np.testing.assert_array_equal(actual, np.asarray(expected), f"{severity}")


@pytest.mark.parametrize("side", [31, 290, 700])
def test_contrast_is_exact_at_any_size(side):
  levels = RNG.integers(200, 256, (side, side, 3), np.uint8)
  levels[:2] = 255
  wide = levels.astype(np.int64)
  total = wide.sum(axis=(0, 1))
  for severity, share in ((1, 75), (5, 15)):
    exact = share * side**2 * wide + (100 - share) * total
    expected = exact // (100 * side**2)
    np.testing.assert_array_equal(
      run(digital.contrast, levels, severity), expected
    )


@pytest.mark.parametrize(
  ("border", "mode"), [("reflect", "mirror"), ("symmetric", "reflect")]
)
def test_sampling_equals_scipy(border, mode):
  image = RNG.random((11, 17, 2), np.float32)
  row, column = RNG.uniform(-40, 60, (2, 11, 17)).astype(np.float32)
  actual = geometry.bilinear(image, *geometry.neighbors(row, column, border))
  for channel in range(2):
    expected = scipy.ndimage.map_coordinates(
      image[..., channel], [row, column], order=1, mode=mode
    )
    # Parts of coordinates up to 60 are known to 4e-6.
    np.testing.assert_allclose(actual[..., channel], expected, atol=2e-5)


@pytest.mark.parametrize("size", [(32, 32), (30, 45)])
def test_affine_maps_moved_points_to_their_origins(size):
  height, width = size
  center, side = np.array([height // 2, width // 2]), min(size) // 3
  before = center + side * np.array([[1, 1], [1, -1], [-1, -1]])
  moves = RNG.uniform(-2.5, 2.5, (3, 2)).astype(np.float32)
  row, column = digital.affine_source(height, width, jnp.asarray(moves))
  corners = np.column_stack([before + moves, np.ones(3)])
  matrix = np.linalg.solve(corners, before)  # of (x, y, 1)
  y, x = np.mgrid[:height, :width]
  expected = np.stack([x, y, np.ones(size)], axis=-1) @ matrix
  np.testing.assert_allclose(column, expected[..., 0], atol=2e-5)
  np.testing.assert_allclose(row, expected[..., 1], atol=2e-5)
