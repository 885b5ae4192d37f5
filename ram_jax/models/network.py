"""The structure that all networks share, and the pre-activation block."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from ram_jax import checks
from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm


class Network(nn.Module):
  """A stem, stages of residual blocks, the mean over the pixels and a head.

  In `setup`, subclasses set `stem`, `stages`, `head` and at most one of
  `stem_norm` and `norm`.

  Attributes:
    num_classes: number of outputs.
    mean: mean for normalizing pixels in [0, 1], per channel.
    std: standard deviation for normalizing pixels in [0, 1], per channel.
    axis_name: device axis over which batch normalization shares statistics.
    dtype: type of the convolutions; parameters and logits keep the default.
    activation: a key of `layers.ACTIVATIONS`.
  """

  num_classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  axis_name: str | None = None
  dtype: Any = None
  activation: str = "relu"

  title = ""  # the network's name, without its activation
  stem_norm = norm = None  # normalizations after the stem and the last block

  def __post_init__(self) -> None:
    activation = checks.one_of(*layers.ACTIVATIONS)
    checks.check(vars(self), activation=activation)
    super().__post_init__()

  @property
  def label(self) -> str:
    """The network's name in tables."""
    return self.title + layers.ACTIVATIONS[self.activation][1]

  def blocks(
    self, block: Callable, widths: Sequence[int], counts: Sequence[int]
  ) -> list[list[nn.Module]]:
    """Builds stages; all but the first begin with a stride of 2.

    Args:
      block: (width, stride, axis_name, dtype, activation) -> module.
      widths: the first argument of `block`, for each stage.
      counts: number of blocks in each stage.

    Returns:
      The blocks of each stage.
    """
    shared = {n: getattr(self, n) for n in ("axis_name", "dtype", "activation")}
    return [
      [
        block(width, stride=2 if stage > 0 and index == 0 else 1, **shared)
        for index in range(count)
      ]
      for stage, (width, count) in enumerate(zip(widths, counts, strict=True))
    ]

  def features(self, images: jax.Array, train: bool) -> jax.Array:
    """Features before the head.

    Args:
      images: pixels [B, H, W, C] in [0, 1], H and W at least 8.
      train: whether batch normalization uses the batch's statistics.

    Returns:
      Features [B, D].
    """
    act, _ = layers.ACTIVATIONS[self.activation]
    x = self.stem(layers.normalize(images, self.mean, self.std))
    if self.stem_norm is not None:
      x = act(self.stem_norm(x, train))
    for stage in self.stages:
      for block in stage:
        x = block(x, train)
    if self.norm is not None:
      x = act(self.norm(x, train))
    return layers.pool(x)

  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Logits [B, num_classes]; arguments as for `features`."""
    return self.head(self.features(images, train))


class PreActivationBlock(nn.Module):
  """Two 3x3 convolutions, each after normalization and activation.

  Attributes:
    features: output channels.
    stride: step of the first convolution.
    axis_name: device axis of batch normalization.
    dtype: type of the arithmetic.
    activation: a key of `layers.ACTIVATIONS`.
    activated_shortcut: whether the input of the shortcut's convolution is the
      first activation instead of the block's input.
    kernel_init: initializer of the convolutions.
  """

  features: int
  stride: int = 1
  axis_name: str | None = None
  dtype: Any = None
  activation: str = "relu"
  activated_shortcut: bool = True
  kernel_init: Callable = layers.HE_FAN_OUT

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
    conv = functools.partial(
      layers.conv,
      self.features,
      dtype=self.dtype,
      kernel_init=self.kernel_init,
    )
    norm = functools.partial(BatchNorm, self.axis_name, self.dtype)
    act, _ = layers.ACTIVATIONS[self.activation]
    y = act(norm(name="norm_0")(x, train))
    if x.shape[-1] != self.features:
      start = y if self.activated_shortcut else x
      x = conv(1, self.stride, name="shortcut")(start)
    y = conv(3, self.stride, name="conv_0")(y)
    y = act(norm(name="norm_1")(y, train))
    return x + conv(3, name="conv_1")(y)
