"""Pillow's color operations, with identical results on all devices.

Images here are uint8 [H,W,C], with C = 1 (Pillow's mode L) or 3 (RGB).
Arithmetic is in integers, or in float32 operations that no compiler can
reorder, so the values are the same with and without jit and vmap, under x64,
and for any batch size.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = 256


def quantize(image: jax.Array) -> jax.Array:
  """Rounds an image in [0,1] to uint8."""
  return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8)


def dequantize(levels: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
  """Converts uint8 values to [0,1], in `dtype` or JAX's default float type."""
  return levels.astype(dtype or jnp.result_type(float)) / 255


def truncate(image: jax.Array) -> jax.Array:
  """Truncates an image in [0,1] to uint8.

  Values less than 1/1000 of a level below a whole level are rounded up to it.
  """
  return jnp.floor(jnp.clip(image, 0, 1) * 255 + 1e-3).astype(jnp.uint8)


def luminance(levels: jax.Array) -> jax.Array:
  """Pillow's conversion of RGB to L, ITU-R 601-2 with 16 fractional bits.

  Args:
    levels: uint8 [H,W,C], C = 1 or 3.

  Returns:
    int32 [H,W,1] in 0..255.

  Raises:
    ValueError: for any other number of channels.

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
    factor: scalar; 0 gives `first`, 1 gives `second`, above 1 extrapolates.

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
  """ImageEnhance.Color: 0 is gray, 1 the original, above 1 more color."""
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
    uint8 [H,W,C].
  """
  lowest = jnp.min(levels, axis=(0, 1)).astype(jnp.int32)[:, None]
  highest = jnp.max(levels, axis=(0, 1)).astype(jnp.int32)[:, None]
  return lookup(levels, autocontrast_table(lowest, highest))


def autocontrast_table(lowest: jax.Array, highest: jax.Array) -> jax.Array:
  """Pillow's table, for channels with these extreme levels.

  Args:
    lowest: int32 [...,1].
    highest: int32 [...,1].

  Returns:
    int32 [...,256], including the entries that double precision leaves one
    below the exact quotient.
  """
  level = jnp.arange(LEVELS, dtype=jnp.int32)
  offset = jnp.maximum(level - lowest, 0)
  stretched = _quotient(255 * offset, jnp.maximum(highest - lowest, 1))
  stretched = jnp.minimum(stretched, 255) - _one_below(lowest, highest)
  return jnp.where(highest <= lowest, level, stretched)


def _one_below(lowest: jax.Array, highest: jax.Array) -> jax.Array:
  """1 where Pillow's autocontrast table is one below the exact value."""
  sets, numbers = _autocontrast_exceptions()
  level = jnp.arange(LEVELS, dtype=jnp.int32)
  low, high = (
    jnp.sum(jnp.where(level == highest, digit, 0), -1, dtype=jnp.int32)
    for digit in jnp.split(_rows(numbers, lowest[..., 0]), 2, axis=-1)
  )
  bits = _rows(sets, low + LEVELS * high)[..., None]
  bits = bits >> jnp.arange(8, dtype=jnp.int32) & 1
  return bits.reshape(*lowest.shape[:-1], LEVELS)


def _rows(table: np.ndarray, index: jax.Array) -> jax.Array:
  """Rows of a table of bytes [R,K], int32 [...,K]."""
  return jax.lax.platform_dependent(
    index,
    tpu=functools.partial(rows_by_matmul, table),
    default=functools.partial(rows_by_gather, table),
  )


def rows_by_gather(table: np.ndarray, index: jax.Array) -> jax.Array:
  """The rows for CPUs and GPUs."""
  return jnp.asarray(table)[index].astype(jnp.int32)


def rows_by_matmul(table: np.ndarray, index: jax.Array) -> jax.Array:
  """The rows for TPUs; bfloat16 holds 0..255 exactly."""
  chosen = jax.nn.one_hot(index, len(table), dtype=jnp.bfloat16)
  values = jnp.asarray(table).astype(jnp.bfloat16)
  rows = jnp.matmul(chosen, values, preferred_element_type=jnp.float32)
  return rows.astype(jnp.int32)


