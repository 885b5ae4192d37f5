"""The loss that AugMix and RobustAugMix share: CE plus weighted JSD."""

import dataclasses
import math

import jax

from ram_jax import losses
from ram_jax.contracts import Metrics

DIVERGENCES = {
  "exact": losses.jensen_shannon,
  "clamped": losses.clamped_jensen_shannon,
}


def check_weight(name: str, value: float, papers: float) -> None:
  """Rejects weights of a loss that are negative or not finite.

  Args:
    name: field of the method.
    value: its value.
    papers: the value in the method's paper, for the message.

  Raises:
    ValueError: naming the field and what is allowed.
  """
  if not 0 <= value < math.inf:
    raise ValueError(
      f"{name} is {value}: it must be finite and at least 0 "
      f"(config.method.{name}; the paper's is {papers})"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consistency:
  """CE(clean) + weight * JSD(all views) (paper, eq. 2 and 4).

  Attributes:
    weight: lambda of the paper, 12.
    jensen_shannon: `exact`, or `clamped` as in both PyTorch implementations.
  """

  weight: float = 12.0
  jensen_shannon: str = "exact"

  def __post_init__(self) -> None:
    if self.jensen_shannon not in DIVERGENCES:
      raise ValueError(
        f"unknown jensen_shannon {self.jensen_shannon!r}: choose one of "
        f"{', '.join(DIVERGENCES)} (config.method.jensen_shannon)"
      )
    check_weight("weight", self.weight, 12)

  def loss(
    self, logits: tuple[jax.Array, ...], targets: jax.Array
  ) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of the first view plus the divergence of all."""
    cross_entropy = losses.cross_entropy(logits[0], targets)
    divergence = DIVERGENCES[self.jensen_shannon](*logits)
    metrics = {
      "cross_entropy": cross_entropy,
      "jensen_shannon": divergence,
      "accuracy": losses.correct(logits[0], targets),
    }
    return cross_entropy + self.weight * divergence, metrics
