"""Accuracy on CIFAR-10.1, a newly collected test set with CIFAR-10's classes.

Recht, Roelofs, Schmidt and Shankar, "Do CIFAR-10 Classifiers Generalize to
CIFAR-10?", 2018; files from modestyachts/CIFAR-10.1, folder `datasets`.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator

import jax
import numpy as np

from ram_jax import checks, contracts
from ram_jax.contracts import Batch, Cache, Row, Split
from ram_jax.data import pipeline
from ram_jax.evaluation import clean, rows
from ram_jax.evaluation.cache import stamp
from ram_jax.models.classifier import Classifier

# Number of images of each version; v6 has 200 of each class.
SIZES = {"v4": 2021, "v6": 2000}
HOME = "get the files from github.com/modestyachts/CIFAR-10.1, folder datasets"


@dataclasses.dataclass(frozen=True)
class Evaluator(contracts.Evaluator):
  """Accuracy on CIFAR-10.1.

  Attributes:
    folder: folder of the .npy files; empty: nothing is evaluated.
    version: v4 | v6.
    batch_size: examples per batch, over all devices; does not change results.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is damaged, or there is no such version.
  """

  folder: str
  version: str
  batch_size: int

  def __post_init__(self) -> None:
    checks.check(vars(self), version=checks.one_of(*SIZES))
    if self.folder:
      self._load()

  def check(self, batch: Batch) -> None:
    """Rejects a test set unlike CIFAR-10's.

    Args:
      batch: the clean test set, `images` uint8 [N,H,W,C] and `labels` int32
        [N].

    Raises:
      ValueError: if images are not [32,32,3], or a label is above 9.
    """
    shape, most = batch["images"].shape[1:], batch["labels"].max()
    if self.folder and (shape != (32, 32, 3) or most > 9):
      raise ValueError(
        f"the test set has images of {list(shape)} and labels up to {most}, "
        "but CIFAR-10.1 is for networks trained on CIFAR-10: leave the folder "
        "empty"
      )

  def results(
    self, model: Classifier, batch: Batch, key: jax.Array, cache: Cache
  ) -> Iterator[Row]:
    """Yields one row if `folder` is given (see `contracts.Evaluator`).

    `batch` and `key` are not used.
    """
    del batch, key
    if not self.folder:
      return
    images, labels = self._load()
    batch = {"images": images, "labels": labels}
    compute = functools.partial(clean.evaluate, model, batch, self.batch_size)
    found = cache(f"{self.version} {stamp(self.folder)}", compute)
    settings = {"test_set": f"CIFAR-10.1 {self.version}"}
    yield rows.row("cifar10_1", settings, found)

  def _load(self) -> Split:
    """Images uint8 [N,32,32,3] and labels int32 [N]."""
    folder = pathlib.Path(os.path.expanduser(self.folder))
    start, size = f"cifar10.1_{self.version}", SIZES[self.version]
    images = pipeline.read_array(folder / f"{start}_data.npy", HOME)
    labels = pipeline.read_array(folder / f"{start}_labels.npy", HOME)
    what = f"{folder}, CIFAR-10.1 {self.version}"
    if images.shape != (size, 32, 32, 3):
      raise ValueError(
        f"{what}: images are {list(images.shape)}, expected "
        f"{[size, 32, 32, 3]}: {HOME}"
      )
    labels = pipeline.as_labels(labels, size, f"{what}: labels")
    pipeline.check(images, labels, 10, what)
    return np.array(images), labels