@functools.cache
def _autocontrast_exceptions() -> tuple[np.ndarray, np.ndarray]:
  """The entries of Pillow's autocontrast tables that are one too low.

  Returns:
    The distinct sets of such entries, as bits, uint8 [sets,32]; and, for each
    (lowest, highest), the index of its set, uint8 [256,512]: the low bytes for
    all values of `highest`, followed by the high bytes.
  """
  found = np.zeros((LEVELS, LEVELS, LEVELS), bool)
  for span in range(1, LEVELS):
    # Rounding only matters where the exact quotient is an integer.
    offsets = np.arange(0, span + 1, span // math.gcd(span, 255))
    lowest = np.arange(LEVELS - span)[:, None]
    level = lowest + offsets
    scale = 255.0 / span
    pillow = (level * scale + -lowest * scale).astype(int)
    found[lowest, lowest + span, level] = pillow < 255 * offsets // span
  bits = np.packbits(found, axis=-1, bitorder="little")
  # View rows as byte strings, because np.unique is slow for rows.
  sets, number = np.unique(bits.view("S32").ravel(), return_inverse=True)
  sets = sets.view(np.uint8).reshape(-1, 32)
  high, low = divmod(number.reshape(LEVELS, LEVELS), LEVELS)
  return sets, np.concatenate([low, high], axis=1).astype(np.uint8)


def equalize(levels: jax.Array) -> jax.Array:
  """ImageOps.equalize: flattens the histogram of every channel.

  Args:
    levels: uint8 [H,W,C].

  Returns:
    uint8 [H,W,C].
  """
  return lookup(levels, equalize_table(histogram(levels)))


def equalize_table(counts: jax.Array) -> jax.Array:
  """Pillow's table, for channels with these histograms.

  Args:
    counts: int32 [...,256].

  Returns:
    int32 [...,256].
  """
  level = jnp.arange(LEVELS, dtype=jnp.int32)
  through = jnp.cumsum(counts, axis=-1, dtype=jnp.int32)
  # Pillow leaves out the pixels of the highest level.
  others = jnp.where(through < through[..., -1:], through, 0)
  step = jnp.max(others, axis=-1, keepdims=True) // 255
  safe = jnp.maximum(step, 1)
  table = _quotient(safe // 2 + through - counts, safe)
  return jnp.where(step == 0, level, jnp.minimum(table, 255))


def _quotient(dividend: jax.Array, divisor: jax.Array) -> jax.Array:
  """`dividend // divisor` if that is below 256, otherwise at least 256.

  Dividends must be below 2^23. Floats are faster than integers. Adding one half
  compensates for rounding errors, even on TPUs, where division is not correctly
  rounded.
  """
  half = dividend.astype(jnp.float32) + 0.5
  return jnp.floor(half / divisor.astype(jnp.float32)).astype(jnp.int32)


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
  return counts_of_planes(_planes(levels))


def counts_of_planes(planes: jax.Array) -> jax.Array:
  """Histograms, int32 [...,256], of planes of levels, int32 [...,P]."""
  high, low = _one_hot(planes >> 4, 16), _one_hot(planes & 15, 16)
  counts = jnp.einsum(
    "...hp,...lp->...hl", high, low, preferred_element_type=jnp.float32
  )
  return counts.reshape(*planes.shape[:-1], LEVELS).astype(jnp.int32)


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
  """The table lookup for TPUs."""
  mapped = map_planes(_planes(levels), table).astype(jnp.uint8)
  return mapped.T.reshape(levels.shape)


def map_planes(planes: jax.Array, table: jax.Array) -> jax.Array:
  """Maps every level through its plane's table, by matrix products.

  Args:
    planes: int32 [...,P].
    table: integers [...,256] in 0..255, which bfloat16 holds exactly.

  Returns:
    Integer-valued float32 [...,P].
  """
  digits = table.reshape(*table.shape[:-1], 32, 8).astype(jnp.bfloat16)
  rows = jnp.einsum(
    "...hp,...hl->...lp",
    _one_hot(planes >> 3, 32),
    digits,
    preferred_element_type=jnp.float32,
  )
  # At most one term of the sum is nonzero.
  return jnp.sum(rows * _one_hot(planes & 7, 8), axis=-2)


def _planes(levels: jax.Array) -> jax.Array:
  """The channels of an image [H,W,C] as int32 [C,H*W]."""
  return levels.reshape(-1, levels.shape[-1]).T.astype(jnp.int32)


def _one_hot(digits: jax.Array, base: int) -> jax.Array:
  """One-hot codes, bfloat16 [...,base,P], of digits [...,P]."""
  return jax.nn.one_hot(digits, base, axis=-2, dtype=jnp.bfloat16)
