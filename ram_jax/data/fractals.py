"""Fractals as a mixing set for PixMix: attractors of random affine maps."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

MAPS = 4  # affine maps of a fractal
WARM_UP = 20  # iterations that are not drawn
POINTS = 3000  # iterations that are drawn


@dataclasses.dataclass(frozen=True)
class Pictures:
  """Attractors of iterated function systems, in random colors.

  PixMix's authors use fractals that were collected by hand, and other pictures.

  Attributes:
    count: number of fractals, at most 10,000.
    seed: seed of the random numbers.
  """

  count: int = 1000
  seed: int = 0

  def __post_init__(self) -> None:
    if not 1 <= self.count <= 10_000:
      raise ValueError(f"count is {self.count}; give 1 to 10000")
    if self.seed < 0:
      raise ValueError(f"seed is {self.seed}; give an integer of at least 0")

  def load(self, size: tuple[int, int]) -> np.ndarray:
    """Draws the fractals.

    Args:
      size: (H, W) of the training images.

    Returns:
      uint8 [count,h,w,3], an eighth taller and wider than the images, into
      which random crops of the fractals are mixed.
    """
    height, width = (n + n // 8 for n in size)
    return _fractals(self.count, self.seed, height, width)


@functools.lru_cache(maxsize=1)
def _fractals(count: int, seed: int, height: int, width: int) -> np.ndarray:
  """Runs the chaos game for all fractals, and draws the points."""
  # numpy guarantees the streams of bit generators, but not of distributions.
  words = np.random.Philox(np.random.SeedSequence(seed))

  def uniform(low: float, high: float, *shape: int) -> np.ndarray:
    raw = words.random_raw(int(np.prod(shape))).reshape(shape)
    return low + (high - low) * (raw >> np.uint64(11)) / 2**53

  matrices = _contractions(uniform, count)
  shifts = uniform(-1, 1, 2, count, MAPS)
  colors, background = uniform(0, 1, count, MAPS, 3), uniform(0, 1, count, 3)
  rows, x, shade = np.arange(count), np.zeros((2, count)), background
  points, shades = [], []
  for step in range(WARM_UP + POINTS):
    chosen = uniform(0, MAPS, count).astype(int)
    m = matrices[:, :, rows, chosen]
    x = m[:, 0] * x[0] + m[:, 1] * x[1] + shifts[:, rows, chosen]
    shade = (shade + colors[rows, chosen]) / 2
    if step >= WARM_UP:
      points.append(x)
      shades.append(shade)
  points, shades = np.stack(points, axis=-1), np.stack(shades, axis=1)
  return _drawn(points, shades, background, (height, width))


def _contractions(uniform: Callable[..., np.ndarray], count: int) -> np.ndarray:
  """Matrices [2,2,count,MAPS] with singular values below 1."""
  one, two = uniform(0, 2 * np.pi, 2, count, MAPS)
  large = uniform(0.4, 0.85, count, MAPS)
  small = large * uniform(0.2, 1, count, MAPS)

  def rotation(angle: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin]), np.stack([sin, cos])])

  scaled = rotation(one) * np.stack([large, small])
  return np.einsum("ij...,jk...->ik...", scaled, rotation(two))


def _drawn(
  points: np.ndarray,
  shades: np.ndarray,
  background: np.ndarray,
  size: tuple[int, int],
) -> np.ndarray:
  """Pictures uint8 [count,H,W,3] of points [2,count,n], shades [count,n,3]."""
  count, pixels = len(shades), size[0] * size[1]
  low = points.min(-1, keepdims=True)
  span = np.maximum(points.max(-1, keepdims=True) - low, 1e-9)
  sides = np.asarray(size).reshape(2, 1, 1)
  place = np.minimum((points - low) / span * sides, sides - 1).astype(int)
  index = (np.arange(count)[:, None] * size[0] + place[0]) * size[1] + place[1]

  def counted(weights: np.ndarray | None) -> np.ndarray:
    found = np.bincount(index.ravel(), weights, minlength=count * pixels)
    return found.reshape(count, pixels)

  hits = counted(None)
  density = np.log1p(hits) / np.log1p(hits.max(1, keepdims=True))
  mean = np.stack([counted(shades[..., c].ravel()) for c in range(3)], axis=-1)
  mean /= np.maximum(hits, 1)[..., None]
  cover = density[..., None]
  images = cover * mean + (1 - cover) * background[:, None]
  images = np.round(255 * images).astype(np.uint8)
  images.flags.writeable = False  # shared by all callers
  return images.reshape(count, *size, 3)
