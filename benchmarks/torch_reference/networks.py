"""The networks in PyTorch, with the names that their checkpoints use.

State_dicts of `ResNet` match torchvision's networks, those of `WideResNet`
RobustBench's, and those of `PreActResNet` RobustBench's and locuslab's. Every
network takes pixels in [0, 1] and normalizes them itself; the constants are not
part of its state_dict.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Normalize(nn.Module):
  """(pixel - mean) / std per channel.

  The constants are float64 until the network is cast, so that `.double()` keeps
  their full precision.
  """

  def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
    super().__init__()
    for name, values in (("mean", mean), ("std", std)):
      column = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
      self.register_buffer(name, column, persistent=False)

  def forward(self, images: Tensor) -> Tensor:
    """Normalizes pixels [B, 3, H, W] in [0, 1]."""
    return (images - self.mean.to(images)) / self.std.to(images)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
  """Builds a convolution without bias and with "same" padding.

  Args:
    inputs: channels in.
    outputs: channels out.
    kernel: side of the kernel, odd.
    stride: step in both directions.

  Returns:
    The layer.
  """
  return nn.Conv2d(
    inputs, outputs, kernel, stride, padding=kernel // 2, bias=False
  )


def he_normal(network: nn.Module) -> None:
  """Initializes convolutions as torchvision and WideResNet-pytorch do.

  Args:
    network: its convolutions are reinitialized (He, fan-out).
  """
  for module in network.modules():
    if isinstance(module, nn.Conv2d):
      nn.init.kaiming_normal_(
        module.weight, mode="fan_out", nonlinearity="relu"
      )


def activate(network: nn.Module, name: str) -> None:
  """Sets the activation of a network and its blocks.

  Args:
    network: its modules call `self.act`.
    name: a function of torch.nn.functional, relu or silu.
  """
  for module in network.modules():
    module.act = getattr(functional, name)


class BasicBlock(nn.Module):
  """ResNet-18's block: two 3x3 convolutions (arXiv 1512.03385)."""

  def __init__(
    self, inputs: int, inner: int, outputs: int, stride: int
  ) -> None:
    super().__init__()
    self.conv1 = conv(inputs, inner, 3, stride)
    self.bn1 = nn.BatchNorm2d(inner)
    self.conv2 = conv(inner, outputs, 3)
    self.bn2 = nn.BatchNorm2d(outputs)
    self.downsample = _downsample(inputs, outputs, stride)

  def forward(self, x: Tensor) -> Tensor:
    """Maps [B, C, H, W] to [B, outputs, H / stride, W / stride]."""
    y = self.act(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    shortcut = x if self.downsample is None else self.downsample(x)
    return self.act(shortcut + y)


class Bottleneck(nn.Module):
  """ResNet-50's block: 1x1, 3x3, 1x1; torchvision strides the 3x3."""

  def __init__(
    self, inputs: int, inner: int, outputs: int, stride: int
  ) -> None:
    super().__init__()
    self.conv1 = conv(inputs, inner, 1)
    self.bn1 = nn.BatchNorm2d(inner)
    self.conv2 = conv(inner, inner, 3, stride)
    self.bn2 = nn.BatchNorm2d(inner)
    self.conv3 = conv(inner, outputs, 1)
    self.bn3 = nn.BatchNorm2d(outputs)
    self.downsample = _downsample(inputs, outputs, stride)

  def forward(self, x: Tensor) -> Tensor:
    """Maps [B, C, H, W] to [B, outputs, H / stride, W / stride]."""
    y = self.act(self.bn1(self.conv1(x)))
    y = self.act(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    shortcut = x if self.downsample is None else self.downsample(x)
    return self.act(shortcut + y)


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Module | None:
  """The shortcut where a block changes the shape."""
  if stride == 1 and inputs == outputs:
    return None
  return nn.Sequential(
    conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
  )


class ResNet(nn.Module):
  """torchvision's ResNet-18, ResNet-50 or WRN-50-2 with a stem for CIFAR."""

  def __init__(
    self,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    depth: int = 18,
    width_factor: int = 1,
    activation: str = "relu",
  ) -> None:
    super().__init__()
    block, expansion, counts = {
      18: (BasicBlock, 1, (2, 2, 2, 2)),
      50: (Bottleneck, 4, (3, 4, 6, 3)),
    }[depth]
    self.normalize = Normalize(mean, std)
    self.conv1 = conv(3, 64, 3)
    self.bn1 = nn.BatchNorm2d(64)
    inputs = 64
    for stage, count in enumerate(counts):
      width, blocks = 64 * 2**stage, []
      inner, outputs = width * width_factor, width * expansion
      for index in range(count):
        stride = 2 if stage > 0 and index == 0 else 1
        blocks.append(block(inputs, inner, outputs, stride))
        inputs = outputs
      self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
    self.fc = nn.Linear(inputs, num_classes)
    he_normal(self)
    activate(self, activation)
    # The author adds this stem last, so it keeps PyTorch's initialization.
    self.conv1.reset_parameters()

  def forward(self, images: Tensor) -> Tensor:
    """Logits [B, num_classes] of pixels [B, 3, H, W] in [0, 1]."""
    x = self.act(self.bn1(self.conv1(self.normalize(images))))
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return self.fc(x.mean((2, 3)))


class WideBlock(nn.Module):
  """WideResNet's block: normalization and ReLU before each convolution."""

  def __init__(self, inputs: int, outputs: int, stride: int) -> None:
    super().__init__()
    self.bn1 = nn.BatchNorm2d(inputs)
    self.conv1 = conv(inputs, outputs, 3, stride)
    self.bn2 = nn.BatchNorm2d(outputs)
    self.conv2 = conv(outputs, outputs, 3)
    self.convShortcut = None
    if inputs != outputs:
      self.convShortcut = conv(inputs, outputs, 1, stride)

  def forward(self, x: Tensor) -> Tensor:
    """Maps [B, C, H, W] to [B, outputs, H / stride, W / stride]."""
    y = self.act(self.bn1(x))
    shortcut = x if self.convShortcut is None else self.convShortcut(y)
    y = self.act(self.bn2(self.conv1(y)))
    return shortcut + self.conv2(y)


class WideStage(nn.Module):
  """Blocks of one width, under the name `layer`."""

  def __init__(
    self, inputs: int, outputs: int, count: int, stride: int
  ) -> None:
    super().__init__()
    self.layer = nn.Sequential(
      WideBlock(inputs, outputs, stride),
      *(WideBlock(outputs, outputs, 1) for _ in range(count - 1)),
    )

  def forward(self, x: Tensor) -> Tensor:
    """Maps [B, C, H, W] to [B, outputs, H / stride, W / stride]."""
    return self.layer(x)


class WideResNet(nn.Module):
  """WRN-depth-widen (arXiv 1605.07146), as AugMix's code trains it."""

  def __init__(
    self,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    depth: int = 40,
    widen_factor: int = 2,
    activation: str = "relu",
  ) -> None:
    super().__init__()
    count = (depth - 4) // 6
    first, second, third = (w * widen_factor for w in (16, 32, 64))
    self.normalize = Normalize(mean, std)
    self.conv1 = conv(3, 16, 3)
    self.block1 = WideStage(16, first, count, stride=1)
    self.block2 = WideStage(first, second, count, stride=2)
    self.block3 = WideStage(second, third, count, stride=2)
    self.bn1 = nn.BatchNorm2d(third)
    self.fc = nn.Linear(third, num_classes)
    he_normal(self)
    activate(self, activation)
    nn.init.zeros_(self.fc.bias)

  def forward(self, images: Tensor) -> Tensor:
    """Logits [B, num_classes] of pixels [B, 3, H, W] in [0, 1]."""
    x = self.conv1(self.normalize(images))
    x = self.block3(self.block2(self.block1(x)))
    return self.fc(self.act(self.bn1(x)).mean((2, 3)))


class PreActBlock(nn.Module):
  """RobustBench's pre-activation block, with two variants of the shortcut."""

  def __init__(
    self, inputs: int, outputs: int, stride: int, activated_shortcut: bool
  ) -> None:
    super().__init__()
    self.activated_shortcut = activated_shortcut
    self.bn1 = nn.BatchNorm2d(inputs)
    self.conv1 = conv(inputs, outputs, 3, stride)
    self.bn2 = nn.BatchNorm2d(outputs)
    self.conv2 = conv(outputs, outputs, 3)
    self.shortcut = None
    if inputs != outputs:
      self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride))

  def forward(self, x: Tensor) -> Tensor:
    """Maps [B, C, H, W] to [B, outputs, H / stride, W / stride]."""
    y = self.act(self.bn1(x))
    if self.shortcut is not None:
      x = self.shortcut(y if self.activated_shortcut else x)
    y = self.act(self.bn2(self.conv1(y)))
    return x + self.conv2(y)


