"""RobustAugMix: AugMix whose third view is adversarial (paper, eq. 4 and 5)."""

import dataclasses
from typing import ClassVar

import jax

from ram_jax import keys as keys_lib
from ram_jax import losses
from ram_jax.attacks.pgd import Attack
from ram_jax.augment.augmix import Augment
from ram_jax.contracts import Metrics, Views
from ram_jax.methods import consistency
from ram_jax.models.classifier import Classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(consistency.Consistency):
  """CE(clean) + weight * JSD(clean, AugMix, adversarial).

  Attributes:
    augment: draws the augmented view.
    attack: crafts the adversarial view from the clean images.
  """

  augment: Augment
  attack: Attack

  label: ClassVar[str] = "RobustAugMix"

  def views(
    self, keys: jax.Array, batch: dict[str, jax.Array], model: Classifier
  ) -> tuple[Views, jax.Array]:
    """Clean images, one AugMix view, and x + delta* of eq. 5.

    Args:
      keys: keys [B].
      batch: `images` [B,H,W,C] in [0,1], `labels` [B].
      model: the classifier as it is now.

    Returns:
      Views ((name, images), ...) in the order of the reference, in which
      BatchNorm's running statistics are updated, and targets [B].
    """
    images, labels = batch["images"], batch["labels"]
    augment_keys, attack_keys = keys_lib.split(keys)
    views = (
      ("clean", images),
      ("augmix", self.augment(augment_keys, images)),
      ("adversarial", self.attack(attack_keys, images, labels, model)),
    )
    return views, labels

  def loss(
    self, logits: tuple[jax.Array, ...], targets: jax.Array
  ) -> tuple[jax.Array, Metrics]:
    """The consistency loss; also reports the adversarial view's accuracy.

    Args:
      logits: one [B,K] per view, in the views' order.
      targets: labels [B].

    Returns:
      Loss [B] and metrics [B] by name.
    """
    loss, metrics = super().loss(logits, targets)
    accuracy = losses.correct(logits[2], targets)
    return loss, metrics | {"adversarial_accuracy": accuracy}
