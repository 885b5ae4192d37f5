"""Pre-activation residual networks for small images, PreActResNet-18."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm

WIDTHS = (64, 128, 256, 512)
BLOCKS = 2  # in each stage


@dataclasses.dataclass(frozen=True)
class Variant:
  """One of the networks that are called PreActResNet-18.

  Attributes:
    final_norm: normalization and ReLU after the last block; RobustBench's
      `bn_before_fc`.
    activated_shortcut: shortcuts start from the first activation of their
      block, not from its input. The tensors do not show this.
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


class Block(nn.Module):
  """Two 3x3 convolutions, each after normalization and activation.

  Attributes:
    features: output channels.
    stride: step of the first convolution.
    activated_shortcut: whether the shortcut's convolution starts from the
      first activation, not from the block's input.
    axis_name: device axis of batch normalization.
    dtype: type of the arithmetic.
    activation: a key of `layers.ACTIVATIONS`.
  """

  features: int
  stride: int = 1
  activated_shortcut: bool = False
  axis_name: str | None = None
  dtype: Any = None
  activation: str = "relu"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
    conv = functools.partial(
      layers.conv,
      self.features,
      dtype=self.dtype,
      kernel_init=layers.TORCH_DEFAULT,
    )
    norm = functools.partial(BatchNorm, self.axis_name, self.dtype)
    act, _ = layers.activation(self.activation)
    y = act(norm(name="norm_0")(x, train))
    if x.shape[-1] != self.features:
      start = y if self.activated_shortcut else x
      x = conv(1, self.stride, name="shortcut")(start)
    y = conv(3, self.stride, name="conv_0")(y)
    y = act(norm(name="norm_1")(y, train))
    return x + conv(3, name="conv_1")(y)


class Model(nn.Module):
  """PreActResNet-18, in the variants for which checkpoints exist.

  The network of arXiv 1603.05027 for CIFAR: a 3x3 stem, four stages of two
  blocks with 64 to 512 channels.

  Attributes:
    num_classes: outputs.
    mean: mean of the data per channel, in [0, 1].
    std: standard deviation of the data per channel, in [0, 1].
    variant: a key of `VARIANTS`.
    axis_name: device axis over which batch normalization shares statistics.
    dtype: type of the convolutions; parameters and logits keep the default.
    activation: a key of `layers.ACTIVATIONS`.
  """

  num_classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  variant: str = "robustbench"
  axis_name: str | None = None
  dtype: Any = None
  activation: str = "relu"

  def __post_init__(self) -> None:
    if self.variant not in VARIANTS:
      raise ValueError(
        f"variant {self.variant!r} is unknown: choose one of "
        f"{', '.join(VARIANTS)}"
      )
    layers.activation(self.activation)
    super().__post_init__()

  @property
  def label(self) -> str:
    """The network's name in tables."""
    return "PreActResNet-18" + layers.activation(self.activation)[1]

  @property
  def assumptions(self) -> list[str]:
    """Sentences on properties that a weights file does not show."""
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
    self.act, _ = layers.activation(self.activation)
    # Initial values are PyTorch's defaults, as in RobustBench's code.
    self.stem = layers.conv(
      WIDTHS[0], 3, dtype=self.dtype, kernel_init=layers.TORCH_DEFAULT
    )
    self.stages = [
      [
        Block(
          width,
          stride=2 if stage > 0 and index == 0 else 1,
          activated_shortcut=variant.activated_shortcut,
          axis_name=self.axis_name,
          dtype=self.dtype,
          activation=self.activation,
        )
        for index in range(BLOCKS)
      ]
      for stage, width in enumerate(WIDTHS)
    ]
    # In full precision: features and logits are not rounded to bfloat16.
    self.norm = BatchNorm(self.axis_name) if variant.final_norm else None
    bound = 1 / math.sqrt(WIDTHS[-1])
    self.head = layers.linear(
      self.num_classes,
      lambda key, shape, dtype: jax.random.uniform(
        key, shape, dtype, -bound, bound
      ),
    )

  def features(self, images: jax.Array, train: bool) -> jax.Array:
    """Features before the head.

    Args:
      images: pixels [B, H, W, C] in [0, 1], H and W at least 8.
      train: whether batch normalization uses the batch's statistics.

    Returns:
      Features [B, 512].
    """
    x = self.stem(layers.normalize(images, self.mean, self.std))
    for stage in self.stages:
      for block in stage:
        x = block(x, train)
    if self.norm is not None:
      x = self.act(self.norm(x, train))
    return layers.pool(x)

  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Logits [B, num_classes]; arguments as for `features`."""
    return self.head(self.features(images, train))
