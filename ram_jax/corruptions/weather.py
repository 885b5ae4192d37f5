"""CIFAR-10-C's snow, frost and fog.

Random draws are separate from their application, so that the latter can be
compared with the original, hendrycks/robustness, `make_cifar_c.py`. Parameters
are in pixels and pixel values and do not depend on the image size.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.corruptions import motion
from ram_jax.image import color

# Parameters of severities 1 to 5: mean and standard deviation of the noise,
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


def snow(
  key: jax.Array, image: jax.Array, severity: int, assets: object = None
) -> jax.Array:
  """Fades colors, and adds motion-blurred flakes, also upside down.

  Args:
    key: a key.
    image: float [H,W,3] in [0,1], multiples of 1/255.
    severity: 1 to 5.
    assets: not used.

  Returns:
    Float [H,W,3] in [0,1], multiples of 1/255.
  """
  del assets
  noise_key, angle_key = jax.random.split(key)
  shape = snow_shape(image.shape[:2], severity)
  noise = jax.random.normal(noise_key, shape, jnp.float32)
  degrees = jax.random.uniform(angle_key, (), jnp.float32, -135, -45)
  layer = snow_layer(noise, degrees, severity, image.shape[:2])
  levels = snow_cover(color.quantise(image), layer, severity)
  return color.dequantise(levels, image.dtype)


def snow_shape(size: tuple[int, int], severity: int) -> tuple[int, int]:
  """Size of the noise that the zoom enlarges to the image's (height, width)."""
  zoom = _SNOW[severity - 1][2]
  return math.ceil(size[0] / zoom), math.ceil(size[1] / zoom)


def snow_layer(
  noise: jax.Array, degrees: jax.Array, severity: int, size: tuple[int, int]
) -> jax.Array:
  """The flakes, pixel values int32 [H,W].

  Args:
    noise: standard normal [h,w], of `snow_shape`.
    degrees: direction of the motion blur.
    severity: 1 to 5.
    size: (H, W).
  """
  mean, deviation, zoom, threshold, radius, sigma, _ = _SNOW[severity - 1]
  noise = _zoom(mean + deviation * noise, zoom, size)
  bright = jnp.where(noise < threshold, 0, jnp.clip(noise, 0, 1))
  levels = jnp.floor(255 * bright).astype(jnp.int32)
  return motion.blur(levels[..., None], degrees, radius, sigma)[..., 0]


def snow_cover(levels: jax.Array, layer: jax.Array, severity: int) -> jax.Array:
  """Adds flakes [H,W], also rotated by 180 degrees, to levels [H,W,3]."""
  kept = _SNOW[severity - 1][-1]
  wide = levels.astype(jnp.int32)
  # In 1/2000 of a level: 1.5 times gray (ITU-R 601), plus half of white.
  gray = wide @ np.array([299, 587, 114], np.int32)
  pale = jnp.maximum(2000 * wide, (3 * gray + 255_000)[..., None])
  total = (kept * 2000 * wide + (100 - kept) * pale) // 200_000
  total += (layer + jnp.rot90(layer, 2))[..., None]
  return jnp.minimum(total, 255).astype(jnp.uint8)


def frost(
  key: jax.Array,
  image: jax.Array,
  severity: int,
  assets: tuple[jax.Array, ...] | None = None,
) -> jax.Array:
  """Adds a random part of one of five photographs of ice.

  Args:
    key: a key.
    image: float [H,W,3] in [0,1], multiples of 1/255.
    severity: 1 to 5.
    assets: photographs uint8 [h,w,3], RGB, `ram_jax.data.frost.load()`.

  Returns:
    Float [H,W,3] in [0,1], multiples of 1/255.

  Raises:
    ValueError: without photographs, or if they do not cover the image.
  """
  if not assets:
    raise ValueError(
      "frost needs photographs of ice: give assets=ram_jax.data.frost.load()"
    )
  height, width = image.shape[:2]
  sizes = np.array([picture.shape[:2] for picture in assets])
  if (sizes <= (height, width)).any():
    raise ValueError(
      f"photographs of {sizes.min(axis=0).tolist()} pixels do not cover images"
      f" of [{height}, {width}]: pass this size to load()"
    )
  which, row, column = jax.random.split(key, 3)
  index = jax.random.randint(which, (), 0, len(assets))
  spare = jnp.asarray(sizes - (height, width))[index]
  top = jax.random.randint(row, (), 0, spare[0])
  left = jax.random.randint(column, (), 0, spare[1])
  ice = crop(assets, index, top, left, (height, width))
  levels = frost_cover(color.quantise(image), ice, severity)
  return color.dequantise(levels, image.dtype)


