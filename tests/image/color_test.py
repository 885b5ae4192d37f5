"""Histograms and tables agree between their two implementations and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFilter

from ram_jax.image import color, filters, geometry

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), np.uint8)


@pytest.mark.parametrize(
  "histogram",
  [color.histogram_by_scatter, color.histogram_by_matmul, color.histogram],
)
def test_histogram_equals_numpy(histogram):
  images = IMAGES.copy()
  images[1] = 255
  images[2, ..., 1] = 7
  counts = jax.jit(jax.vmap(histogram))(images)
  expected = [
    [np.bincount(i[..., c].ravel(), minlength=256) for c in range(3)]
    for i in images
  ]
  np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize(
  "lookup", [color.lookup_by_gather, color.lookup_by_matmul, color.lookup]
)
def test_lookup_equals_numpy(lookup):
  tables = np.random.default_rng(1).integers(0, 256, (4, 3, 256), np.uint8)
  mapped = jax.jit(jax.vmap(lookup))(IMAGES, tables)
  for image, table, actual in zip(IMAGES, tables, mapped, strict=True):
    for channel in range(3):
      expected = table[channel][image[..., channel]]
      np.testing.assert_array_equal(actual[..., channel], expected)


@pytest.mark.parametrize("rows", [color.rows_by_gather, color.rows_by_matmul])
def test_rows_equal_numpy(rows):
  table = np.random.default_rng(1).integers(0, 256, (300, 7), np.uint8)
  index = np.array([[0, 299, 7], [255, 256, 7]])
  np.testing.assert_array_equal(rows(table, index), table[index])


def test_quantize_inverts_dequantize_and_clips():
  levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
  np.testing.assert_array_equal(
    color.quantize(color.dequantize(levels)), levels
  )
  outside = jnp.array([-0.5, 1.5, 0.6 / 255, 0.4 / 255])
  assert color.quantize(outside).tolist() == [0, 255, 1, 0]


def test_luminance_equals_pillow_and_rejects_other_channels():
  expected = np.asarray(Image.fromarray(IMAGES[0]).convert("L"))
  np.testing.assert_array_equal(color.luminance(IMAGES[0])[..., 0], expected)
  with pytest.raises(ValueError, match="4 channels; give 1 or 3"):
    color.luminance(jnp.zeros((2, 2, 4), jnp.uint8))


def test_smooth_equals_pillow():
  expected = Image.fromarray(IMAGES[0]).filter(ImageFilter.SMOOTH)
  np.testing.assert_array_equal(filters.smooth(IMAGES[0]), expected)
  thin = jnp.asarray(IMAGES[0, :2])
  np.testing.assert_array_equal(filters.smooth(thin), thin)  # all border


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("size", [8, 300, 700])
def test_shear_of_any_size(size, cubic):
  image = np.random.default_rng(2).integers(0, 256, (size, 9, 3), np.uint8)
  kind = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
  coefficient = float(np.float32(-0.0371))
  expected = np.asarray(
    Image.fromarray(image).transform(
      (9, size), Image.Transform.AFFINE, (1, coefficient, 0, 0, 1, 0), kind
    )
  ).astype(int)
  shear = jax.jit(geometry.shear_x, static_argnums=2)
  actual = np.asarray(shear(image, coefficient, cubic))
  difference = np.abs(actual - expected)
  assert difference.max() <= 1
  assert np.mean(difference > 0) <= 1e-3
