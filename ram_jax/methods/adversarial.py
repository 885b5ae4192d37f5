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
    """The adversarial images of the current model.

    Args:
      keys: keys [B].
      batch: `images` [B,H,W,C] in [0,1], `labels` [B].
      model: the classifier as it is now.

    Returns:
      Views ((name, images), ...) and targets [B].
    """
    images, labels = batch["images"], batch["labels"]
    adversarial = self.attack(keys, images, labels, model)
    return (("adversarial", adversarial),), labels

  def loss(
    self, logits: tuple[jax.Array, ...], targets: jax.Array
  ) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of the adversarial view.

    Args:
      logits: one [B,K] per view, in the views' order.
      targets: labels [B].

    Returns:
      Loss [B] and metrics [B] by name.
    """
    cross_entropy = losses.cross_entropy(logits[0], targets)
    accuracy = losses.correct(logits[0], targets)
    return cross_entropy, {
      "cross_entropy": cross_entropy,
      "adversarial_accuracy": accuracy,
    }
