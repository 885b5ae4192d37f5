"""Accuracy on corrupted copies of the test set (CIFAR-10-C and the like)."""

import dataclasses
from typing import Any

import jax
import numpy as np

from ram_jax.data.cifar_c import SEVERITIES, CorruptedSource
from ram_jax.evaluators.clean import count_correct
from ram_jax.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Accuracy for every corruption and severity that the user has.

  Attributes:
    classes: 10 for CIFAR-10-C, 100 for CIFAR-100-C.
    folder: the original `.npy` files; empty: prepared tfds data.
    tfds_dir: where tensorflow-datasets keeps `cifar10_corrupted`.
    batch_size: examples at once over all devices; it changes no result.
  """

  classes: int
  folder: str
  tfds_dir: str
  batch_size: int

  def __post_init__(self) -> None:
    if self._configured():
      self._source().check()  # complains now about what is missing

  def _configured(self) -> bool:
    return bool(self.folder or self.tfds_dir)

  def _source(self) -> CorruptedSource:
    return CorruptedSource(self.classes, self.folder, self.tfds_dir)

  def run(
    self,
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    key: jax.Array,
  ) -> dict[str, Any] | None:
    """Counts correct predictions per corruption and severity.

    Args:
      model: the classifier, on the devices.
      images: uint8 [N,H,W,C], the clean test set; only its size matters here:
        as many corrupted images are used.
      labels: int32 [N], the clean test set's.
      key: unused; nothing here is random.

    Returns:
      `label` and `by_corruption`, a list of `corruption`, `severity`,
      `correct`, `total`; None where the user has no corrupted set.
    """
    del images, key
    if not self._configured():
      return None
    source = self._source()
    rows = []
    for corruption in source.names():
      for severity in SEVERITIES:
        corrupted, truth = source.load(corruption, severity)
        batch = {
          "images": np.asarray(corrupted[: len(labels)]),
          "labels": truth[: len(labels)],
        }
        correct = count_correct(model, batch, self.batch_size)
        rows.append(
          {
            "corruption": corruption,
            "severity": severity,
            "correct": correct,
            "total": len(batch["labels"]),
          }
        )
    return {"label": source.label, "by_corruption": rows}
