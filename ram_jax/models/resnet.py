"""torchvision's residual networks with a stem for small images."""

import functools
from typing import Any

import flax.linen as nn
import jax

from ram_jax import checks
from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm
from ram_jax.models.network import Network

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
  """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1.

  Attributes:
    layout: (channels, kernel size) of each convolution.
    stride: stride of the first 3x3 convolution (as in ResNet v1.5).
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
    """Maps [B, H, W, C] to [B, H / stride, W / stride, output channels]."""
    conv = functools.partial(layers.conv, dtype=self.dtype)
    norm = functools.partial(BatchNorm, self.axis_name, self.dtype)
    act, _ = layers.ACTIVATIONS[self.activation]
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


class Model(Network):
  """ResNet-18, ResNet-50 or WRN-50-2 for CIFAR.

  torchvision's ResNet v1.5 with a 3x3 stem of stride 1 and no max-pooling. The
  paper's "50-2 Wide ResNet" is depth 50 with `width_factor` 2, as in its
  author's code; it has 66,847,050 parameters for 10 classes.

  Attributes:
    depth: 18 or 50.
    width_factor: multiplier of the bottlenecks' inner channels; 1 for depth 18.
  """

  depth: int = 18
  width_factor: int = 1

  def __post_init__(self) -> None:
    width = checks.integer(1)
    if self.depth == 18:
      width = "1, or depth 50, which has bottlenecks to widen", lambda v: v == 1
    depth = checks.one_of(*BLOCKS)
    checks.check(vars(self), depth=depth, width_factor=width)
    super().__post_init__()

  @property
  def title(self) -> str:
    """The network's name, without its activation."""
    if self.width_factor > 1:
      return f"WRN-{self.depth}-{self.width_factor}"
    return f"ResNet-{self.depth}"

  def setup(self) -> None:
    """Builds the layers."""
    # The author's code replaces torchvision's stem with a new Conv2d after the
    # network is initialized, so the stem is the only convolution with PyTorch's
    # default initialization.
    self.stem = layers.conv(
      WIDTHS[0], 3, dtype=self.dtype, kernel_init=layers.TORCH_DEFAULT
    )
    self.stem_norm = BatchNorm(self.axis_name, self.dtype)
    layouts = [self._layout(width) for width in WIDTHS]
    self.stages = self.blocks(Block, layouts, BLOCKS[self.depth])
    width, _ = layouts[-1][-1]
    self.head = layers.linear(self.num_classes, layers.torch_bias(width))

  def _layout(self, width: int) -> tuple[tuple[int, int], ...]:
    """Channels and kernel of each convolution of a block."""
    if self.depth == 18:
      return ((width, 3), (width, 3))
    inner = width * self.width_factor
    return ((inner, 1), (inner, 3), (4 * width, 1))
