"""CIFAR-10-C-bar: ten corruptions that are unlike those of CIFAR-10-C.

Source: Mintun, Kirillov and Xie 2021, facebookresearch/augmentation-corruption,
`imagenet_c_bar/corrupt.py`, with the severities in `cifar10_c_bar.csv`. Lengths
are relative to the smaller side of the image. Random draws are separate from
their application, so that the latter can be compared with the original.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.corruptions.corruption import corruption
from ram_jax.image import geometry

# Parameters for severities 1 to 5; lengths are fractions of the image's side.
# Blue noise: threshold in standard deviations, below which pixels become black.
# Brown noise: standard deviation in levels. Checkerboard: fraction of its black
# squares that are cut out. Sparkles: radius. Inverse sparkles: exponent of the
# decay. Lines: number per pixel of the side. Pinch and twirl: exponent of the
# pinch, and angle at the center in half turns. Ripple: amplitude. Motion blur:
# degrees. Aberration: added zoom.
_BLUE = (-2.29, -2.08, -1.87, -1.45, -1.24)
_BROWN = (16.0, 25.6, 35.2, 41.6, 44.8)
_CHECKERBOARD = (0.1, 0.2, 0.3, 0.4, 0.5)
_SPARKLES = (0.007, 0.035, 0.056, 0.063, 0.07)
_INVERSE_SPARKLES = (0.13, 0.195, 0.325, 0.585, 0.65)
_LINES = (0.05, 0.1, 0.15, 0.2, 0.25)
_PINCH = ((0.32, 0.275), (0.34, 0.3), (0.36, 0.325), (0.44, 0.425), (0.5, 0.5))
_RIPPLE = (0.01375, 0.015, 0.01625, 0.01875, 0.02)
_MOTION = (4.2, 5.4, 6.6, 7.8, 9.0)
_ABERRATION = (0.05, 0.1, 0.25, 0.45, 0.5)
_RAYS = (50, 200)  # number per sparkle; the upper end is not included
_SPARKS = 5
_LARGEST_SQUARE = 0.25  # side of a square of the checkerboard
_SMALLEST_SQUARE = 0.1
_CELLS = 3  # discs of pinch and twirl along the smaller side
_TURNS = 21  # rotations that motion blur averages


def _pixels(fraction: float, shape: Sequence[int], *_: Any) -> float:
  """A fraction of the smaller side, in pixels."""
  return min(shape[:2]) * fraction


@corruption(_BLUE)
def blue_noise_sample(
  key: jax.Array, levels: jax.Array, threshold: float
) -> jax.Array:
  """Turns pixels black where blue noise is below a threshold."""
  height, width, _ = levels.shape
  drawn = _uniform(key, (height * width // 2,), 0, 2 * math.pi)
  noise = noise_from_phases(drawn, radius(height, width))
  return levels * (noise > threshold)[..., None]


@corruption(_BROWN)
def brownish_noise(key: jax.Array, levels: jax.Array, std: float) -> jax.Array:
  """Adds low-frequency noise, independently to each channel."""
  height, width, channels = levels.shape
  shape = (channels, height * width // 2)
  drawn = _uniform(key, shape, 0, 2 * math.pi)
  power = 1 / (radius(height, width) ** 2 + 1)
  noise = [noise_from_phases(phases, power) for phases in drawn]
  return _truncated(levels + std * jnp.stack(noise, axis=-1))


def radius(height: int, width: int) -> np.ndarray:
  """Radial frequency [H,W], 0 in the center."""
  y, x = np.mgrid[:height, :width]
  return np.hypot(y - height / 2, x - width / 2)


def noise_from_phases(drawn: jax.Array, power: np.ndarray) -> jax.Array:
  """Noise with standard deviation 1 and a given amplitude per frequency.

  Args:
    drawn: phases [H*W//2] of the left half, column by column. The right half is
      the left one rotated by 180 degrees, as in the original.
    power: amplitudes [H,W], low frequencies in the center.

  Returns:
    Float [H,W].
  """
  height, width = power.shape
  center = jnp.zeros(power.size % 2, drawn.dtype)
  phases = jnp.concatenate([drawn, center, drawn[::-1]])
  phases = phases.reshape(width, height).T
  waves = jax.lax.complex(power * jnp.cos(phases), power * jnp.sin(phases))
  waves = jnp.roll(waves, (height // 2, width // 2), (0, 1))
  noise = jnp.fft.ifft2(waves).real
  return noise / jnp.std(noise)


@corruption(_CHECKERBOARD)
def checkerboard_cutout(
  key: jax.Array, levels: jax.Array, fraction: float
) -> jax.Array:
  """Grays out the image under some squares of a rotated checkerboard."""
  angle_key, size_key, square_key = jax.random.split(key, 3)
  height, width, _ = levels.shape
  side = min(height, width)
  angle = _uniform(angle_key, (), 0, 2 * math.pi)
  size = _uniform(size_key, (), _SMALLEST_SQUARE * side, _LARGEST_SQUARE * side)
  most = int(math.hypot(height, width) / max(_SMALLEST_SQUARE * side, 1)) + 1
  cut = _uniform(square_key, (2 * most + 1,) * 2, 0, 1) < fraction
  hidden = cut_squares(cut, angle, jnp.maximum(size, 1), (height, width))
  return jnp.where(hidden[..., None], 128, levels)


def cut_squares(
  cut: jax.Array, angle: jax.Array, size: jax.Array, shape: tuple[int, int]
) -> jax.Array:
  """Which pixels are in black squares that are cut out, bool [H,W].

  Args:
    cut: bool [N,N], by position of the square; negative positions count from
      the end, and the squares on both sides of an axis share position 0.
    angle: angle of the checkerboard, in radians.
    size: side of a square, in pixels.
    shape: height and width.
  """
  y, x = jnp.mgrid[: shape[0], : shape[1]]
  down = (jnp.cos(angle) * y + jnp.sin(angle) * x) / size
  right = (jnp.cos(angle) * x - jnp.sin(angle) * y) / size
  black = jnp.floor(down % 2) == jnp.floor(right % 2)
  return black & cut[down.astype(jnp.int32), right.astype(jnp.int32)]


@corruption(_SPARKLES, _pixels)
def sparkles(key: jax.Array, levels: jax.Array, radius: float) -> jax.Array:
  """Adds five white sparkles."""
  center_key, *keys = jax.random.split(key, 3)
  shape = levels.shape[:2]
  centers = _uniform(center_key, (_SPARKS, 2), 0, 1) * np.array(shape)
  counts, lengths = _rays(keys, (_SPARKS,), radius)
  lights = jax.vmap(lambda *x: light(*x, 1, shape))(
    centers, counts, jnp.maximum(lengths, 1)
  )
  dark = jnp.prod(1 - lights, axis=0)[..., None]
  return _truncated(255 - (255 - levels) * dark)


@corruption(_INVERSE_SPARKLES)
def inverse_sparkles(
  key: jax.Array, levels: jax.Array, exponent: float
) -> jax.Array:
  """Turns everything white except for a sparkle near the center."""
  center_key, *keys = jax.random.split(key, 3)
  shape = levels.shape[:2]
  center = _uniform(center_key, (2,), 0.25, 0.75) * np.array(shape)
  count, lengths = _rays(keys, (), 0.25 * min(shape))
  kept = light(center, count, lengths, exponent, shape)[..., None]
  return _truncated(255 - (255 - levels) * kept)


def _rays(
  keys: Sequence[jax.Array], shape: tuple[int, ...], radius: float
) -> tuple[jax.Array, jax.Array]:
  """Number of rays, and their lengths; surplus lengths are not used."""
  counts = jax.random.randint(keys[0], shape, *_RAYS, jnp.int32)
  drawn = jax.random.normal(keys[1], (*shape, _RAYS[1]), jnp.float32)
  return counts, radius * (1 + 0.25 * drawn)


def light(
  center: jax.Array,
  count: jax.Array,
  lengths: jax.Array,
  exponent: float,
  shape: tuple[int, int],
) -> jax.Array:
  """Brightness [H,W] of a sparkle, in [0,1].

  Args:
    center: row and column.
    count: number of rays.
    lengths: lengths of the rays, in pixels; only the first `count` are used.
    exponent: exponent of the decay with squared distance.
    shape: height and width.
  """
  y, x = jnp.mgrid[: shape[0], : shape[1]]
  y, x = y - center[0], x - center[1]
  turn = (jnp.arctan2(x, y) + math.pi) / (2 * math.pi) * count
  ray = jnp.floor(turn).astype(jnp.int32)
  part = turn - ray
  length, after = lengths[ray % count], lengths[(ray + 1) % count]
  length += part * (after - length)
  decay = (length**2 / (y**2 + x**2 + 1e-4)) ** exponent
  return jnp.clip((1 - (part - 0.5) ** 2) * decay, 0, 1)


@corruption(_LINES, _pixels)
def lines(key: jax.Array, levels: jax.Array, count: float) -> jax.Array:
  """Draws gray lines in a random range of angles; rounds their number down."""
  angle_key, spread_key, key = jax.random.split(key, 3)
  shape = levels.shape[:2]
  angle = _uniform(angle_key, (), 0, 2 * math.pi)
  spread = 2 * math.pi * _uniform(spread_key, (), 0.1, 1)
  drawn = _uniform(key, (int(_LINES[-1] * min(shape)), 3), 0, 1)
  middles = drawn[:, :2] * np.array(shape)
  angles = angle + spread * (drawn[:, 2] - 0.5)
  halves = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1) * min(shape)
  ends = jnp.stack([middles - halves, middles + halves], axis=1)
  shown = jnp.arange(1, len(drawn) + 1) <= count
  return _truncated(draw_lines(levels.astype(jnp.float32), ends, shown))


def draw_lines(
  levels: jax.Array, ends: jax.Array, shown: jax.Array
) -> jax.Array:
  """Draws gray lines with smooth edges, like `skimage.draw.line_aa`.

  Its algorithm visits exactly the pixels between the ends whose distance from
  the line is less than one, and gives them a coverage of one minus this
  distance.

  Args:
    levels: floats [H,W,C].
    ends: start and end [L,2,2] of the lines, rows and columns.
    shown: bool [L], which lines are drawn.

  Returns:
    Floats [H,W,C], truncated after every line.
  """
  pixels = jnp.stack(jnp.mgrid[: levels.shape[0], : levels.shape[1]], axis=-1)

  def draw(levels: jax.Array, line: Any) -> tuple[jax.Array, None]:
    (start, end), is_shown = line
    step, place = end - start, pixels - start
    distance = jnp.abs(step[1] * place[..., 0] - step[0] * place[..., 1])
    cover = 1 - distance / jnp.sqrt(jnp.sum(step**2).astype(levels.dtype))
    within = (pixels >= jnp.minimum(start, end)).all(-1)
    within &= (pixels <= jnp.maximum(start, end)).all(-1)
    cover = jnp.where(is_shown & within, jnp.maximum(cover, 0), 0)[..., None]
    return jnp.floor(levels + cover * (128 - levels)), None

  ends = ends.astype(jnp.int32)  # rounds toward zero
  return jax.lax.scan(draw, levels, (ends, shown))[0]


def _discs(shape: Sequence[int]) -> tuple[int, list[int]]:
  """Diameter of the discs in pixels, and their number along each side."""
  side = min(shape[:2])
  cell = side // _CELLS
  return cell, [_CELLS if size == side else size // cell for size in shape[:2]]


def _twirls(
  row: tuple[float, float], shape: Sequence[int], *_: Any
) -> np.ndarray:
  """Source [2,2,H,W] of each pixel: for both directions, row and column."""
  exponent, turns = row
  cell, counts = _discs(shape)
  counts = np.array(counts)[:, None, None]
  places = np.mgrid[: shape[0], : shape[1]].astype(float)
  centers = np.minimum(places // cell, counts - 1) * cell + cell / 2
  y, x = places - centers
  part = np.hypot(y, x) / (cell / 2)
  # The center does not move, and neither does anything outside the discs.
  part = np.where((part > 0) & (part <= 1), part, 1)
  pinch = np.sin(np.pi / 2 * part) ** -exponent
  found = []
  for sign in (1, -1):
    angle = sign * np.pi * turns * (1 - part) ** 2
    cos, sin = pinch * np.cos(angle), pinch * np.sin(angle)
    found.append(centers + [y * cos - x * sin, y * sin + x * cos])
  return np.stack(found)


@corruption(_PINCH, _twirls)
def pinch_and_twirl(
  key: jax.Array, levels: jax.Array, sources: jax.Array
) -> jax.Array:
  """Pinches and twirls discs on a grid, each in a random direction."""
  turned = _uniform(key, _discs(levels.shape)[1], 0, 1) < 0.5
  return _truncated(twirl(levels.astype(jnp.float32), turned, sources))


def twirl(
  levels: jax.Array, turned: jax.Array, sources: jax.Array
) -> jax.Array:
  """Samples at the second source where a disc is `turned` [rows,columns]."""
  cell, _ = _discs(levels.shape)
  rows, columns = (
    np.minimum(np.arange(size) // cell, count - 1)
    for size, count in zip(levels.shape[:2], turned.shape, strict=True)
  )
  which = turned[rows[:, None], columns]
  return _sample(levels, *jnp.where(which, sources[1], sources[0]))


@corruption(_RIPPLE, _pixels)
def ripple(key: jax.Array, levels: jax.Array, amplitude: float) -> jax.Array:
  """Displaces pixels by sine waves; pixels from outside are black."""
  wave_key, phase_key = jax.random.split(key)
  lengths = min(levels.shape[:2]) * _uniform(wave_key, (2,), 0.1, 0.3)
  phases = _uniform(phase_key, (2,), 0, 2 * math.pi)
  floats = levels.astype(jnp.float32)
  return _truncated(waver(floats, amplitude, lengths, phases))


def waver(
  levels: jax.Array, amplitude: float, lengths: jax.Array, phases: jax.Array
) -> jax.Array:
  """Displaces pixels by sine waves, given the wavelength and phase per axis."""
  places = jnp.stack(jnp.mgrid[: levels.shape[0], : levels.shape[1]], axis=-1)
  shift = amplitude * jnp.sin(2 * math.pi * places / lengths + phases)
  return _sample(levels, *jnp.moveaxis(places + shift, -1, 0))


def _sample(levels: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
  """Bilinear interpolation; everything outside the image is black."""
  height, width, _ = levels.shape
  padded = jnp.pad(levels, ((1, 1), (1, 1), (0, 0)))
  row, column = jnp.clip(row, -1, height), jnp.clip(column, -1, width)
  above = jnp.minimum(jnp.floor(row), height - 1)
  before = jnp.minimum(jnp.floor(column), width - 1)
  first = (above + 1) * padded.shape[1] + before + 1
  steps = np.array([0, 1]) + padded.shape[1] * np.array([[0], [1]])
  index = first.astype(jnp.int32) + steps[..., None, None]
  return geometry.bilinear(padded, index, row - above, column - before)


def _circles(degrees: float, shape: Sequence[int], *_: Any) -> dict[str, Any]:
  """The mean over rotations, as kernels for cubic spline coefficients."""
  height, width = shape[:2]
  half = np.radians(_MOTION[-1]) / 2
  reach = int(math.hypot(height - 1, width - 1) * math.sin(half)) + 2
  steps = np.arange(-reach, reach + 1)[:, None]
  y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
  down, right = y - (height - 1) / 2, x - (width - 1) / 2
  turns = np.linspace(-1, 1, _TURNS)
  weights = np.exp(-2 * turns**2)
  kernels = 0
  for turn, weight in zip(turns, weights / weights.sum(), strict=True):
    angle = np.radians(turn * degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    row = cos * down + sin * right + (height - 1) / 2
    column = cos * right - sin * down + (width - 1) / 2
    inside = (row >= 0) & (row <= height - 1)
    inside &= (column >= 0) & (column <= width - 1)
    taps = spline(row - y - steps), spline(column - x - steps)
    kernels += weight * inside * np.einsum("ap,bp->abp", *taps)
  return {
    "rows": coefficients(height),
    "columns": coefficients(width),
    "kernels": kernels.reshape(len(steps) ** 2, height, width),
  }


@corruption(_MOTION, _circles)
def circular_motion_blur(
  key: jax.Array, levels: jax.Array, parameters: dict[str, Any]
) -> jax.Array:
  """Averages rotations about the center; pixels from outside are black.

  Parameters are `rows` and `columns`, matrices that turn levels into spline
  coefficients, and `kernels` [K*K,H,W], one for each pixel.
  """
  # Rounding must not change constant images.
  return _truncated(blur(levels.astype(jnp.float32), parameters) + 2e-4)


def blur(levels: jax.Array, parameters: dict[str, Any]) -> jax.Array:
  """Applies the kernels to levels [H,W,C]."""
  kernels = parameters["kernels"]
  reach = math.isqrt(len(kernels)) // 2
  both = parameters["rows"], levels, parameters["columns"]
  found = jnp.einsum("ih,hwc,jw->ijc", *both, precision="highest")
  padded = jnp.pad(found, ((reach, reach), (reach, reach), (0, 0)), "reflect")
  places = np.argwhere(np.ones((2 * reach + 1,) * 2))

  def add(total: jax.Array, window: Any) -> tuple[jax.Array, None]:
    kernel, place = window
    start = (place[0], place[1], 0)
    part = jax.lax.dynamic_slice(padded, start, levels.shape)
    return total + kernel[..., None] * part, None

  start = jnp.zeros_like(found)
  return jax.lax.scan(add, start, (kernels, jnp.asarray(places)))[0]


def spline(distance: np.ndarray) -> np.ndarray:
  """The cubic B-spline at signed distances from its center."""
  far = np.abs(distance)
  near = 2 / 3 - far**2 + far**3 / 2
  return np.where(far < 1, near, np.maximum(2 - far, 0) ** 3 / 6)


def spline_matrix(places: np.ndarray, size: int) -> np.ndarray:
  """Weights [P,size] of a spline's coefficients, mirrored at the borders."""
  taps = np.arange(-1, size + 1)
  mirrored = np.minimum(np.abs(taps), 2 * (size - 1) - taps)
  return spline(places[:, None] - taps) @ np.eye(size)[mirrored]


def coefficients(size: int) -> np.ndarray:
  """The matrix [size,size] that turns values into spline coefficients."""
  return np.linalg.inv(spline_matrix(np.arange(size), size))


def _zooms(added: float, shape: Sequence[int], *_: Any) -> list[np.ndarray]:
  """Matrices [3,H,H] and [3,W,W] that zoom by three factors."""
  zooms = 1 + added * np.array([0, 0.5, 1])
  return [np.stack([_zoom(n, zoom) for zoom in zooms]) for n in shape[:2]]


def _zoom(size: int, zoom: float) -> np.ndarray:
  """Weights [size,size] of an enlarged axis, of which the middle is kept.

  This is SciPy's cubic `zoom` without its prefilter, so it blurs.
  """
  enlarged = round(size * zoom)
  places = np.arange(size) + (enlarged - size) // 2
  return spline_matrix(places * ((size - 1) / (enlarged - 1)), size)


# The original's spelling, also used in the name of the data file.
@corruption(_ABERRATION, _zooms)
def transverse_chromatic_abberation(
  key: jax.Array, levels: jax.Array, zooms: list[jax.Array]
) -> jax.Array:
  """Enlarges the three channels by different factors, in random order."""
  order = jax.random.permutation(key, 3)
  return _truncated(enlarge(levels.astype(jnp.float32), order, zooms))


def enlarge(
  levels: jax.Array, order: jax.Array, zooms: list[jax.Array]
) -> jax.Array:
  """Enlarges channel c by factor number order[c]; rounds to whole levels."""
  rows, columns = (jnp.asarray(matrices)[order] for matrices in zooms)
  zoomed = jnp.einsum(
    "cih,hwc,cjw->ijc", rows, levels, columns, precision="highest"
  )
  return jnp.floor(zoomed + 0.5001)  # halves are frequent, and rounded up


def _uniform(
  key: jax.Array, shape: Sequence[int], low: float, high: float
) -> jax.Array:
  return jax.random.uniform(key, shape, jnp.float32, low, high)


def _truncated(levels: jax.Array) -> jax.Array:
  """Clips levels to 0..255 and truncates them, like NumPy's `astype`."""
  return jnp.clip(levels, 0, 255).astype(jnp.uint8)


ALL = (
  blue_noise_sample,
  checkerboard_cutout,
  inverse_sparkles,
  pinch_and_twirl,
  ripple,
  brownish_noise,
  circular_motion_blur,
  lines,
  sparkles,
  transverse_chromatic_abberation,
)
