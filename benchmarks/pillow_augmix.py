"""AugMix's original code on Pillow, without importing JAX.

The folder contains `augmentations.py` of google-research/augmix, with the
operations and their random strengths. The mixing is written as in `cifar.py` of
that project, without normalization; chains keep Pillow images.
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
    """Keeps AugMix's folder, uint8 images [N,H,W,C] and how many views."""
    self.folder, self.images, self.count = folder, images, count

  def __len__(self) -> int:
    """More than anybody asks for; images repeat."""
    return 10**9

  def __getitem__(self, index: int) -> list[np.ndarray]:
    """Floats [C,H,W]."""
    image = self.images[index % len(self.images)]
    made = views(self.folder, np.stack([image] * self.count))
    floats = (image / np.float32(255), *made)
    return [np.ascontiguousarray(x.transpose(2, 0, 1)) for x in floats]


@functools.cache
def original(folder: str) -> list[Callable]:
  """The original's nine operations.

  Args:
    folder: where its `augmentations.py` is.

  Returns:
    Functions (image, severity) -> image.
  """
  sys.path.insert(0, folder)
  return importlib.import_module("augmentations").augmentations


def views(folder: str, images: np.ndarray) -> np.ndarray:
  """A loop over images, as a loader's process has it.

  Args:
    folder: of AugMix's code.
    images: uint8 [N,32,32,3].

  Returns:
    Float images [N,32,32,3].
  """
  operations = original(folder)
  return np.stack([mixed(operations, Image.fromarray(x)) for x in images])


def mixed(operations: list[Callable], image: Image.Image) -> np.ndarray:
  """AugMix of one image.

  Args:
    operations: from `original`.
    image: of Pillow.

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
