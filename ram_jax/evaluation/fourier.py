"""Sensitivity to single frequencies of the image plane.

Yin et al., "A Fourier Perspective on Model Robustness in Computer Vision",
NeurIPS 2019: the map that tells models that fail at low frequencies from those
that fail at high ones.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import keys as keys_lib
from ram_jax import losses, parallel
from ram_jax.evaluation import correctness
from ram_jax.evaluation.cache import Part, fresh
from ram_jax.image.color import dequantise
from ram_jax.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Errors under a wave of each frequency (Yin et al. 2019, section 2).

  Attributes:
    images: first N test images, all where there are fewer; 0: not measured.
    norm: L2 norm of the wave in each channel, pixels in [0,1].
    batch_size: examples at once over all devices; it changes no result.
  """

  images: int
  norm: float
  batch_size: int

  def __post_init__(self) -> None:
    if self.images < 0:
      raise ValueError(
        f"images is {self.images}: give how many, or 0 to leave it out"
      )
    if not 0 < self.norm < np.inf:
      raise ValueError(f"norm is {self.norm}: give a finite number above 0")

  def run(
    self,
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    key: jax.Array,
    part: Part = fresh,
  ) -> dict[str, Any] | None:
    """Counts the images that each frequency brings to a wrong class.

    Args:
      model: the classifier, on the devices.
      images: uint8 [N,H,W,C].
      labels: int32 [N].
      key: the waves' signs come from it, the frequency and the example's
        position alone.
      part: keeps the count of each frequency (`cache.Parts.of`).

    Returns:
      `norm`, `total` (images) and `wrong`, H lists of W counts, the lowest
      frequency in the middle (where numpy's fftshift brings it); where logits
      are not finite under a wave, `not_finite`, the most images with such
      logits under one wave. None where `images` is 0.
    """
    if not self.images:
      return None
    batch = {"images": images[: self.images], "labels": labels[: self.images]}
    size = images.shape[1:3]
    wrong, most = np.zeros(size, int), {}
    for frequency in half_plane(*size):
      measure = functools.partial(
        self._count, model, batch, key, np.array(frequency)
      )
      found = part(str(frequency), measure)
      count = found.pop("wrong")
      # A real image has both or none: frequency (-y, -x) is the same wave.
      for sign in (1, -1):
        place = [
          (sign * f + n // 2) % n for f, n in zip(frequency, size, strict=True)
        ]
        wrong[tuple(place)] = count
      most = max(most, found, key=lambda counts: sum(counts.values()))
    total = len(batch["labels"])
    results = {"norm": self.norm, "total": total, "wrong": wrong.tolist()}
    return results | most

  def _count(
    self, model: Classifier, batch: Any, key: jax.Array, frequency: np.ndarray
  ) -> dict[str, int]:
    shared = parallel.replicate((key, frequency, self.norm))
    found = _judged((*shared, model), batch, self.batch_size)
    wrong = {"wrong": int(np.sum(~found["correct"]))}
    return wrong | correctness.not_finite(found["finite"])


def half_plane(height: int, width: int) -> Iterator[tuple[int, int]]:
  """One frequency of each pair (y, x), (-y, -x), in cycles per image.

  Args:
    height: of the image, in pixels.
    width: of the image, in pixels.

  Yields:
    (y, x) with y in -height // 2 ..., the lowest in the middle, row by row.
  """
  seen = set()
  for y in range(-(height // 2), height - height // 2):
    for x in range(-(width // 2), width - width // 2):
      if (-y % height, -x % width) not in seen:
        seen.add((y % height, x % width))
        yield y, x


def wave(frequency: jax.Array, height: int, width: int) -> jax.Array:
  """The real image of unit norm whose spectrum is one frequency and its twin.

  Its phase is that of the authors' code, where the spectrum is 1/2 + i/2 at
  the frequency and 1/2 - i/2 at its twin (google-research
  frequency_analysis/freq_heatmap.py, `_get_fourier_basis`).

  Args:
    frequency: (y, x) in cycles per image, integers [2].
    height: of the image, in pixels.
    width: of the image, in pixels.

  Returns:
    [height, width], L2 norm 1.
  """
  # Whole turns taken off in integers: float32 would lose digits on them.
  rows = frequency[0] * jnp.arange(height) % height / height
  columns = frequency[1] * jnp.arange(width) % width / width
  turns = rows[:, None] + columns
  return jnp.cos(2 * jnp.pi * turns + jnp.pi / 4) * (2 / height / width) ** 0.5


@parallel.per_example
def _judged(
  shared: tuple[jax.Array, jax.Array, jax.Array, Classifier],
  positions: jax.Array,
  batch: dict[str, jax.Array],
) -> dict[str, jax.Array]:
  """`correct` and `finite`, the logits, under one wave, bools [b]."""
  key, frequency, norm, model = shared
  images = dequantise(batch["images"])
  _, height, width, channels = images.shape
  # A number of its own for every frequency; keys take no negative ones.
  number = frequency[0] % height * width + frequency[1] % width
  keys = keys_lib.per_example(jax.random.fold_in(key, number), positions)
  signs = jax.vmap(lambda k: jax.random.rademacher(k, (channels,)))(keys)
  basis = wave(frequency, height, width)[:, :, None]
  moved = images + norm * signs[:, None, None, :] * basis
  logits = model(jnp.clip(moved, 0, 1))
  return {
    "correct": losses.correct(logits, batch["labels"]),
    "finite": losses.finite(logits),
  }
