"""PreActResNet-18: pre-activation residual networks for small images."""

import dataclasses
import functools
from collections.abc import Mapping

from ram_jax import checks
from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm
from ram_jax.models.network import Network, PreActivationBlock

WIDTHS = (64, 128, 256, 512)
BLOCKS = 2  # in each stage


@dataclasses.dataclass(frozen=True)
class Variant:
  """One of the networks that are called PreActResNet-18.

  Attributes:
    final_norm: whether normalization and activation follow the last block;
      RobustBench's `bn_before_fc`.
    activated_shortcut: whether the input of a shortcut's convolution is the
      first activation instead of the block's input. The tensors of a checkpoint
      do not reveal this.
    model: its name in a config.
    origin: code and models that use it.
  """

  final_norm: bool
  activated_shortcut: bool
  model: str
  origin: str


VARIANTS: Mapping[str, Variant] = {
  # architectures/resnet.py: PreActResNet18()
  "robustbench": Variant(
    False,
    False,
    "preact_resnet18",
    "RobustBench's PreActResNet18, Wong2020Fast, Andriushchenko2020Under"
    "standing",
  ),
  # models/preact_resnet.py
  "kuangliu": Variant(
    False, True, "preact_resnet18_kuangliu", "kuangliu/pytorch-cifar"
  ),
  # preactresnet.py; in RobustBench PreActBlockV2, or out_shortcut=True
  "rice": Variant(
    True,
    True,
    "preact_resnet18_rice",
    "locuslab/robust_overfitting; RobustBench's Rice2020Overfitting, "
    "Kireev2021Effectiveness, Addepalli2021Towards",
  ),
  # CIFAR10/preact_resnet.py
  "fast": Variant(
    True, False, "preact_resnet18_fast", "locuslab/fast_adversarial"
  ),
}


def alike(final_norm: bool) -> list[Variant]:
  """Variants with the same tensors: with or without a final normalization."""
  return [v for v in VARIANTS.values() if v.final_norm == final_norm]


class Model(Network):
  """PreActResNet-18, in the variants for which checkpoints exist.

  The pre-activation blocks of arXiv 1603.05027, arranged like ResNet-18: a 3x3
  stem, and four stages of two blocks with 64 to 512 channels.

  Attributes:
    variant: a key of `VARIANTS`.
  """

  variant: str = "robustbench"

  title = "PreActResNet-18"

  def __post_init__(self) -> None:
    checks.check(vars(self), variant=checks.one_of(*VARIANTS))
    super().__post_init__()

  @property
  def assumptions(self) -> list[str]:
    """Sentences about properties that a weights file does not reveal."""
    chosen = VARIANTS[self.variant]
    return [
      f"the network is assumed to be {chosen.model}, as given; the tensors "
      f"fit {other.model}, too"
      for other in alike(chosen.final_norm)
      if other != chosen
    ]

  def setup(self) -> None:
    """Builds the layers."""
    variant = VARIANTS[self.variant]
    # Initial values are PyTorch's defaults, as in RobustBench's code.
    self.stem = layers.conv(
      WIDTHS[0], 3, dtype=self.dtype, kernel_init=layers.TORCH_DEFAULT
    )
    block = functools.partial(
      PreActivationBlock,
      activated_shortcut=variant.activated_shortcut,
      kernel_init=layers.TORCH_DEFAULT,
    )
    self.stages = self.blocks(block, WIDTHS, [BLOCKS] * len(WIDTHS))
    # In full precision: features and logits are not rounded to bfloat16.
    self.norm = BatchNorm(self.axis_name) if variant.final_norm else None
    self.head = layers.linear(self.num_classes, layers.torch_bias(WIDTHS[-1]))