def crop(
  pictures: tuple[jax.Array, ...],
  index: jax.Array,
  top: jax.Array,
  left: jax.Array,
  size: tuple[int, int],
) -> jax.Array:
  """Crops a window [H,W,3] from one of several pictures."""
  height = max(picture.shape[0] for picture in pictures)
  width = max(picture.shape[1] for picture in pictures)
  padded = [
    jnp.pad(p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0)))
    for p in map(jnp.asarray, pictures)
  ]
  start = (index, top, left, 0)
  return jax.lax.dynamic_slice(jnp.stack(padded), start, (1, *size, 3))[0]


def frost_cover(levels: jax.Array, ice: jax.Array, severity: int) -> jax.Array:
  """Adds levels of ice [H,W,3] to levels [H,W,3]."""
  kept, added = _FROST[severity - 1]
  total = kept * levels.astype(jnp.int32) + added * ice.astype(jnp.int32)
  return jnp.minimum(total // 100, 255).astype(jnp.uint8)


def fog(
  key: jax.Array, image: jax.Array, severity: int, assets: object = None
) -> jax.Array:
  """Adds a fractal cloud, and rescales to the original range.

  The cloud is a square whose side is the next power of two; its upper left
  corner is used.

  Args:
    key: a key.
    image: float [H,W,3] in [0,1], multiples of 1/255.
    severity: 1 to 5.
    assets: not used.

  Returns:
    Float [H,W,3] in [0,1], multiples of 1/255.
  """
  del assets
  height, width = image.shape[:2]
  side = 1 << (max(height, width) - 1).bit_length()
  noise = jax.random.uniform(key, (side * side - 1,), jnp.float32, -1, 1)
  cloud = plasma(noise, _FOG[severity - 1][1])[:height, :width]
  levels = fog_cover(color.quantise(image), cloud, severity)
  return color.dequantise(levels, image.dtype)


def plasma(noise: jax.Array, decay: float) -> jax.Array:
  """A cloud from the diamond-square algorithm, in [0,1], with periodic borders.

  Args:
    noise: [side**2 - 1] in (-1,1), side a power of two; from coarse to fine
      the centers, the middles of horizontal and those of vertical edges.
    decay: divides the roughness at each scale.

  Returns:
    Float [side,side]. As in the original, the roughness is squared.
  """
  grid = jnp.zeros((1, 1), noise.dtype)
  used, roughness = 0, _ROUGHNESS
  while used < noise.size:
    count = grid.size
    centers, across, along = (
      roughness**2
      * noise[used + i * count : used + (i + 1) * count].reshape(grid.shape)
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


def fog_cover(levels: jax.Array, cloud: jax.Array, severity: int) -> jax.Array:
  """Adds a cloud [H,W] in [0,1] to levels [H,W,3]."""
  thickness = 255 * _FOG[severity - 1][0]
  floats = levels.astype(cloud.dtype)
  most = floats.max()
  total = (floats + thickness * cloud[..., None]) * most / (most + thickness)
  return jnp.clip(total, 0, 255).astype(jnp.uint8)


def _interleave(first: jax.Array, second: jax.Array, axis: int) -> jax.Array:
  """Rows (axis 0) or columns (1) of two arrays in turn."""
  height, width = first.shape
  shape = (2 * height, width) if axis == 0 else (height, 2 * width)
  return jnp.stack([first, second], axis + 1).reshape(shape)


def _zoom(noise: jax.Array, zoom: float, size: tuple[int, int]) -> jax.Array:
  """scipy.ndimage.zoom of order 1, cropped to the central part of that size."""
  if zoom == 1:
    return noise
  for axis in (0, 1):
    before, part = _sources(noise.shape[axis], zoom, size[axis])
    part = jnp.asarray(part, noise.dtype)
    part = part[:, None] if axis == 0 else part
    here = jnp.take(noise, before, axis)
    after = jnp.take(noise, before + 1, axis)
    noise = here + part * (after - here)
  return noise


@functools.cache
def _sources(
  count: int, zoom: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Source of zoomed pixels: the pixel before, and the fractional part."""
  zoomed = round(count * zoom)
  trimmed = (zoomed - size) // 2
  source = np.arange(trimmed, trimmed + size) * ((count - 1) / (zoomed - 1))
  before = np.minimum(source.astype(int), count - 2)
  return before, source - before
