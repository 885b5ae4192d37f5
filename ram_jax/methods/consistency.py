"""The loss of AugMix, AugMax and RobustAugMix: CE plus weighted JSD."""

import dataclasses

import jax

from ram_jax import checks, losses
from ram_jax.contracts import Logits, Loss

DIVERGENCES = {
  "exact": losses.jensen_shannon,
  "clamped": losses.clamped_jensen_shannon,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consistency:
  """CE(clean) + weight * JSD(all views) (paper, eqs. 2 and 4).

  Attributes:
    weight: lambda in the paper, where it is 12.
    jensen_shannon: `exact`, or `clamped` as in AugMix's and the author's code.
  """

  weight: float = 12.0
  jensen_shannon: str = "exact"

  def __post_init__(self) -> None:
    checks.check(
      vars(self),
      weight=checks.SIZE,
      jensen_shannon=checks.one_of(*DIVERGENCES),
    )

  def loss(self, logits: Logits, targets: jax.Array) -> Loss:
    """Cross-entropy of the first view plus the weighted divergence."""
    cross_entropy = losses.cross_entropy(logits[0], targets)
    divergence = DIVERGENCES[self.jensen_shannon](*logits)
    metrics = {
      "cross_entropy": cross_entropy,
      "jensen_shannon": divergence,
      "accuracy": losses.correct(logits[0], targets),
    }
    return cross_entropy + self.weight * divergence, metrics
