"""Pillow's convolution filters in integers, on uint8 [H,W,C] grey levels."""

import jax
import jax.numpy as jnp

from ram_jax.image import color


def smooth(levels: jax.Array) -> jax.Array:
  """ImageFilter.SMOOTH: weights 1, centre 5, sum 13; the border is copied.

  Args:
    levels: uint8 [H,W,C].

  Returns:
    uint8 [H,W,C].

  Source: Pillow `libImaging/Filter.c`. A sum over 13 plus one half is never
  whole, so integers round as its floats do.
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
  """ImageEnhance.Sharpness: from smooth (0) over the image (1) to sharp."""
  return color.blend(smooth(levels), levels, factor)
