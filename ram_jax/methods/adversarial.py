"""Adversarial training with PGD (paper, eq. 3; Madry et al. 2018)."""

import dataclasses
from typing import ClassVar

import jax

from ram_jax import losses
from ram_jax.attacks.pgd import Attack
from ram_jax.contracts import Arrays, Logits, Loss, Model, Viewed


@dataclasses.dataclass(frozen=True)
class Method:
  """Cross-entropy on adversarial images alone.

  Attributes:
    attack: crafts the images that the model is trained on.
  """

  attack: Attack

  label: ClassVar[str] = "Adversarial training"

  def views(self, keys: jax.Array, batch: Arrays, model: Model) -> Viewed:
    """Adversarial images for the current model."""
    images, labels = batch["images"], batch["labels"]
    adversarial = self.attack(keys, images, labels, model)
    return (("adversarial", adversarial),), labels

  def loss(self, logits: Logits, targets: jax.Array) -> Loss:
    """Cross-entropy of the adversarial view."""
    cross_entropy = losses.cross_entropy(logits[0], targets)
    accuracy = losses.correct(logits[0], targets)
    return cross_entropy, {
      "cross_entropy": cross_entropy,
      "adversarial_accuracy": accuracy,
    }
