"""Handwritten digits that come with scikit-learn: real data, no download."""

import dataclasses
from typing import ClassVar

import numpy as np
from PIL import Image

from ram_jax.contracts import Split


@dataclasses.dataclass(frozen=True)
class Source:
  """The 1,797 digits of scikit-learn as 32x32 RGB images in ten classes.

  A fixed random fifth of each class is held out for testing.
  `mean` and `std` are those of the training images.
  """

  num_classes: ClassVar[int] = 10
  mean: ClassVar[tuple[float, ...]] = (0.309438,) * 3
  std: ClassVar[tuple[float, ...]] = (0.348713,) * 3
  label: ClassVar[str] = "Digits (scikit-learn)"

  def load(self, split: str) -> Split:
    """Reads one split.

    Args:
      split: 'train' (1,433 examples) or 'test' (364).

    Returns:
      Images uint8 [N, 32, 32, 3] and labels int32 [N].

    Raises:
      ModuleNotFoundError: scikit-learn is not installed.
    """
    # Slow to import, and needed for this data set alone.
    from sklearn import datasets

    digits = datasets.load_digits()
    labels = digits.target.astype(np.int32)
    chosen = np.flatnonzero(_held_out(labels) == (split == "test"))
    images = np.stack([_enlarge(digits.images[i]) for i in chosen])
    return images, labels[chosen]


def _held_out(labels: np.ndarray) -> np.ndarray:
  """Marks every fifth example of each class, in a fixed random order."""
  order = np.argsort(np.random.Philox(0).random_raw(len(labels)))
  chosen = np.zeros(len(labels), bool)
  for digit in np.unique(labels):
    chosen[order[labels[order] == digit][::5]] = True
  return chosen


def _enlarge(digit: np.ndarray) -> np.ndarray:
  """Converts a digit, 8x8 in 0..16, to 32x32x3 uint8."""
  image = Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8))
  large = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))
  return np.repeat(large[..., None], 3, axis=-1)
