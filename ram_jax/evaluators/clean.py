"""Accuracy on unchanged images."""

import dataclasses
from typing import Any

import jax
import numpy as np

from ram_jax import losses, parallel
from ram_jax.image.color import dequantise
from ram_jax.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Clean accuracy.

  Attributes:
    batch_size: examples at once over all devices; it changes no result.
  """

  batch_size: int

  def run(
    self,
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    key: jax.Array,
  ) -> dict[str, Any]:
    """Counts correct predictions.

    Args:
      model: the classifier, on the devices.
      images: uint8 [N,H,W,C].
      labels: int32 [N].
      key: unused; nothing here is random.

    Returns:
      `correct` and `total`.
    """
    del key
    batch = {"images": images, "labels": labels}
    correct = count_correct(model, batch, self.batch_size)
    return {"correct": correct, "total": len(labels)}


def count_correct(
  model: Classifier, batch: dict[str, np.ndarray], batch_size: int
) -> int:
  """Number of examples whose largest logit is the label's.

  Args:
    model: the classifier, on the devices.
    batch: `images` uint8 [N,H,W,C] and `labels` int32 [N].
    batch_size: examples at once over all devices.

  Returns:
    The count.
  """
  return int(_correct(model, batch, batch_size).sum())


@parallel.per_example
def _correct(
  model: Classifier, positions: jax.Array, batch: dict[str, jax.Array]
) -> jax.Array:
  del positions
  logits = model(dequantise(batch["images"]))
  return losses.correct(logits, batch["labels"])
