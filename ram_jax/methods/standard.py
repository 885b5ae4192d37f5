"""Standard training: empirical risk minimization (paper, eq. 1)."""

import dataclasses
from typing import ClassVar

import jax

from ram_jax import losses
from ram_jax.contracts import Arrays, Logits, Loss, Model, Viewed


@dataclasses.dataclass(frozen=True)
class Method:
  """Cross-entropy on the clean images."""

  label: ClassVar[str] = "Standard"

  def views(self, keys: jax.Array, batch: Arrays, model: Model) -> Viewed:
    """The clean images alone."""
    del keys, model
    return (("clean", batch["images"]),), batch["labels"]

  def loss(self, logits: Logits, targets: jax.Array) -> Loss:
    """Cross-entropy of the clean view."""
    cross_entropy = losses.cross_entropy(logits[0], targets)
    accuracy = losses.correct(logits[0], targets)
    return cross_entropy, {"cross_entropy": cross_entropy, "accuracy": accuracy}
