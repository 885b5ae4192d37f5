"""torchvision's residual networks with a stem for small images."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax

from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
  """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1.

  Attributes:
    layout: (channels, kernel) of each convolution.
    stride: step of the first 3x3 convolution (torchvision's version 1.5).
    axis_name: device axis of batch normalization.
    dtype: type of the arithmetic.
    activation: a key of `layers.ACTIVATIONS`.
  """

  layout: tuple[tuple[int, int], ...]
  stride: int = 1
  axis_name: str | None = None
  dtype: Any = None
  activation: str = "relu"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H / stride, W / stride, last channels]."""
    conv = functools.partial(layers.conv, dtype=self.dtype)
    norm = functools.partial(BatchNorm, self.axis_name, self.dtype)
    act, _ = layers.activation(self.activation)
    y = x
    strided = [kernel for _, kernel in self.layout].index(3)
    for i, (features, kernel) in enumerate(self.layout):
      y = act(y) if i else y
      stride = self.stride if i == strided else 1
      y = conv(features, kernel, stride, name=f"conv_{i}")(y)
      y = norm(name=f"norm_{i}")(y, train)
    if x.shape != y.shape:
      x = conv(y.shape[-1], 1, self.stride, name="shortcut")(x)
      x = norm(name="shortcut_norm")(x, train)
    return act(x + y)


class Model(nn.Module):
  """ResNet-18, ResNet-50 or WRN-50-2 for CIFAR.

  torchvision's version 1.5 with a 3x3 stem of stride 1 and no max-pooling. The
  paper's "50-2 Wide ResNet" is depth 50 with `width_factor` 2, as in its
  author's code; it has 66,847,050 parameters for 10 classes.

  Attributes:
    num_classes: outputs.
    mean: mean of the data per channel, in [0, 1].
    std: standard deviation of the data per channel, in [0, 1].
    depth: 18 or 50.
    width_factor: multiple of the bottlenecks' inner channels; 1 for depth 18.
    axis_name: device axis over which batch normalization shares statistics.
    dtype: type of the convolutions; parameters and logits keep the default.
    activation: a key of `layers.ACTIVATIONS`.
  """

  num_classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  depth: int = 18
  width_factor: int = 1
  axis_name: str | None = None
  dtype: Any = None
  activation: str = "relu"

  def __post_init__(self) -> None:
    if self.depth not in BLOCKS:
      raise ValueError(
        f"a residual network of depth {self.depth} does not exist: "
        f"choose one of {sorted(BLOCKS)}"
      )
    if self.width_factor < 1 or (self.depth == 18 and self.width_factor != 1):
      raise ValueError(
        f"width_factor {self.width_factor} does not exist for depth "
        f"{self.depth}: use 1, or depth 50, which has bottlenecks to widen"
      )
    layers.activation(self.activation)
    super().__post_init__()

  @property
  def label(self) -> str:
    """The network's name in tables."""
    name = f"ResNet-{self.depth}"
    if self.width_factor > 1:
      name = f"WRN-{self.depth}-{self.width_factor}"
    return name + layers.activation(self.activation)[1]

  def setup(self) -> None:
    """Builds the layers."""
    self.act, _ = layers.activation(self.activation)
    # The author's code replaces torchvision's stem by a new Conv2d after the
    # network is initialized, so only the stem has PyTorch's default.
    self.stem = layers.conv(
      WIDTHS[0], 3, dtype=self.dtype, kernel_init=layers.TORCH_DEFAULT
    )
    self.stem_norm = BatchNorm(self.axis_name, self.dtype)
    self.stages = [
      [
        Block(
          self._layout(width),
          stride=2 if stage > 0 and index == 0 else 1,
          axis_name=self.axis_name,
          dtype=self.dtype,
          activation=self.activation,
        )
        for index in range(count)
      ]
      for stage, (width, count) in enumerate(
        zip(WIDTHS, BLOCKS[self.depth], strict=True)
      )
    ]
    # PyTorch's linear layer draws its bias within 1 / sqrt(fan-in).
    bound = 1 / math.sqrt(self._layout(WIDTHS[-1])[-1][0])
    self.head = layers.linear(
      self.num_classes,
      lambda key, shape, dtype: jax.random.uniform(
        key, shape, dtype, -bound, bound
      ),
    )

  def _layout(self, width: int) -> tuple[tuple[int, int], ...]:
    """Channels and kernel of each convolution of a block."""
    if self.depth == 18:
      return ((width, 3), (width, 3))
    inner = width * self.width_factor
    return ((inner, 1), (inner, 3), (4 * width, 1))

  def features(self, images: jax.Array, train: bool) -> jax.Array:
    """Features before the head.

    Args:
      images: pixels [B, H, W, C] in [0, 1], H and W at least 8.
      train: whether batch normalization uses the batch's statistics.

    Returns:
      Features [B, 512], or [B, 2048] for depth 50.
    """
    x = self.stem(layers.normalize(images, self.mean, self.std))
    x = self.act(self.stem_norm(x, train))
    for stage in self.stages:
      for block in stage:
        x = block(x, train)
    return layers.pool(x)

  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Logits [B, num_classes]; arguments as for `features`."""
    return self.head(self.features(images, train))
