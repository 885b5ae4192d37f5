"""Adversarial training with PGD (paper, eq. 3; Madry et al. 2018)."""

import dataclasses
from typing import ClassVar

import jax

from ram_jax import losses
from ram_jax.attacks.pgd import Attack
from ram_jax.contracts import Metrics, Views
from ram_jax.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Method:
  """Cross-entropy on adversarial images alone.

  Attributes:
    attack: crafts the images that the model is trained on.
  """

  attack: Attack

  label: ClassVar[str] = "Adversarial training"

  def views(
    self, keys: jax.Array, batch: dict[str, jax.Array], model: Classifier
  ) -> tuple[Views, jax.Array]:
    """Adversarial images for the current model."""
    images, labels = batch["images"], batch["labels"]
    adversarial = self.attack(keys, images, labels, model)
    return (("adversarial", adversarial),), labels

  def loss(
    self, logits: tuple[jax.Array, ...], targets: jax.Array
  ) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of the adversarial view."""
    cross_entropy = losses.cross_entropy(logits[0], targets)
    accuracy = losses.correct(logits[0], targets)
    return cross_entropy, {
      "cross_entropy": cross_entropy,
      "adversarial_accuracy": accuracy,
    }
