"""WRN-depth-widen: pre-activation wide residual networks for small images."""

import flax.linen as nn

from ram_jax import checks
from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm
from ram_jax.models.network import Network, PreActivationBlock


class Model(Network):
  """WRN-depth-widen as in AugMix's code (google-research/augmix).

  The network of arXiv 1605.07146: three stages of (depth - 4) / 6 blocks with
  16, 32 and 64 times `widen_factor` channels; no dropout.

  Attributes:
    depth: number of layers: 10, 16, 22, 28, 34, 40 and so on.
    widen_factor: multiplier of the numbers of channels.
  """

  depth: int = 40
  widen_factor: int = 2

  def __post_init__(self) -> None:
    checks.check(
      vars(self),
      depth=("6 n + 4, such as 10, 28 or 40", lambda v: v >= 10 and v % 6 == 4),
      widen_factor=checks.integer(1),
    )
    super().__post_init__()

  @property
  def title(self) -> str:
    """The network's name, without its activation."""
    return f"WRN-{self.depth}-{self.widen_factor}"

  def setup(self) -> None:
    """Builds the layers."""
    self.stem = layers.conv(16, 3, dtype=self.dtype)
    widths = [width * self.widen_factor for width in (16, 32, 64)]
    counts = [(self.depth - 4) // 6] * 3
    self.stages = self.blocks(PreActivationBlock, widths, counts)
    # In full precision: features and logits are not rounded to bfloat16.
    self.norm = BatchNorm(self.axis_name)
    self.head = layers.linear(self.num_classes, nn.initializers.zeros)
