"""CIFAR-10-C's spatter: drops of water or mud.

Source: hendrycks/robustness, `make_cifar_c.py`. After the noise is blurred,
nearly everything is computed in integers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.corruptions import edges, noise
from ram_jax.corruptions.corruption import corruption

# Parameters for severities 1 to 5: mean and standard deviation of the noise,
# standard deviation of its blur, threshold, and the strength of water in tenths
# or, without water, the standard deviation of the mud's blur.
_PARAMETERS = (
  (0.62, 0.1, 0.7, 0.7, 5, None),
  (0.65, 0.1, 0.8, 0.7, 5, None),
  (0.65, 0.3, 1, 0.69, 5, None),
  (0.65, 0.1, 0.7, 0.69, 0, 0.6),
  (0.65, 0.1, 0.5, 0.68, 0, 0.6),
)
_WATER = (175, 238, 238)  # pale turquoise
_MUD = (63, 42, 20)
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
_ONES = ((1, 1, 1),) * 3
_REACH = 20  # pixels from a drop's edge over which it is shaded
_RADIUS = 4  # of the largest blur of the noise, in pixels
_MUD_BITS = 15  # fractional bits of a weight of the mud's blur along one axis


def _drops(row: tuple[Any, ...], *_: Any) -> dict[str, Any]:
  mean, std, sigma, threshold, strength, mud_sigma = row
  weights = _gaussian(sigma)
  found = (
    {"strength": strength} if strength else {"mud": mud_weights(mud_sigma)}
  )
  return found | {
    "mean": mean,
    "std": noise.normal_scale(std),
    "blur": np.pad(weights, _RADIUS - len(weights) // 2).astype(np.float32),
    "threshold": threshold,
  }


@corruption(_PARAMETERS, _drops)
def spatter(
  key: jax.Array, levels: jax.Array, parameters: dict[str, Any]
) -> jax.Array:
  """Adds drops of water (severities 1 to 3) or mud (4 and 5) to an image.

  The sizes of drops and of their shading are in pixels, independent of the
  image size. Parameters are the noise's `mean`, `std` (from
  `noise.normal_scale`) and `blur` (weights); `threshold` of the drops; and
  `strength` of water, or `mud`, the weights of the mud's blur.
  """
  drawn = noise.normal(key, levels.shape[:2], parameters["std"])
  return cover(levels, drawn, parameters)


def cover(
  levels: jax.Array, drawn: jax.Array, parameters: dict[str, Any]
) -> jax.Array:
  """Adds drops, made from zero-mean noise [H,W], to levels [H,W,3]."""
  layer = _blur(parameters["mean"] + drawn, parameters["blur"])
  layer = jnp.where(layer < parameters["threshold"], 0, layer)
  if "strength" in parameters:
    return water(levels, layer, parameters["strength"])
  return mud(levels, layer > parameters["threshold"], parameters["mud"])


def water(levels: jax.Array, layer: jax.Array, strength: int) -> jax.Array:
  """Adds drops [H,W], floats, to levels [H,W,3]."""
  # Rare values above 1 wrap around, as they do in the original.
  drops = jnp.floor(255 * layer).astype(jnp.int32) & 255
  relief = drops * shade(drops)
  # At most 255 * 255 * 5 * 238, which fits in 31 bits. Dividing by the largest
  # relief gives tenths of a level.
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


def mud(levels: jax.Array, patches: jax.Array, weights: jax.Array) -> jax.Array:
  """Covers levels [H,W,3] with blurred patches of mud, bool [H,W]."""
  full = 1 << (2 * _MUD_BITS)
  covered = _blur(patches.astype(jnp.int32), weights)
  covered = jnp.where(covered < 0.8 * full, 0, covered)[..., None]
  wide = levels.astype(jnp.int32)
  weight = covered >> 8  # leaves room for a factor of 255
  total = wide * ((full >> 8) - weight) + np.array(_MUD, np.int32) * weight
  return (total >> (2 * _MUD_BITS - 8)).astype(jnp.uint8)


def mud_weights(sigma: float) -> np.ndarray:
  """Weights of the mud's blur along one axis, int32 in fixed point."""
  weights = np.round(_gaussian(sigma) * (1 << _MUD_BITS)).astype(np.int32)
  weights[len(weights) // 2] -= weights.sum() - (1 << _MUD_BITS)
  return weights


def _blur(layer: jax.Array, weights: jax.Array) -> jax.Array:
  """Correlates [H,W] with weights along both axes; the edge is repeated."""
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
