"""CIFAR-10-C's four noises: each replaces every value by chance, alone.

A value is one of 256 gray levels before and after, so a noise is a table of
chances [256,256] from level to level. The tables are made in double precision,
from the definitions of hendrycks/robustness, `make_cifar_c.py`, with their
truncation to gray levels. One 32-bit number for each value then draws by
Walker's alias method, whatever the distribution, exact to 2^-32. Nothing
depends on the size of the image.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.image import color

LEVELS = color.LEVELS
# Severities 1 to 5, in units of white: standard deviation; photons at white;
# share of the values; standard deviation on white.
_GAUSSIAN = (0.04, 0.06, 0.08, 0.09, 0.10)
_SHOT = (500, 250, 100, 75, 50)
_IMPULSE = (0.01, 0.02, 0.03, 0.05, 0.07)
_SPECKLE = (0.06, 0.10, 0.12, 0.16, 0.20)
# A random number's high bits choose a column, the others are compared.
_COLUMN_BITS = 8
_THRESHOLD_BITS = 32 - _COLUMN_BITS


def gaussian_noise(
  key: jax.Array, image: jax.Array, severity: int, assets: object = None
) -> jax.Array:
  """Adds normal noise, the same on every level.

  Args:
    key: a key.
    image: float [H,W,C] in [0,1], of gray levels.
    severity: 1 to 5.
    assets: not used.

  Returns:
    Float [H,W,C] in [0,1], of gray levels.
  """
  del assets
  deviation = _GAUSSIAN[severity - 1]
  return replace(key, image, alias_table(gaussian_chances, deviation))


def shot_noise(
  key: jax.Array, image: jax.Array, severity: int, assets: object = None
) -> jax.Array:
  """Counts photons: Poisson, of so many at white.

  Args:
    key: a key.
    image: float [H,W,C] in [0,1], of gray levels.
    severity: 1 to 5.
    assets: not used.

  Returns:
    Float [H,W,C] in [0,1], of gray levels.
  """
  del assets
  photons = _SHOT[severity - 1]
  return replace(key, image, alias_table(shot_chances, photons))


def impulse_noise(
  key: jax.Array, image: jax.Array, severity: int, assets: object = None
) -> jax.Array:
  """Salt and pepper, in every channel for itself.

  Args:
    key: a key.
    image: float [H,W,C] in [0,1], of gray levels.
    severity: 1 to 5.
    assets: not used.

  Returns:
    Float [H,W,C] in [0,1], of gray levels.
  """
  del assets
  share = _IMPULSE[severity - 1]
  return replace(key, image, alias_table(impulse_chances, share))


def speckle_noise(
  key: jax.Array, image: jax.Array, severity: int, assets: object = None
) -> jax.Array:
  """Adds normal noise in proportion to the value.

  Args:
    key: a key.
    image: float [H,W,C] in [0,1], of gray levels.
    severity: 1 to 5.
    assets: not used.

  Returns:
    Float [H,W,C] in [0,1], of gray levels.
  """
  del assets
  deviation = _SPECKLE[severity - 1]
  return replace(key, image, alias_table(speckle_chances, deviation))


def gaussian_chances(deviation: float) -> np.ndarray:
  """Chances [256,256] of `clip(x + normal(deviation))`."""
  return _normal_chances(np.full(LEVELS, 255 * deviation))


def speckle_chances(deviation: float) -> np.ndarray:
  """Chances [256,256] of `clip(x + x * normal(deviation))`."""
  return _normal_chances(deviation * np.arange(LEVELS))


def shot_chances(photons: int) -> np.ndarray:
  """Chances [256,256] of `clip(poisson(x * photons) / photons)`."""
  counts = np.arange(photons)
  rates = np.arange(1, LEVELS)[:, None] / 255 * photons
  factorials = np.array([math.lgamma(count + 1) for count in counts])
  likely = np.exp(counts * np.log(rates) - rates - factorials)
  chances = np.zeros((LEVELS, LEVELS))
  level = (counts / photons * 255).astype(int)
  np.add.at(chances[1:], (slice(None), level), likely)
  chances[0, 0] = 1
  chances[:, -1] = np.maximum(1 - chances.sum(axis=1), 0)  # all that clips
  return chances


def impulse_chances(share: float) -> np.ndarray:
  """Chances [256,256] of white or black, evenly, for a share of values."""
  chances = (1 - share) * np.eye(LEVELS)
  chances[:, [0, -1]] += share / 2
  return chances


def _normal_chances(deviations: np.ndarray) -> np.ndarray:
  """Chances of a normal change of `deviations` [256] levels, cut off."""
  start = np.arange(LEVELS)[:, None]
  edges = np.arange(1, LEVELS)  # truncation: [1, 2) becomes 1
  # Black has no deviation under speckle: certainly below every edge.
  scale = np.maximum(deviations, 1e-9)[:, None] * math.sqrt(2)
  below = 0.5 + 0.5 * np.vectorize(math.erf)((edges - start) / scale)
  return np.diff(below, axis=1, prepend=0, append=1)


@functools.cache
def alias_table(
  chances: Callable[[float], np.ndarray], parameter: float
) -> np.ndarray:
  """Packs a noise's chances for drawing with one number and one look-up.

  Args:
    chances: makes the chances [256,256], rows adding up to 1.
    parameter: what it takes.

  Returns:
    uint32 [256,256]: for each level and column the threshold (24 bits, of
    staying in the column) and the other level (8 bits).

  Source: Walker 1977; always from the emptiest column to the fullest.
  """
  mass = chances(parameter) * LEVELS
  rows = np.arange(LEVELS)
  other = np.tile(rows, (LEVELS, 1))
  threshold = np.ones_like(mass)
  open_mass = mass.copy()
  closed = np.zeros(mass.shape, bool)
  for _ in range(LEVELS - 1):
    low = np.argmin(np.where(closed, np.inf, open_mass), axis=1)
    high = np.argmax(np.where(closed, -np.inf, open_mass), axis=1)
    kept = open_mass[rows, low]
    threshold[rows, low] = kept
    other[rows, low] = high
    closed[rows, low] = True
    open_mass[rows, high] -= 1 - kept
  scaled = np.round(threshold * (1 << _THRESHOLD_BITS)).astype(np.int64)
  scaled = np.clip(scaled, 0, (1 << _THRESHOLD_BITS) - 1)
  return (scaled << _COLUMN_BITS | other).astype(np.uint32)


def replace(key: jax.Array, image: jax.Array, table: np.ndarray) -> jax.Array:
  """Draws a new level for every value of an image.

  Args:
    key: one key.
    image: floats [H,W,C] in [0,1], gray levels.
    table: uint32 [256,256] from `alias_table`.

  Returns:
    The image's shape and type, gray levels.
  """
  # Drawn as one row: of three axes, jax's counters cost twice the time.
  bits = jax.random.bits(key, (image.size,), jnp.uint32)
  column = bits >> _THRESHOLD_BITS
  levels = color.quantise(image).astype(jnp.uint32).ravel()
  place = levels * LEVELS + column
  entry = jnp.asarray(table).ravel()[place]
  part = bits & ((1 << _THRESHOLD_BITS) - 1)
  level = jnp.where(part < entry >> _COLUMN_BITS, column, entry & (LEVELS - 1))
  level = level.astype(jnp.uint8).reshape(image.shape)
  return color.dequantise(level, image.dtype)
