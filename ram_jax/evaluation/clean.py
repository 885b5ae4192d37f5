"""Accuracy and calibration on unchanged images."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ram_jax import contracts, losses, parallel
from ram_jax.contracts import Batch, Cache, Row
from ram_jax.evaluation import calibration, rows
from ram_jax.image.color import dequantize
from ram_jax.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Evaluator(contracts.Evaluator):
  """Clean accuracy.

  Attributes:
    batch_size: examples per batch, over all devices; does not change results.
  """

  batch_size: int

  def results(
    self, model: Classifier, batch: Batch, key: jax.Array, cache: Cache
  ) -> Iterator[Row]:
    """Yields one row (see `contracts.Evaluator`); `key` is not used."""
    del key
    compute = functools.partial(evaluate, model, batch, self.batch_size)
    yield rows.row("clean", {}, cache("all", compute))


def evaluate(
  model: Classifier, batch: Batch, batch_size: int
) -> dict[str, Any]:
  """Classifies labeled images.

  Args:
    model: the classifier, on the devices.
    batch: `images` uint8 [N,H,W,C] and `labels` int32 [N].
    batch_size: examples per batch, over all devices.

  Returns:
    `correct` and `finite`, bool [N], and the calibration as `values`.
  """
  found = per_example(model, batch, batch_size)
  kept = {name: found[name] for name in ("correct", "finite")}
  return kept | {"values": calibration.summary(found)}


@parallel.per_example
def per_example(
  model: Classifier, positions: jax.Array, batch: dict[str, jax.Array]
) -> dict[str, jax.Array]:
  """Compares predictions with labels.

  Args:
    model: the classifier.
    positions: unused.
    batch: `images` uint8 [b,H,W,C] and `labels` int32 [b].

  Returns:
    Arrays [b]: `correct` and `finite` (whether all logits are), bool;
    `confidence` (the largest probability), `nll` (negative log-likelihood of
    the label, in nats) and `brier`, sum_k (p_k - y_k)^2 over the classes, in
    [0,2] (Brier 1950, equation 2).
  """
  del positions
  logits, labels = model(dequantize(batch["images"])), batch["labels"]
  probabilities = jax.nn.softmax(logits)
  truth = jax.nn.one_hot(labels, logits.shape[-1])
  return judged(logits, labels) | {
    "confidence": jnp.max(probabilities, axis=-1),
    "nll": losses.cross_entropy(logits, labels),
    "brier": jnp.sum((probabilities - truth) ** 2, axis=-1),
  }


def judged(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
  """Whether predictions are `correct` and logits [b,K] `finite`, bools [b]."""
  return {
    "correct": losses.correct(logits, labels),
    "finite": losses.finite(logits),
  }
