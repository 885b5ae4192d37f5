"""Accuracy on corrupted copies of the test set (CIFAR-10-C and the like)."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from ram_jax.data import generated
from ram_jax.data.cifar_c import CorruptedSource
from ram_jax.data.generated import Generator
from ram_jax.evaluation import cache as parts
from ram_jax.evaluation import clean
from ram_jax.evaluation.cache import Part, fresh
from ram_jax.models.classifier import Classifier
from ram_jax.runs import metrics


@dataclasses.dataclass(frozen=True)
class Evaluator:
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
    generated.check_choice(self.names, self.severities)
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

  def run(
    self,
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    key: jax.Array,
    part: Part = fresh,
  ) -> dict[str, Any] | None:
    """Finds the correct predictions per corruption and severity.

    Args:
      model: the classifier, on the devices.
      images: uint8 [N,H,W,C], the clean test set.
      labels: int32 [N].
      key: unused: what is generated depends on `seed`.
      part: keeps what was measured for each corruption and severity
        (`parts.Parts.of`).

    Returns:
      `label`, `generated` (by this program; then also `seed`),
      `by_corruption`, a list of `corruption`, `severity`, `correct` (bool [N]),
      `total`, `calibration` and perhaps `not_finite` (as `clean.measure`),
      `missing` (reason by name), where a corruption is, and `notes`, where
      there are more images than in the test set; for the figures `pictures`:
      the first image at every severity, uint8 [5,H,W,C] by corruption, where
      all five are measured. None where nothing is asked for.
    """
    del key
    if self.folder or self.tfds_dir:
      source = self._files()
    elif self.generate:
      source = self.generator(images, labels)
    else:
      return None
    results = {"label": source.label, "generated": source.seed is not None}
    if source.seed is not None:
      results["seed"] = source.seed
    rows, pictures, sizes = self._rows(model, source, len(labels), part)
    results["by_corruption"] = rows
    if (size := max(sizes, default=0)) > len(labels):
      results["notes"] = [
        f"{source.label}: the first {len(labels):,} of {size:,} images, those"
        " of the test set"
      ]
    if self.severities == generated.SEVERITIES:
      results["pictures"] = pictures
    if missing := source.missing():
      results["missing"] = missing
    return results

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

  def _rows(
    self,
    model: Classifier,
    source: CorruptedSource | Generator,
    size: int,
    part: Part,
  ) -> tuple[list[dict[str, Any]], dict[str, np.ndarray], set[int]]:
    def measure(corruption: str, severity: int) -> dict[str, Any]:
      corrupted, truth = source.load(corruption, severity)
      batch = corrupted[:size], truth[:size], self.batch_size
      row = {"corruption": corruption, "severity": severity}
      row |= clean.measure(model, *batch)
      first = np.asarray(corrupted[0])
      return {"row": row, "first": first, "size": len(corrupted)}

    rows, pictures, sizes, names = [], {}, set(), source.names()
    files = parts.stamp(self.folder, self.tfds_dir, self.frost_folder)
    for number, corruption in enumerate(names, start=1):
      metrics.announce(f"  {corruption} ({number} of {len(names)})")
      found = [
        part(
          f"{corruption} {severity} {files}",
          functools.partial(measure, corruption, severity),
        )
        for severity in self.severities
      ]
      rows += [one["row"] for one in found]
      sizes |= {one["size"] for one in found}
      pictures[corruption] = np.stack([one["first"] for one in found])
    return rows, pictures, sizes
