"""CIFAR-10-C's snow, frost and fog.

Random draws are separate from their application, so that the latter can be
compared with the original, hendrycks/robustness, `make_cifar_c.py`. Parameters
in pixels or in pixel values do not depend on the image size.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.corruptions import motion, noise
from ram_jax.corruptions.corruption import Constant, corruption

# Parameters for severities 1 to 5: mean and standard deviation of the noise,
# zoom, threshold, radius and standard deviation of the motion blur, and the
# percentage of the image that is kept.
_SNOW = (
  (0.1, 0.2, 1, 0.6, 8, 3, 95),
  (0.1, 0.2, 1, 0.5, 10, 4, 90),
  (0.15, 0.3, 1.75, 0.55, 10, 4, 90),
  (0.25, 0.3, 2.25, 0.6, 12, 6, 85),
  (0.3, 0.3, 1.25, 0.65, 14, 12, 80),
)
# Percentages of the image and of the photograph.
_FROST = ((100, 20), (100, 30), (90, 40), (85, 40), (75, 45))
# Thickness, and the decay of the roughness per scale.
_FOG = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
_ROUGHNESS = 100


def _snow(
  row: tuple[float, ...], shape: Sequence[int], *_: Any
) -> dict[str, Any]:
  mean, std, zoom, threshold, radius, sigma, kept = row
  return {
    "mean": mean,
    "std": noise.normal_scale(std),
    "sources": [_sources(size, zoom) for size in shape[:2]],
    "threshold": threshold,
    "path": motion.weights(radius, sigma, _SNOW[-1][4]),
    "kept": kept,
  }


@corruption(_SNOW, _snow)
def snow(
  key: jax.Array, levels: jax.Array, parameters: dict[str, Any]
) -> jax.Array:
  """Fades colors; adds blurred flakes, and the same flakes rotated 180 degrees.

  Parameters are `mean` and `std` (from `noise.normal_scale`) of the noise;
  `sources`, for its zoom; `threshold`; `path`, the weights of the motion blur;
  and `kept`, the percentage of the image that is kept.
  """
  noise_key, angle_key = jax.random.split(key)
  drawn = noise.normal(noise_key, levels.shape[:2], parameters["std"])
  degrees = jax.random.uniform(angle_key, (), jnp.float32, -135, -45)
  layer = snow_layer(parameters["mean"] + drawn, degrees, parameters)
  return snow_cover(levels, layer, parameters["kept"])


def snow_layer(
  drawn: jax.Array, degrees: jax.Array, parameters: dict[str, Any]
) -> jax.Array:
  """The flakes as pixel values, int32 [H,W].

  Args:
    drawn: noise [H,W]; the zoom only uses its first values (see `_zoom`).
    degrees: direction of the motion blur.
    parameters: see `snow`.
  """
  layer = _zoom(drawn, parameters["sources"])
  bright = jnp.clip(layer, 0, 1)
  bright = jnp.where(layer < parameters["threshold"], 0, bright)
  levels = jnp.floor(255 * bright).astype(jnp.int32)
  return motion.blur(levels[..., None], degrees, parameters["path"])[..., 0]


def snow_cover(levels: jax.Array, layer: jax.Array, kept: int) -> jax.Array:
  """Fades levels [H,W,3]; adds flakes [H,W] and their 180-degree rotation."""
  wide = levels.astype(jnp.int32)
  # In units of 1/2000 level: 1.5 times gray (ITU-R 601), plus half of white.
  gray = wide @ np.array([299, 587, 114], np.int32)
  pale = jnp.maximum(2000 * wide, (3 * gray + 255_000)[..., None])
  total = (kept * 2000 * wide + (100 - kept) * pale) // 200_000
  total += (layer + jnp.rot90(layer, 2))[..., None]
  return jnp.minimum(total, 255).astype(jnp.uint8)


def _frost(
  row: tuple[int, int], shape: Sequence[int], assets: Sequence[np.ndarray]
) -> dict[str, Any]:
  sizes = np.array([picture.shape[:2] for picture in assets])
  pictures = np.zeros((len(assets), *sizes.max(axis=0), 3), np.uint8)
  for padded, picture in zip(pictures, assets, strict=True):
    padded[: picture.shape[0], : picture.shape[1]] = picture
  return {"percent": row, "pictures": pictures, "spare": sizes - shape[:2]}


@corruption(_FROST, _frost)
def frost(
  key: jax.Array, levels: jax.Array, parameters: dict[str, Any]
) -> jax.Array:
  """Adds a random part of one of five photographs of ice.

  Parameters are `percent`, of the image and of the photograph; `pictures`, RGB,
  uint8 [N,h,w,3], padded to one size; and `spare` [N,2], how many pixels taller
  and wider than the image each was before padding.
  """
  pictures = parameters["pictures"]
  which, row, column = jax.random.split(key, 3)
  index = jax.random.randint(which, (), 0, len(pictures))
  spare = jnp.asarray(parameters["spare"])[index]
  top = jax.random.randint(row, (), 0, spare[0])
  left = jax.random.randint(column, (), 0, spare[1])
  window = (1, *levels.shape)
  ice = jax.lax.dynamic_slice(pictures, (index, top, left, 0), window)[0]
  return frost_cover(levels, ice, *parameters["percent"])


def frost_cover(
  levels: jax.Array, ice: jax.Array, kept: int, added: int
) -> jax.Array:
  """Sum of levels [H,W,3] and ice [H,W,3], with weights in percent."""
  total = kept * levels.astype(jnp.int32) + added * ice.astype(jnp.int32)
  return jnp.minimum(total // 100, 255).astype(jnp.uint8)


@corruption(_FOG, lambda row, *_: (Constant(row[1]), 255 * row[0]))
def fog(
  key: jax.Array, levels: jax.Array, parameters: tuple[Constant, float]
) -> jax.Array:
  """Adds a fractal cloud, then rescales so that the maximum does not increase.

  The cloud is a square whose side is the smallest power of two that covers the
  image; its upper-left corner is used. Parameters are the decay of its
  roughness, and its thickness in levels.
  """
  decay, thickness = parameters
  height, width = levels.shape[:2]
  side = 1 << (max(height, width) - 1).bit_length()
  drawn = jax.random.uniform(key, (side * side - 1,), jnp.float32, -1, 1)
  cloud = plasma(drawn, decay.value)[:height, :width]
  return fog_cover(levels, cloud, thickness)


def plasma(drawn: jax.Array, decay: float) -> jax.Array:
  """A cloud from the diamond-square algorithm, in [0,1], with periodic borders.

  Args:
    drawn: [side**2 - 1] in [-1,1), side a power of two; from coarse to
      fine: centers, midpoints of horizontal edges, midpoints of vertical edges.
    decay: divides the roughness at each scale.

  Returns:
    Float [side,side]. As in the original, the roughness is squared.
  """
  grid = jnp.zeros((1, 1), drawn.dtype)
  used, roughness = 0, _ROUGHNESS
  while used < drawn.size:
    count = grid.size
    centers, across, along = (
      roughness**2
      * drawn[used + i * count : used + (i + 1) * count].reshape(grid.shape)
      for i in range(3)
    )
    square = grid + jnp.roll(grid, -1, 0)
    centers += (square + jnp.roll(square, -1, 1)) / 4
    rows = grid + jnp.roll(grid, -1, 1)
    across += (centers + jnp.roll(centers, 1, 0) + rows) / 4
    columns = grid + jnp.roll(grid, -1, 0)
    along += (centers + jnp.roll(centers, 1, 1) + columns) / 4
    grid = _interleave(
      _interleave(grid, across, 1), _interleave(along, centers, 1), 0
    )
    used, roughness = used + 3 * count, roughness / decay
  grid -= grid.min()
  return grid / grid.max()


def fog_cover(
  levels: jax.Array, cloud: jax.Array, thickness: float
) -> jax.Array:
  """Adds a cloud [H,W] in [0,1] to levels [H,W,3]."""
  floats = levels.astype(cloud.dtype)
  most = floats.max()
  total = (floats + thickness * cloud[..., None]) * most / (most + thickness)
  return jnp.clip(total, 0, 255).astype(jnp.uint8)


def _interleave(first: jax.Array, second: jax.Array, axis: int) -> jax.Array:
  """Interleaves the rows (axis 0) or columns (axis 1) of two arrays."""
  height, width = first.shape
  shape = (2 * height, width) if axis == 0 else (height, 2 * width)
  return jnp.stack([first, second], axis + 1).reshape(shape)


def _zoom(drawn: jax.Array, sources: list[dict[str, Any]]) -> jax.Array:
  """scipy.ndimage.zoom of order 1, cropped to the central part.

  Enlarges an image made of the first values of `drawn` [H,W], as many as there
  are pixels before the zoom.
  """
  rows, columns = sources
  flat, column = drawn.ravel(), np.arange(drawn.shape[1])

  def row(index: jax.Array) -> jax.Array:
    return flat[index[:, None] * columns["count"] + column]

  here, below = row(rows["before"]), row(rows["after"])
  tall = here + rows["part"][:, None] * (below - here)
  here, right = (jnp.take(tall, columns[n], 1) for n in ("before", "after"))
  return here + columns["part"] * (right - here)


def _sources(size: int, zoom: float) -> dict[str, Any]:
  """Where zoomed pixels come from along an axis.

  Args:
    size: number of zoomed pixels.
    zoom: the factor, at least 1.

  Returns:
    `count`, the number of pixels before the zoom; for each zoomed pixel, the
    pixels `before` and `after` it, and `part`, its fractional position between
    them.
  """
  count = math.ceil(size / zoom)
  zoomed = round(count * zoom)
  trimmed = (zoomed - size) // 2
  source = np.arange(trimmed, trimmed + size) * ((count - 1) / (zoomed - 1))
  # Without a zoom, nothing is interpolated: all parts are 0.
  before = np.minimum(source.astype(np.int32), count - 1 - (zoom > 1))
  after = np.minimum(before + 1, count - 1)
  part = (source - before).astype(np.float32)
  return {"count": count, "before": before, "after": after, "part": part}
