"""Pre-activation wide residual networks for small images, WRN-depth-widen."""

import functools
from typing import Any

import flax.linen as nn
import jax

from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm


class Block(nn.Module):
  """Two 3x3 convolutions, each after normalization and activation.

  Attributes:
    features: output channels.
    stride: step of the first convolution.
    axis_name: device axis of batch normalization.
    dtype: type of the arithmetic.
    activation: a key of `layers.ACTIVATIONS`.
  """

  features: int
  stride: int = 1
  axis_name: str | None = None
  dtype: Any = None
  activation: str = "relu"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
    conv = functools.partial(layers.conv, self.features, dtype=self.dtype)
    norm = functools.partial(BatchNorm, self.axis_name, self.dtype)
    act, _ = layers.activation(self.activation)
    y = act(norm(name="norm_0")(x, train))
    # If the shape changes, the shortcut also starts from the activation.
    if x.shape[-1] != self.features:
      x = conv(1, self.stride, name="shortcut")(y)
    y = conv(3, self.stride, name="conv_0")(y)
    y = act(norm(name="norm_1")(y, train))
    return x + conv(3, name="conv_1")(y)


class Model(nn.Module):
  """WRN-depth-widen as in AugMix's code (google-research/augmix, xternalz).

  The network of arXiv 1605.07146: three stages of (depth - 4) / 6 blocks with
  16, 32 and 64 times `widen_factor` channels; no dropout.

  Attributes:
    num_classes: outputs.
    mean: mean of the data per channel, in [0, 1].
    std: standard deviation of the data per channel, in [0, 1].
    depth: layers; 10, 16, 22, 28, 34, 40 and so on.
    widen_factor: multiple of the channels.
    axis_name: device axis over which batch normalization shares statistics.
    dtype: type of the convolutions; parameters and logits keep the default.
    activation: a key of `layers.ACTIVATIONS`.
  """

  num_classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  depth: int = 40
  widen_factor: int = 2
  axis_name: str | None = None
  dtype: Any = None
  activation: str = "relu"

  def __post_init__(self) -> None:
    if self.depth < 10 or (self.depth - 4) % 6:
      below = max(10, self.depth - (self.depth - 4) % 6)
      raise ValueError(
        f"a wide residual network of depth {self.depth} does not exist: "
        f"depth must be 6 n + 4, such as {below} or {below + 6}"
      )
    if self.widen_factor < 1:
      raise ValueError(
        f"widen_factor is {self.widen_factor}: give an integer, 1 or more"
      )
    layers.activation(self.activation)
    super().__post_init__()

  @property
  def label(self) -> str:
    """The network's name in tables."""
    _, suffix = layers.activation(self.activation)
    return f"WRN-{self.depth}-{self.widen_factor}{suffix}"

  def setup(self) -> None:
    """Builds the layers."""
    self.act, _ = layers.activation(self.activation)
    self.stem = layers.conv(16, 3, dtype=self.dtype)
    self.stages = [
      [
        Block(
          width * self.widen_factor,
          stride=2 if stage > 0 and index == 0 else 1,
          axis_name=self.axis_name,
          dtype=self.dtype,
          activation=self.activation,
        )
        for index in range((self.depth - 4) // 6)
      ]
      for stage, width in enumerate((16, 32, 64))
    ]
    # In full precision: features and logits are not rounded to bfloat16.
    self.norm = BatchNorm(self.axis_name)
    self.head = layers.linear(self.num_classes, nn.initializers.zeros)

  def features(self, images: jax.Array, train: bool) -> jax.Array:
    """Features before the head.

    Args:
      images: pixels [B, H, W, C] in [0, 1], H and W at least 8.
      train: whether batch normalization uses the batch's statistics.

    Returns:
      Features [B, 64 * widen_factor].
    """
    x = self.stem(layers.normalize(images, self.mean, self.std))
    for stage in self.stages:
      for block in stage:
        x = block(x, train)
    return layers.pool(self.act(self.norm(x, train)))

  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Logits [B, num_classes]; arguments as for `features`."""
    return self.head(self.features(images, train))
