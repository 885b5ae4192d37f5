"""Standard training: empirical risk minimization (paper, eq. 1)."""

import dataclasses
from typing import ClassVar

import jax

from ram_jax import losses
from ram_jax.contracts import Metrics, Views
from ram_jax.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Method:
  """Cross-entropy on the clean images."""

  label: ClassVar[str] = "Standard"

  def views(
    self, keys: jax.Array, batch: dict[str, jax.Array], model: Classifier
  ) -> tuple[Views, jax.Array]:
    """The clean images alone."""
    del keys, model
    return (("clean", batch["images"]),), batch["labels"]

  def loss(
    self, logits: tuple[jax.Array, ...], targets: jax.Array
  ) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of the clean view."""
    cross_entropy = losses.cross_entropy(logits[0], targets)
    accuracy = losses.correct(logits[0], targets)
    return cross_entropy, {"cross_entropy": cross_entropy, "accuracy": accuracy}
