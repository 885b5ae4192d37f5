"""JPEG compression and decompression in libjpeg's integer arithmetic.

Baseline JPEG with the standard tables, chroma at half resolution (4:2:0), the
"islow" DCT and smooth ("fancy") upsampling, as Pillow writes and reads by
default. Huffman coding is lossless and therefore omitted. Source:
libjpeg-turbo, `jccolor.c jcsample.c jfdctint.c jcdctmgr.c jidctint.c jdsample.c
jdcolor.c`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.image import color

# ITU-T T.81, tables K.1 and K.2, quality 50.
_LUMA = """
  16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55
  14 13 16 24  40  57  69  56   14 17 22 29  51  87  80  62
  18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92
  49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99
"""
_CHROMA = """
  17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99
  24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
  99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
  99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
"""
# Weights of RGB in the chroma channels Cb and Cr, with 16 fractional bits.
_DIFFERENCES = ((-11059, -21709, 32768), (32768, -27439, -5329))
_BLOCK = 8
# The left half of the DCT matrix, with 13 fractional bits. Even rows continue
# symmetrically, odd rows antisymmetrically. Some numbers differ by one from the
# rounded cosines, because libjpeg adds terms that are rounded individually.
_HALF = (
  (8192, 8192, 8192, 8192),
  (11363, 9633, 6437, 2260),
  (10703, 4433, -4433, -10703),
  (9633, -2259, -11362, -6436),
  (8192, -8192, -8192, 8192),
  (6437, -11362, 2261, 9633),
  (4433, -10704, 10704, -4433),
  (2260, -6436, 9633, -11363),
)
_CONSTANT_BITS = 13
_FIRST_BITS = 2  # fractional bits after the first of two passes
# int32 [8,8,1]: a number to add, a factor, a shift, and the table's entry.
Divisors = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def compress(
  levels: jax.Array, divisors: tuple[Divisors, Divisors]
) -> jax.Array:
  """Simulates writing an image as a JPEG and reading it back.

  Args:
    levels: uint8 [H,W,3].
    divisors: quantization divisors for a quality, from `divisors`.

  Returns:
    uint8 [H,W,3], equal to Pillow's result.
  """
  wide = levels.astype(jnp.int32)
  offset = (128 << 16) + (1 << 15) - 1
  differences = wide @ np.array(_DIFFERENCES, np.int32).T + offset >> 16
  luma = _code(color.luminance(levels), divisors[0])
  chroma = _code(_halve(differences), divisors[1])
  height, width, _ = levels.shape
  # Upsampling repeats the last chroma samples of the image, not of the padding.
  chroma = _enlarge(chroma[: (height + 1) // 2, : (width + 1) // 2])
  return _to_rgb(luma[:height, :width], chroma[:height, :width])


def divisors(quality: int) -> tuple[Divisors, Divisors]:
  """Computes the quantization divisors of luma and chroma.

  Args:
    quality: Pillow's quality, 1 (worst) to 100 (best).

  Returns:
    The result of `_divisors` for each of the two tables.
  """
  return tuple(_divisors(_table(s, quality)) for s in (_LUMA, _CHROMA))


def _table(standard: str, quality: int) -> np.ndarray:
  """Scales a standard table to a quality: [8,8], vertical frequencies first."""
  scale = 5000 // quality if quality < 50 else 200 - 2 * quality
  table = np.array(standard.split(), np.int32).reshape(_BLOCK, _BLOCK)
  return np.clip((table * scale + 50) // 100, 1, 255)


def _halve(planes: jax.Array) -> jax.Array:
  """Means of 2x2 pixels; halves are alternately rounded down and up."""
  height, width, _ = planes.shape
  # Rows are padded to whole blocks after halving, but columns before it.
  pad = ((0, height % 2), (0, -width % (2 * _BLOCK)), (0, 0))
  padded = jnp.pad(planes, pad, "edge")
  rows = padded[::2] + padded[1::2]
  total = rows[:, ::2] + rows[:, 1::2]
  odd = jnp.arange(total.shape[1], dtype=jnp.int32)[:, None] & 1
  return total + 1 + odd >> 2


def _code(planes: jax.Array, divisors: Divisors) -> jax.Array:
  """Applies the DCT, quantization and their inverses to planes [H,W,C]."""
  height, width, channels = planes.shape
  pad = ((0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0))
  padded = jnp.pad(planes, pad, "edge")
  down, right = (size // _BLOCK for size in padded.shape[:2])
  # The axis of blocks is last, so that transforms are vectorized over it.
  blocks = padded.reshape(down, _BLOCK, right, _BLOCK, channels)
  blocks = blocks.transpose(1, 3, 0, 2, 4).reshape(_BLOCK, _BLOCK, -1)
  coded = _inverse(_quantize(_forward(blocks - 128), divisors)) + 128
  coded = jnp.clip(coded, 0, 255)
  coded = coded.reshape(_BLOCK, _BLOCK, down, right, channels)
  return coded.transpose(2, 0, 3, 1, 4).reshape(padded.shape)


def _matrix() -> np.ndarray:
  """The transform [8,8] from pixels to frequencies."""
  half = np.array(_HALF, np.int32)
  signs = np.tile([[1], [-1]], (_BLOCK // 2, 1))
  return np.hstack([half, signs * half[:, ::-1]])


def _forward(blocks: jax.Array) -> jax.Array:
  """Transforms pixels [8,8,N] to frequencies, scaled by 8."""
  rows = _transform("vj,ijn->ivn", blocks, _CONSTANT_BITS - _FIRST_BITS)
  return _transform("ui,ivn->uvn", rows, _CONSTANT_BITS + _FIRST_BITS)


def _inverse(blocks: jax.Array) -> jax.Array:
  """Transforms frequencies [8,8,N] to pixels."""
  columns = _transform("ui,uvn->ivn", blocks, _CONSTANT_BITS - _FIRST_BITS)
  return _transform("vj,ivn->ijn", columns, _CONSTANT_BITS + _FIRST_BITS + 3)


def _transform(axes: str, blocks: jax.Array, bits: int) -> jax.Array:
  """Multiplies by the matrix; divides by a power of two, halves rounded up."""
  return jnp.einsum(axes, _matrix(), blocks) + (1 << bits - 1) >> bits


def _divisors(table: np.ndarray) -> Divisors:
  """What `_quantize` needs to divide by a table [8,8].

  Like libjpeg, `_quantize` multiplies by a rounded reciprocal, which rounds
  some halves differently than a division.
  """
  divisor = _BLOCK * table[..., None]
  shift = 15 + np.array([int(d).bit_length() for d in divisor.flat])
  shift = shift.reshape(divisor.shape)
  reciprocal, rest = np.divmod(1 << shift, divisor)
  added = divisor // 2 + ((rest > 0) & (rest <= divisor // 2))
  reciprocal += rest > divisor // 2
  found = added, reciprocal, shift, table[..., None]
  return tuple(part.astype(np.int32) for part in found)


def _quantize(blocks: jax.Array, divisors: Divisors) -> jax.Array:
  """Quantizes frequencies, scaled by 8, to unscaled multiples of the table."""
  added, reciprocal, shift, table = divisors
  whole = (abs(blocks) + added) * reciprocal >> shift
  return jnp.sign(blocks) * whole * table


def _enlarge(planes: jax.Array) -> jax.Array:
  """Doubles both sides by linear interpolation.

  Along each axis, a new pixel is 3/4 of the nearest pixel and 1/4 of the next.
  """
  rows = _double(planes)
  columns = _double(rows.swapaxes(0, 1)).swapaxes(0, 1)
  # Sixteenths; halves are rounded up in even columns and down in odd ones.
  odd = jnp.arange(columns.shape[1], dtype=jnp.int32)[:, None] & 1
  return columns + 8 - odd >> 4


def _double(planes: jax.Array) -> jax.Array:
  """Doubles the number of rows; values are multiplied by 4."""
  padded = jnp.pad(planes, ((1, 1), (0, 0), (0, 0)), "edge")
  pair = jnp.stack([padded[:-2], padded[2:]], axis=1) + 3 * planes[:, None]
  return pair.reshape(2 * planes.shape[0], *planes.shape[1:])


def _to_rgb(luma: jax.Array, chroma: jax.Array) -> jax.Array:
  """Converts luma [H,W,1] and chroma [H,W,2] to RGB, uint8 [H,W,3]."""
  blue, red = chroma[..., :1] - 128, chroma[..., 1:] - 128
  half = 1 << 15
  added = (
    91881 * red + half >> 16,
    -22554 * blue - 46802 * red + half >> 16,
    116130 * blue + half >> 16,
  )
  rgb = luma + jnp.concatenate(added, axis=-1)
  return jnp.clip(rgb, 0, 255).astype(jnp.uint8)
