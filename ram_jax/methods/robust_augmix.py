"""RobustAugMix: AugMix whose third view is adversarial (paper, eqs. 4 and 5).

Beyond the paper, the attack can start from the augmented view, and the
cross-entropy of the adversarial view can be added to the loss.
"""

import dataclasses
from typing import ClassVar

import jax

from ram_jax import checks, losses
from ram_jax import keys as keys_lib
from ram_jax.attacks.pgd import Attack
from ram_jax.augment.augmix import Augment
from ram_jax.contracts import Arrays, Logits, Loss, Model, Viewed
from ram_jax.methods import consistency


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(consistency.Consistency):
  """CE(clean) + weight * JSD(clean, AugMix, adversarial).

  Attributes:
    augment: draws the augmented view.
    attack: crafts the adversarial view.
    attacked: the images that the attack starts from: `clean` (as in the paper)
      or `augmix` (the augmented view).
    adversarial_weight: weight of CE(adversarial), a further term of the loss;
      0 in the paper.
  """

  augment: Augment
  attack: Attack
  attacked: str = "clean"
  adversarial_weight: float = 0.0

  label: ClassVar[str] = "RobustAugMix"

  def __post_init__(self) -> None:
    super().__post_init__()
    checks.check(
      vars(self),
      attacked=checks.one_of("clean", "augmix"),
      adversarial_weight=checks.SIZE,
    )

  def views(self, keys: jax.Array, batch: Arrays, model: Model) -> Viewed:
    """Clean images, an augmented view and an adversarial view, in this order.

    The author's code uses the same order.
    """
    images, labels = batch["images"], batch["labels"]
    augment_keys, attack_keys = keys_lib.split(keys)
    views = {"clean": images, "augmix": self.augment(augment_keys, images)}
    start = views[self.attacked]
    views["adversarial"] = self.attack(attack_keys, start, labels, model)
    return tuple(views.items()), labels

  def loss(self, logits: Logits, targets: jax.Array) -> Loss:
    """Adds the weighted adversarial cross-entropy to the consistency loss."""
    loss, metrics = super().loss(logits, targets)
    metrics["adversarial_accuracy"] = losses.correct(logits[2], targets)
    extra = losses.cross_entropy(logits[2], targets)
    return loss + self.adversarial_weight * extra, metrics
