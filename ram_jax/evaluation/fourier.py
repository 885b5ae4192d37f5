"""Sensitivity to single spatial frequencies.

Yin et al., "A Fourier Perspective on Model Robustness in Computer Vision",
NeurIPS 2019. A heat map of the errors shows at which frequencies a model fails.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import checks, contracts, parallel
from ram_jax import keys as keys_lib
from ram_jax.contracts import Batch, Cache, Row
from ram_jax.evaluation import clean, rows
from ram_jax.image.color import dequantize
from ram_jax.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Evaluator(contracts.Evaluator):
  """Errors on images with an added wave, for each frequency (section 2).

  Attributes:
    images: number of test images to use, from the start of the test set, or all
      if there are fewer; 0 disables the evaluation.
    norm: L2 norm of the wave in each channel, for pixels in [0,1].
    batch_size: examples per batch, over all devices; does not change results.
  """

  images: int
  norm: float
  batch_size: int

  def __post_init__(self) -> None:
    checks.check(vars(self), images=checks.integer(0), norm=checks.POSITIVE)

  def results(
    self, model: Classifier, batch: Batch, key: jax.Array, cache: Cache
  ) -> Iterator[Row]:
    """Yields a row per frequency, or none if `images` is 0.

    Args:
      model: the classifier, on the devices.
      batch: `images` uint8 [N,H,W,C] and `labels` int32 [N].
      key: source of the waves' signs, together with the frequency and the
        example's position.
      cache: stores the results for each frequency.

    Yields:
      See `contracts.Evaluator`; one row for each pair (y, x), (-y, -x), whose
      waves differ only in phase.
    """
    if not self.images:
      return
    batch = {name: part[: self.images] for name, part in batch.items()}
    total, height, width, _ = batch["images"].shape
    batch_size = parallel.even_batches(total, self.batch_size)
    for y, x in half_plane(height, width):
      shared = parallel.replicate((key, np.array((y, x)), self.norm))
      classify = functools.partial(
        _classify, (*shared, model), batch, batch_size
      )
      found = cache(str((y, x)), classify)
      settings = {"wave_norm": self.norm, "y": y, "x": x}
      yield rows.row("fourier", settings, found, stored=False)


def half_plane(height: int, width: int) -> Iterator[tuple[int, int]]:
  """One frequency of each pair (y, x), (-y, -x), in cycles per image.

  Args:
    height: height of the image, in pixels.
    width: width of the image, in pixels.

  Yields:
    (y, x) row by row, with y from -(height // 2) to 0; (0, 0) is the last.
  """
  seen = set()
  for y in range(-(height // 2), height - height // 2):
    for x in range(-(width // 2), width - width // 2):
      if (-y % height, -x % width) not in seen:
        seen.add((y % height, x % width))
        yield y, x


def wave(frequency: jax.Array, height: int, width: int) -> jax.Array:
  """The real unit-norm image of one frequency and its conjugate.

  The phase is that of the authors' code, where the spectrum is 1/2 + i/2 at
  the frequency and 1/2 - i/2 at its conjugate (google-research
  frequency_analysis/freq_heatmap.py, `_get_fourier_basis`).

  Args:
    frequency: (y, x) in cycles per image, integers [2].
    height: height of the image, in pixels.
    width: width of the image, in pixels.

  Returns:
    [height, width], L2 norm 1.
  """
  # Remove full cycles in integer arithmetic; float32 would lose precision.
  rows = frequency[0] * jnp.arange(height) % height / height
  columns = frequency[1] * jnp.arange(width) % width / width
  turns = rows[:, None] + columns
  return jnp.cos(2 * jnp.pi * turns + jnp.pi / 4) * (2 / height / width) ** 0.5


@parallel.per_example
def _classify(
  shared: tuple[jax.Array, jax.Array, jax.Array, Classifier],
  positions: jax.Array,
  batch: dict[str, jax.Array],
) -> dict[str, jax.Array]:
  """Whether predictions are `correct`, and logits `finite`; bools [b]."""
  key, frequency, norm, model = shared
  images = dequantize(batch["images"])
  _, height, width, channels = images.shape
  # fold_in needs a unique, non-negative number for every frequency.
  number = frequency[0] % height * width + frequency[1] % width
  keys = keys_lib.per_example(jax.random.fold_in(key, number), positions)
  signs = jax.vmap(lambda k: jax.random.rademacher(k, (channels,)))(keys)
  basis = wave(frequency, height, width)[:, :, None]
  moved = images + norm * signs[:, None, None, :] * basis
  return clean.judged(model(jnp.clip(moved, 0, 1)), batch["labels"])
