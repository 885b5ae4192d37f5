"""TRADES (Zhang et al. 2019, arXiv 1901.08573)."""

import dataclasses
from typing import ClassVar

import jax

from ram_jax import checks, losses
from ram_jax.attacks.pgd import Attack
from ram_jax.contracts import Arrays, Logits, Loss, Model, Viewed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """CE(clean) + weight * KL(clean || adversarial).

  Attributes:
    attack: increases the divergence from the clean predictions. With
      probabilities as targets, the gradients of divergence and cross-entropy
      are equal, so its objective is `cross_entropy`.
    weight: beta in the authors' code, where it is 6; 1 / lambda in the paper.
  """

  attack: Attack
  weight: float = 6.0

  label: ClassVar[str] = "TRADES"

  def __post_init__(self) -> None:
    checks.check(vars(self), weight=checks.SIZE)

  def views(self, keys: jax.Array, batch: Arrays, model: Model) -> Viewed:
    """Clean images, and adversarial ones that maximize the divergence."""
    images = batch["images"]
    predictions = jax.lax.stop_gradient(jax.nn.softmax(model(images)))
    adversarial = self.attack(keys, images, predictions, model)
    return (("clean", images), ("adversarial", adversarial)), batch["labels"]

  def loss(self, logits: Logits, targets: jax.Array) -> Loss:
    """Cross-entropy of the clean view plus the weighted divergence."""
    clean, adversarial = logits
    metrics = {
      "cross_entropy": losses.cross_entropy(clean, targets),
      "kullback_leibler": losses.kullback_leibler(clean, adversarial),
      "accuracy": losses.correct(clean, targets),
      "adversarial_accuracy": losses.correct(adversarial, targets),
    }
    divergence = metrics["kullback_leibler"]
    return metrics["cross_entropy"] + self.weight * divergence, metrics
