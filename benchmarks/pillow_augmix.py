"""AugMix's original code on Pillow, without importing JAX.

FOLDER, an argument of several benchmarks, contains `augmentations.py` of
google-research/augmix, with the operations and their random strengths. The
mixing follows `cifar.py` of that project, without normalization; chains operate
on Pillow images.
"""

import functools
import importlib
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image


class Views:
  """A data set for PyTorch's loaders: an image and AugMix views of it."""

  def __init__(self, folder: str, images: np.ndarray, count: int) -> None:
    """Stores AugMix's folder, uint8 images [N,H,W,C] and the view count."""
    self.folder, self.images, self.count = folder, images, count

  def __len__(self) -> int:
    """Practically infinite; images repeat."""
    return 10**9

  def __getitem__(self, index: int) -> list[np.ndarray]:
    """The image and its views, floats [C,H,W]."""
    image = self.images[index % len(self.images)]
    made = views(self.folder, np.stack([image] * self.count))
    floats = (image / np.float32(255), *made)
    return [np.ascontiguousarray(x.transpose(2, 0, 1)) for x in floats]


@functools.cache
def original(folder: str) -> list[Callable]:
  """Imports the nine operations of the original.

  Args:
    folder: folder that contains `augmentations.py`.

  Returns:
    Functions (image, severity) -> image.
  """
  sys.path.insert(0, folder)
  return importlib.import_module("augmentations").augmentations


def views(folder: str, images: np.ndarray) -> np.ndarray:
  """Augments images one by one, as in a data loader's worker process.

  Args:
    folder: folder of AugMix's code.
    images: uint8 [N,32,32,3].

  Returns:
    Float images [N,32,32,3].
  """
  operations = original(folder)
  return np.stack([mixed(operations, Image.fromarray(x)) for x in images])


def mixed(operations: list[Callable], image: Image.Image) -> np.ndarray:
  """Applies AugMix to one image.

  Args:
    operations: from `original`.
    image: Pillow image.

  Returns:
    Floats [32,32,3].
  """
  weights = np.float32(np.random.dirichlet([1] * 3))
  share = np.float32(np.random.beta(1, 1))
  mix = np.zeros((32, 32, 3), np.float32)
  for weight in weights:
    chain = image.copy()
    for _ in range(np.random.randint(1, 4)):
      chain = np.random.choice(operations)(chain, 3)
    mix += weight * (np.asarray(chain, np.float32) / 255)
  return (1 - share) * (np.asarray(image, np.float32) / 255) + share * mix
