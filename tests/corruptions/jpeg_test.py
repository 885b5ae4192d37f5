"""JPEG compression equals Pillow's exactly."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from ram_jax.corruptions import jpeg

QUALITIES = (1, 40, 50, 80, 100)


def pillow(levels, quality):
  file = io.BytesIO()
  Image.fromarray(levels).save(file, "JPEG", quality=quality)
  return np.asarray(Image.open(file))


def images(height, width):
  """Noise, smooth noise, a ramp, black and white."""
  rng = np.random.default_rng(height)
  noise = rng.integers(0, 256, (2, height, width, 3), np.uint8)
  small = Image.fromarray(noise[1, : height // 4, : width // 4])
  ramp = np.linspace(0, 255, width).astype(np.uint8)
  return np.stack(
    [
      noise[0],
      np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)),
      np.broadcast_to(ramp[:, None], (height, width, 3)),
      np.zeros((height, width, 3), np.uint8),
      np.full((height, width, 3), 255, np.uint8),
    ]
  )


# Whole and half blocks, odd sides, chroma that ends within a block.
@pytest.mark.parametrize("size", [(32, 32), (28, 44), (33, 47)])
def test_equals_pillow(size):
  batch = images(*size)
  compress = jax.jit(jax.vmap(jpeg.compress, (0, None)))
  for quality in QUALITIES:
    actual = compress(batch, jpeg.divisors(quality))
    reference = np.stack([pillow(image, quality) for image in batch])
    np.testing.assert_array_equal(
      actual, reference, err_msg=f"quality {quality}"
    )