class PreActResNet(nn.Module):
  """PreActResNet-18 (arXiv 1603.05027), in four variants.

  "robustbench" has neither a normalization after the last block nor shortcuts
  that start after a block's first ReLU, "rice" has both, "fast" only the
  normalization, and "kuangliu" only the shortcuts.
  """

  def __init__(
    self,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    variant: str = "robustbench",
    activation: str = "relu",
  ) -> None:
    super().__init__()
    final_norm, activated_shortcut = {
      "robustbench": (False, False),
      "rice": (True, True),
      "fast": (True, False),
      "kuangliu": (False, True),
    }[variant]
    self.normalize = Normalize(mean, std)
    self.conv1 = conv(3, 64, 3)
    inputs = 64
    for stage in range(4):
      outputs, stride = 64 * 2**stage, 2 if stage > 0 else 1
      blocks = nn.Sequential(
        PreActBlock(inputs, outputs, stride, activated_shortcut),
        PreActBlock(outputs, outputs, 1, activated_shortcut),
      )
      self.add_module(f"layer{stage + 1}", blocks)
      inputs = outputs
    self.bn = nn.BatchNorm2d(512) if final_norm else None
    self.linear = nn.Linear(512, num_classes)
    activate(self, activation)

  def forward(self, images: Tensor) -> Tensor:
    """Logits [B, num_classes] of pixels [B, 3, H, W] in [0, 1]."""
    x = self.conv1(self.normalize(images))
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    if self.bn is not None:
      x = self.act(self.bn(x))
    return self.linear(x.mean((2, 3)))


# Networks by `config.model.name`; they have the same fields as ram_jax/models.
NETWORKS = {
  "resnet": ResNet,
  "wide_resnet": WideResNet,
  "preact_resnet": PreActResNet,
}
