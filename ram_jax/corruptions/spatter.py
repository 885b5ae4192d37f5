"""CIFAR-10-C's spatter: drops of water or mud.

Source: hendrycks/robustness, `make_cifar_c.py`. Everything except the blur of
the noise is computed in integers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.corruptions import edges
from ram_jax.image import color

# Parameters of severities 1 to 5: mean and standard deviation of the noise,
# standard deviation of its blur, threshold, and the strength of water in tenths
# or the standard deviation of mud's blur.
_PARAMETERS = (
  (0.62, 0.1, 0.7, 0.7, 5),
  (0.65, 0.1, 0.8, 0.7, 5),
  (0.65, 0.3, 1, 0.69, 5),
  (0.65, 0.1, 0.7, 0.69, 0.6),
  (0.65, 0.1, 0.5, 0.68, 0.6),
)
_WATER_SEVERITIES = 3
_WATER = (175, 238, 238)  # pale turquoise
_MUD = (63, 42, 20)
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
_ONES = ((1, 1, 1),) * 3
_REACH = 20  # pixels from a drop's edge over which it is shaded
_MUD_BITS = 15  # fractional bits of a weight of mud's blur along one axis


def spatter(
  key: jax.Array, image: jax.Array, severity: int, assets: object = None
) -> jax.Array:
  """Adds drops of water (severities 1 to 3) or mud (4 and 5) to an image.

  Args:
    key: a key.
    image: float [H,W,3] in [0,1], multiples of 1/255.
    severity: 1 to 5.
    assets: not used.

  Returns:
    Float [H,W,3] in [0,1], multiples of 1/255. The size of drops and their
    shading in pixels does not depend on the image size.
  """
  del assets
  noise = jax.random.normal(key, image.shape[:2], jnp.float32)
  levels = color.quantise(image)
  cover = water if severity <= _WATER_SEVERITIES else mud
  return color.dequantise(cover(levels, noise, severity), image.dtype)


def water(levels: jax.Array, noise: jax.Array, severity: int) -> jax.Array:
  """Adds drops made from standard normal noise [H,W] to levels [H,W,3]."""
  strength = _PARAMETERS[severity - 1][-1]
  # Rare values above 1 wrap around, as they do in the original.
  drops = jnp.floor(255 * _liquid(noise, severity)).astype(jnp.int32) & 255
  relief = drops * shade(drops)
  # Tenths of a level; at most 255 * 255 * 5 * 238 of them, which fit 31 bits.
  light = relief[..., None] * (strength * np.array(_WATER, np.int32))
  total = levels.astype(jnp.int32) + light // (
    10 * jnp.maximum(relief.max(), 1)
  )
  return jnp.minimum(total, 255).astype(jnp.uint8)


def shade(drops: jax.Array) -> jax.Array:
  """The shading of drops: distance to their edges, equalized and embossed."""
  outline = edges.canny(drops, 50, 150)
  far = edges.distance(outline, _REACH)
  smooth = edges.correlate(far, _ONES) // (9 * edges.PARTS)
  equal = edges.equalize(smooth, _REACH + 1)
  embossed = jnp.clip(edges.correlate(equal, _EMBOSS), 0, 255)
  return (edges.correlate(embossed, _ONES) + 4) // 9


def mud(levels: jax.Array, noise: jax.Array, severity: int) -> jax.Array:
  """Covers levels [H,W,3] by mud made from standard normal noise [H,W]."""
  _, _, _, threshold, sigma = _PARAMETERS[severity - 1]
  patches = (_liquid(noise, severity) > threshold).astype(jnp.int32)
  weights = np.round(_gaussian(sigma) * (1 << _MUD_BITS)).astype(int)
  weights[len(weights) // 2] -= weights.sum() - (1 << _MUD_BITS)
  full = 1 << (2 * _MUD_BITS)
  cover = _blur(patches, weights.tolist())
  cover = jnp.where(cover < 0.8 * full, 0, cover)[..., None]
  wide = levels.astype(jnp.int32)
  weight = cover >> 8  # leaves room for a factor of 255
  total = wide * ((full >> 8) - weight) + np.array(_MUD, np.int32) * weight
  return (total >> (2 * _MUD_BITS - 8)).astype(jnp.uint8)


def _liquid(noise: jax.Array, severity: int) -> jax.Array:
  """Blurred noise [H,W] where it exceeds the threshold, else 0."""
  mean, deviation, sigma, threshold, _ = _PARAMETERS[severity - 1]
  layer = _blur(mean + deviation * noise, _gaussian(sigma).tolist())
  return jnp.where(layer < threshold, 0, layer)


def _blur(layer: jax.Array, weights: list) -> jax.Array:
  """Correlates [H,W] with weights in both directions; the edge is repeated."""
  reach = len(weights) // 2
  height, width = layer.shape
  padded = jnp.pad(layer, reach, mode="edge")
  rows = sum(w * padded[i : i + height] for i, w in enumerate(weights))
  return sum(w * rows[:, i : i + width] for i, w in enumerate(weights))


def _gaussian(sigma: float) -> np.ndarray:
  """SciPy's Gaussian weights, truncated at four standard deviations."""
  reach = int(4 * sigma + 0.5)
  weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
  return weights / weights.sum()
