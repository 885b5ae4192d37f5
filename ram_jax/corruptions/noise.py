"""CIFAR-10-C's four kinds of noise, drawn independently for every value.

A value is a multiple of 1/255 before and after, so each kind of noise is a
table of transition probabilities [256,256]. The tables are computed in double
precision from the definitions in hendrycks/robustness, `make_cifar_c.py`,
including the truncation to uint8. Each value is then drawn with one 32-bit
random number by Walker's alias method, which works for any distribution.
Probabilities are exact to 2^-29. Nothing depends on the size of the image.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.corruptions.corruption import Corruption
from ram_jax.image import color

LEVELS = color.LEVELS
# Parameters for severities 1 to 5. Gaussian: standard deviation (white is 1).
# Shot: number of photons for white. Impulse: fraction of the values that are
# replaced. Speckle: standard deviation for white.
_GAUSSIAN = (0.04, 0.06, 0.08, 0.09, 0.10)
_SHOT = (500, 250, 100, 75, 50)
_IMPULSE = (0.01, 0.02, 0.03, 0.05, 0.07)
_SPECKLE = (0.06, 0.10, 0.12, 0.16, 0.20)
# The high bits of a random number select a column; the others are compared with
# its threshold.
_COLUMN_BITS = 8
_THRESHOLD_BITS = 32 - _COLUMN_BITS


def gaussian_probabilities(std: float) -> np.ndarray:
  """Probabilities [256,256] of `clip(x + normal(std))`."""
  return _normal_probabilities(np.full(LEVELS, 255 * std))


def speckle_probabilities(std: float) -> np.ndarray:
  """Probabilities [256,256] of `clip(x + x * normal(std))`."""
  return _normal_probabilities(std * np.arange(LEVELS))


def shot_probabilities(photons: int) -> np.ndarray:
  """Probabilities [256,256] of `clip(poisson(x * photons) / photons)`."""
  counts = np.arange(photons)
  rates = np.arange(1, LEVELS)[:, None] / 255 * photons
  factorials = np.array([math.lgamma(count + 1) for count in counts])
  likely = np.exp(counts * np.log(rates) - rates - factorials)
  probabilities = np.zeros((LEVELS, LEVELS))
  level = (counts / photons * 255).astype(int)
  np.add.at(probabilities[1:], (slice(None), level), likely)
  probabilities[0, 0] = 1
  # The rest is clipped to white.
  probabilities[:, -1] = np.maximum(1 - probabilities.sum(axis=1), 0)
  return probabilities


def impulse_probabilities(fraction: float) -> np.ndarray:
  """Probabilities [256,256] of turning a fraction of values white or black."""
  probabilities = (1 - fraction) * np.eye(LEVELS)
  probabilities[:, [0, -1]] += fraction / 2
  return probabilities


def _normal_probabilities(stds: np.ndarray) -> np.ndarray:
  """Probabilities [256,256] of clipped normal noise, `stds` [256] in levels."""
  start = np.arange(LEVELS)[:, None]
  edges = np.arange(1, LEVELS)  # truncation: [1, 2) becomes 1
  # Black has no speckle noise: it is always below every edge.
  scale = np.maximum(stds, 1e-9)[:, None] * math.sqrt(2)
  below = 0.5 + 0.5 * np.vectorize(math.erf)((edges - start) / scale)
  return np.diff(below, axis=1, prepend=0, append=1)


@functools.cache
def alias_table(
  probabilities: Callable[[float], np.ndarray], parameter: float
) -> np.ndarray:
  """Packs probabilities for drawing with one number and one lookup.

  Args:
    probabilities: parameter -> [256,256], rows add up to 1.
    parameter: its argument.

  Returns:
    uint32 [256,256]: for each level and column, the threshold (24 bits) below
    which the draw stays in the column, and the other level (8 bits).

  Source: Walker 1977. Each step fills the emptiest open column with mass from
  the fullest.
  """
  mass = probabilities(parameter) * LEVELS
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


def replace(key: jax.Array, levels: jax.Array, table: jax.Array) -> jax.Array:
  """Draws a new level for every value, with a table from `alias_table`."""
  # Drawn with one axis, because JAX takes twice as long for three axes.
  bits = jax.random.bits(key, (levels.size,), jnp.uint32)
  column = bits >> _THRESHOLD_BITS
  place = levels.astype(jnp.uint32).ravel() * LEVELS + column
  entry = jnp.asarray(table).ravel()[place]
  part = bits & ((1 << _THRESHOLD_BITS) - 1)
  level = jnp.where(part < entry >> _COLUMN_BITS, column, entry & (LEVELS - 1))
  return level.reshape(levels.shape)


def _noise(
  name: str,
  probabilities: Callable[[float], np.ndarray],
  rows: tuple[float, ...],
) -> Corruption:
  """A noise corruption; all of them share one program with different tables."""
  return Corruption(
    name, rows, lambda row, *_: alias_table(probabilities, row), replace
  )


# Normal noise that does not depend on the level.
gaussian_noise = _noise("gaussian_noise", gaussian_probabilities, _GAUSSIAN)
# Poisson noise, as from counting photons.
shot_noise = _noise("shot_noise", shot_probabilities, _SHOT)
# Salt and pepper, independently in every channel.
impulse_noise = _noise("impulse_noise", impulse_probabilities, _IMPULSE)
# Normal noise proportional to the value.
speckle_noise = _noise("speckle_noise", speckle_probabilities, _SPECKLE)


def normal(key: jax.Array, shape: tuple[int, ...], scale: float) -> jax.Array:
  """Normal noise, rounded as if its standard deviation were a constant.

  The compiler would combine the constant with the factor in
  `jax.random.normal`, which saves a rounding.

  Args:
    key: a key.
    shape: shape of the noise; the values depend only on its number of elements.
    scale: from `normal_scale`.

  Returns:
    float32, of this shape.
  """
  above = np.nextafter(np.float32(-1), np.float32(0))
  even = jax.random.uniform(key, shape, jnp.float32, above, 1)
  return scale * jax.lax.erf_inv(even)


def normal_scale(std: float) -> np.float32:
  """`scale` in `normal` for a standard deviation."""
  return np.float32(math.sqrt(2)) * np.float32(std)
