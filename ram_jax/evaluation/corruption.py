"""Accuracy on corrupted copies of the test set (CIFAR-10-C and the like)."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ram_jax import contracts, corruptions
from ram_jax.contracts import Cache, Note, Picture, Row
from ram_jax.data.cifar_c import CorruptedSource
from ram_jax.data.generated import Generator
from ram_jax.evaluation import clean, rows
from ram_jax.evaluation.cache import stamp
from ram_jax.models.classifier import Classifier
from ram_jax.runs import metrics


@dataclasses.dataclass(frozen=True)
class Evaluator(contracts.Evaluator):
  """Accuracy for every corruption and severity.

  Attributes:
    classes: 10 for CIFAR-10-C, 100 for CIFAR-100-C.
    folder: `.npy` files, the published ones or those of --mode=corrupt.
    tfds_dir: where tensorflow-datasets keeps `cifar10_corrupted`.
    generate: where neither is given, the test images are corrupted here, and
      nothing is written.
    seed: of what is generated; not the run's, so that all runs are measured on
      the same images.
    frost_folder: folder of frost's photographs; empty: those of the installed
      package `imagecorruptions`.
    names: corruptions to measure; empty: all that there are.
    severities: some of 1 to 5.
    batch_size: examples at once over all devices; it changes no result.
  """

  classes: int
  folder: str
  tfds_dir: str
  generate: bool
  seed: int
  frost_folder: str
  names: tuple[str, ...]
  severities: tuple[int, ...]
  batch_size: int

  def __post_init__(self) -> None:
    if self.classes not in (10, 100):
      raise ValueError(
        f"classes {self.classes} is unknown: CIFAR-C has 10 or 100"
      )
    corruptions.check_choice(self.names, self.severities)
    if not self.severities:
      raise ValueError("severities is empty: give some of 1..5")
    if not 0 <= self.seed < 2**32:
      raise ValueError(f"seed is {self.seed}: give one from 0 to 2^32 - 1")
    if self.folder or self.tfds_dir:
      self._files().names()  # complains now where there is nothing

  def check(self, images: np.ndarray, labels: np.ndarray) -> None:
    """Rejects corrupted images that are not this test set's, or are damaged.

    Args:
      images: uint8 [N,H,W,C], the clean test set.
      labels: int32 [N].

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged or of another test set, or what is asked
        for cannot be generated.
    """
    if self.folder or self.tfds_dir:
      self._files().check(images, labels)
    elif self.generate:
      self.generator(images, labels).names()

  def results(
    self,
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    key: jax.Array,
    cache: Cache,
  ) -> Iterator[Row | Note | Picture]:
    """Yields a row per corruption and severity.

    Args:
      model: the classifier, on the devices.
      images: uint8 [N,H,W,C], the clean test set.
      labels: int32 [N].
      key: unused: what is generated depends on `seed`.
      cache: stores what was found for each corruption and severity.

    Yields:
      As `contracts.Evaluator`; nothing where nothing is asked for. Pictures of
      the first image at every severity [5,H,W,C] by corruption, where all five
      are evaluated.
    """
    del key
    if self.folder or self.tfds_dir:
      source = self._files()
    elif self.generate:
      source = self.generator(images, labels)
    else:
      return
    names, files = source.names(), stamp(*self._folders())
    size, most = len(labels), 0
    for number, name in enumerate(names, start=1):
      metrics.announce(f"  {name} ({number} of {len(names)})")
      pictures = []
      for severity in self.severities:
        found = cache(
          f"{name} {severity} {files}",
          functools.partial(self._one, model, source, name, severity, size),
        )
        settings = {"corruption": name, "severity": severity}
        settings |= {"images": source.label}
        yield rows.row("corruption", settings, found)
        pictures.append(found["first"])
        most = max(most, found["size"])
      if self.severities == corruptions.SEVERITIES:
        yield Picture(f"corruption/{name}", np.stack(pictures))
    if most > size:
      yield Note(
        f"{source.label}: the first {size:,} of {most:,} images, those of the "
        "test set"
      )
    if source.seed is not None:
      yield Note("corrupted images generated, not those that were published")
    for name, reason in source.missing().items():
      yield Note(f"{name} was not evaluated: {reason}", "warning")

  def _folders(self) -> tuple[str, str, str]:
    return self.folder, self.tfds_dir, self.frost_folder

  def _one(
    self,
    model: Classifier,
    source: CorruptedSource | Generator,
    name: str,
    severity: int,
    size: int,
  ) -> dict[str, Any]:
    """Evaluates the first images of one corruption at one severity."""
    images, labels = source.load(name, severity)
    batch = images[:size], labels[:size], self.batch_size
    first = {"first": np.asarray(images[0]), "size": len(images)}
    return clean.evaluate(model, *batch) | first

  def generator(self, images: np.ndarray, labels: np.ndarray) -> Generator:
    """What makes the corruptions of a test set, with this evaluator's fields.

    Args:
      images: uint8 [N,H,W,C], the clean test set.
      labels: int32 [N].

    Returns:
      The generator.
    """
    chosen = self.seed, self.frost_folder, self.batch_size, self.names
    return Generator(images, labels, *chosen)

  def _files(self) -> CorruptedSource:
    place = self.folder, self.tfds_dir
    return CorruptedSource(self.classes, *place, self.names, self.severities)
