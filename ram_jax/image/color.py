"""Pillow's per-pixel operations in integers, identical on all devices.

Images here are uint8 [H,W,C], with C = 1 (Pillow's mode L) or 3 (RGB).
With integer arithmetic, results do not depend on the compiler: eager, jit,
vmap, float64 mode and any batch size give the same values.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = 256


def quantise(image: jax.Array) -> jax.Array:
  """Rounds an image in [0,1] to uint8."""
  return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8)


def dequantise(levels: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
  """Converts uint8 values to an image in [0,1] (default: jnp's float)."""
  return levels.astype(dtype or jnp.result_type(float)) / 255


def truncate(image: jax.Array) -> jax.Array:
  """Truncates an image in [0,1] to uint8.

  Values less than a thousandth below an integer count as that integer.
  """
  return jnp.floor(jnp.clip(image, 0, 1) * 255 + 1e-3).astype(jnp.uint8)


def luminance(levels: jax.Array) -> jax.Array:
  """Pillow's conversion of RGB to L, ITU-R 601-2 with 16 fractional bits.

  Args:
    levels: uint8 [H,W,C], C = 1 or 3.

  Returns:
    int32 [H,W,1] in 0..255.

  Raises:
    ValueError: on another number of channels.

  Source: Pillow `libImaging/Convert.c`, L24.
  """
  wide = levels.astype(jnp.int32)
  channels = levels.shape[-1]
  if channels == 1:
    return wide
  if channels != 3:
    raise ValueError(f"images have {channels} channels; give 1 or 3")
  red, green, blue = wide[..., 0:1], wide[..., 1:2], wide[..., 2:3]
  return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def blend(first: jax.Array, second: jax.Array, factor: jax.Array) -> jax.Array:
  """Image.blend: `first + factor * (second - first)`, truncated and clipped.

  Args:
    first: integers in 0..255, broadcastable to `second`.
    second: uint8 [H,W,C].
    factor: scalar; 0 gives `first`, 1 gives `second`, above extrapolates.

  Returns:
    uint8 [H,W,C].

  Source: Pillow `libImaging/Blend.c`, which computes in C floats.
  """
  first = jnp.asarray(first, jnp.int32)
  difference = (second.astype(jnp.int32) - first).astype(jnp.float32)
  # The clamp changes nothing for |factor| < 1e3; it keeps the compiler from
  # fusing product and sum into one rounding, which Pillow does not do.
  change = jnp.clip(jnp.float32(factor) * difference, -3e5, 3e5)
  mixed = first.astype(jnp.float32) + change
  return jnp.clip(mixed, 0, 255).astype(jnp.uint8)


def posterize(levels: jax.Array, bits: jax.Array) -> jax.Array:
  """ImageOps.posterize: keeps the highest `bits` (1..8) of every level."""
  mask = jnp.left_shift(0xFF, 8 - jnp.asarray(bits, jnp.int32))
  return (levels.astype(jnp.int32) & mask).astype(jnp.uint8)


def solarize(levels: jax.Array, threshold: jax.Array) -> jax.Array:
  """ImageOps.solarize: inverts levels at or above `threshold` (0..256)."""
  below = levels.astype(jnp.int32) < jnp.asarray(threshold, jnp.int32)
  return jnp.where(below, levels, 255 - levels)


def color(levels: jax.Array, factor: jax.Array) -> jax.Array:
  """ImageEnhance.Color: from gray (0) over the image (1) to more color."""
  return blend(luminance(levels), levels, factor)


def contrast(levels: jax.Array, factor: jax.Array) -> jax.Array:
  """ImageEnhance.Contrast: blends with the rounded mean luminance."""
  pixels = levels.shape[0] * levels.shape[1]
  total = jnp.sum(luminance(levels), dtype=jnp.int32)
  mean = (2 * total + pixels) // (2 * pixels)  # int(mean + 0.5), exactly
  return blend(mean, levels, factor)


def brightness(levels: jax.Array, factor: jax.Array) -> jax.Array:
  """ImageEnhance.Brightness: blends with black."""
  return blend(0, levels, factor)


def autocontrast(levels: jax.Array) -> jax.Array:
  """ImageOps.autocontrast: stretches every channel to 0..255.

  Args:
    levels: uint8 [H,W,C].

  Returns:
    uint8 [H,W,C], equal to Pillow's, including the entries of its table that
    double precision leaves one below the exact quotient.
  """
  lowest = jnp.min(levels, axis=(0, 1)).astype(jnp.int32)[:, None]
  highest = jnp.max(levels, axis=(0, 1)).astype(jnp.int32)[:, None]
  level = jnp.arange(LEVELS, dtype=jnp.int32)
  span = jnp.maximum(highest - lowest, 1)
  stretched = jnp.clip(255 * (level - lowest) // span, 0, 255)
  stretched -= _one_below(lowest, highest, level)
  table = jnp.where(highest <= lowest, level, stretched)
  return lookup(levels, table)


def _one_below(
  lowest: jax.Array, highest: jax.Array, level: jax.Array
) -> jax.Array:
  """1 where Pillow's autocontrast table is one below the exact value."""
  known = jnp.asarray(_autocontrast_exceptions())
  wanted = (lowest * LEVELS + highest) * LEVELS + level
  place = jnp.searchsorted(known, wanted.ravel()).reshape(wanted.shape)
  found = known[jnp.minimum(place, known.size - 1)]
  return (found == wanted).astype(jnp.int32)


@functools.cache
def _autocontrast_exceptions() -> np.ndarray:
  """Sorted codes (lowest, highest, level) of the entries one below exact."""
  codes = []
  for span in range(1, LEVELS):
    # Rounding only matters where the exact quotient is an integer.
    offsets = np.arange(0, span + 1, span // math.gcd(span, 255))
    lowest = np.arange(LEVELS - span)[:, None]
    level = lowest + offsets
    scale = 255.0 / span
    pillow = (level * scale + -lowest * scale).astype(int)
    code = (lowest * LEVELS + lowest + span) * LEVELS + level
    codes.append(code[pillow < 255 * offsets // span])
  return np.sort(np.concatenate(codes)).astype(np.int32)


def equalize(levels: jax.Array) -> jax.Array:
  """ImageOps.equalize: flattens the histogram of every channel.

  Args:
    levels: uint8 [H,W,C].

  Returns:
    uint8 [H,W,C].
  """
  pixels = levels.shape[0] * levels.shape[1]
  counts = histogram(levels)
  highest = jnp.max(levels, axis=(0, 1)).astype(jnp.int32)[:, None]
  level = jnp.arange(LEVELS, dtype=jnp.int32)
  last = jnp.sum(jnp.where(level == highest, counts, 0), axis=1, keepdims=True)
  step = (pixels - last) // 255
  below = jnp.cumsum(counts, axis=1, dtype=jnp.int32) - counts
  safe = jnp.maximum(step, 1)
  table = jnp.where(step == 0, level, (safe // 2 + below) // safe)
  return lookup(levels, jnp.minimum(table, 255))


def histogram(levels: jax.Array) -> jax.Array:
  """Counts the levels of every channel.

  Args:
    levels: uint8 [H,W,C].

  Returns:
    int32 [C,256].
  """
  return jax.lax.platform_dependent(
    levels, tpu=histogram_by_matmul, default=histogram_by_scatter
  )


def histogram_by_scatter(levels: jax.Array) -> jax.Array:
  """The histogram for CPUs and GPUs, where scatters are fast."""
  channels = levels.shape[-1]
  first = jnp.arange(channels, dtype=jnp.int32) * LEVELS
  bins = (levels.astype(jnp.int32) + first).ravel()
  counts = jnp.zeros(channels * LEVELS, jnp.int32).at[bins].add(1)
  return counts.reshape(channels, LEVELS)


def histogram_by_matmul(levels: jax.Array) -> jax.Array:
  """The histogram for TPUs: a product of two 16-wide one-hot codes."""
  high, low = _one_hot_digits(levels)
  counts = jnp.einsum(
    "cph,cpl->chl", high, low, preferred_element_type=jnp.float32
  )
  return counts.reshape(counts.shape[0], LEVELS).astype(jnp.int32)


def lookup(levels: jax.Array, table: jax.Array) -> jax.Array:
  """Maps every level through its channel's table.

  Args:
    levels: uint8 [H,W,C].
    table: integers [C,256] in 0..255.

  Returns:
    uint8 [H,W,C].
  """
  return jax.lax.platform_dependent(
    levels,
    table.astype(jnp.uint8),
    tpu=lookup_by_matmul,
    default=lookup_by_gather,
  )


def lookup_by_gather(levels: jax.Array, table: jax.Array) -> jax.Array:
  """The table lookup for CPUs and GPUs."""
  first = jnp.arange(levels.shape[-1], dtype=jnp.int32) * LEVELS
  return table.ravel()[levels.astype(jnp.int32) + first]


def lookup_by_matmul(levels: jax.Array, table: jax.Array) -> jax.Array:
  """The table lookup for TPUs; bfloat16 holds 0..255 exactly."""
  high, low = _one_hot_digits(levels)
  digits = table.reshape(-1, 16, 16).astype(jnp.bfloat16)
  rows = jnp.einsum(
    "cph,chl->cpl", high, digits, preferred_element_type=jnp.float32
  )
  mapped = jnp.sum(rows * low, axis=-1)
  return mapped.T.reshape(levels.shape).astype(jnp.uint8)


def _one_hot_digits(levels: jax.Array) -> tuple[jax.Array, jax.Array]:
  """One-hot codes [C,P,16] of both hexadecimal digits of every level."""
  values = levels.reshape(-1, levels.shape[-1]).T.astype(jnp.int32)
  return (
    jax.nn.one_hot(values >> 4, 16, dtype=jnp.bfloat16),
    jax.nn.one_hot(values & 15, 16, dtype=jnp.bfloat16),
  )
