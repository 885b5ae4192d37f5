"""Convolution filters in integer arithmetic, on uint8 images [H,W,C]."""

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.image import color

# Fractional bits of a weight: weights add up to at most one, and 255 times
# their sum fits in 31 bits.
WEIGHT_BITS = 23
Weights = tuple[dict[tuple[int, int], jax.Array], jax.Array]  # `fixed_point`


def smooth(levels: jax.Array) -> jax.Array:
  """ImageFilter.SMOOTH: weights 1, center 5, sum 13; the border is copied.

  Args:
    levels: uint8 [H,W,C].

  Returns:
    uint8 [H,W,C].

  Source: Pillow `libImaging/Filter.c`. A multiple of 1/13 is never an integer
  plus one half, so integer arithmetic rounds like Pillow's floats.
  """
  height, width, _ = levels.shape
  if height < 3 or width < 3:
    return levels
  wide = levels.astype(jnp.int32)
  rows = wide[:-2] + wide[1:-1] + wide[2:]
  total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * wide[1:-1, 1:-1]
  inner = (2 * total + 13) // 26
  return jnp.asarray(levels).at[1:-1, 1:-1].set(inner.astype(jnp.uint8))


def sharpness(levels: jax.Array, factor: jax.Array) -> jax.Array:
  """ImageEnhance.Sharpness: 0 is smooth, 1 the original, above 1 sharper."""
  return color.blend(smooth(levels), levels, factor)


def correlate(levels: jax.Array, weights: Weights, border: str) -> jax.Array:
  """Correlates an image with a kernel, without intermediate rounding.

  Weights are fixed-point numbers with 23 fractional bits, so a kernel that adds
  up to one does not change a constant image, and the result does not depend on
  the compiler.

  Args:
    levels: uint8 [H,W,C].
    weights: the kernel, from `fixed_point`.
    border: mode of `jnp.pad` for pixels outside the image.

  Returns:
    uint8 [H,W,C], truncated.
  """
  kernel, total = weights
  height, width, channels = levels.shape
  down, right = np.abs(list(kernel)).max(axis=0)
  pad = ((down, down), (right, right), (0, 0))
  padded = jnp.pad(levels, pad, border).astype(jnp.int32)
  # Merge channels into the rows, so that the innermost loop is longer.
  flat = padded.reshape(height + 2 * down, -1)
  for (y, x), weight in kernel.items():
    first = (right + x) * channels
    window = flat[down + y :][:height, first : first + width * channels]
    total = total + weight * window
  return (total >> WEIGHT_BITS).astype(jnp.uint8).reshape(levels.shape)


def fixed_point(kernel: np.ndarray, channels: int = 1) -> Weights:
  """Rounds the weights of a kernel to fixed-point numbers.

  Args:
    kernel: floats [h,w], or [h,w,H,W] with a kernel for each pixel; h and w are
      odd, and the weights are non-negative and add up to at most 1.
    channels: number of channels of the images, for per-pixel kernels.

  Returns:
    The nonzero weights by their offset (y, x) from the center, int32 [1,1] or
    [H,W*channels]; and the largest error due to rounding down. If this is added
    to a weighted sum of levels whose exact value is an integer, truncation
    gives that integer and not the next lower one.
  """
  exact = kernel.reshape(*kernel.shape[:2], *(kernel.shape[2:] or (1, 1)))
  exact = exact * (1 << WEIGHT_BITS)
  rounded = np.round(exact).astype(np.int32)
  missing = np.ceil(255 * np.maximum(exact - rounded, 0).sum(axis=(0, 1)))
  if kernel.ndim > 2:
    rounded = rounded.repeat(channels, axis=-1)
    missing = missing.repeat(channels, axis=-1)
  center = np.array(kernel.shape[:2]) // 2
  weights = {
    tuple((place - center).tolist()): rounded[tuple(place)]
    for place in np.argwhere(rounded.any(axis=(2, 3)))
  }
  return weights, missing.astype(np.int32)


def gaussian_kernel(deviation: float, truncate: float = 4.0) -> np.ndarray:
  """SciPy's Gaussian filter as a kernel [h,w].

  Args:
    deviation: standard deviation in pixels, above 0.
    truncate: radius of the kernel in standard deviations, rounded to pixels.

  Returns:
    Weights that add up to one.
  """
  radius = int(truncate * deviation + 0.5)
  steps = np.arange(-radius, radius + 1)
  bell = np.exp(-(steps**2) / (2 * deviation**2))
  bell /= bell.sum()
  return np.outer(bell, bell)
