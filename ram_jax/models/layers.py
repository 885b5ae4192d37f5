"""Layers that every network here is built of."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

MIN_SIZE = 8  # three halvings leave one pixel
HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Uniform within 1 / sqrt(fan-in): PyTorch's for layers that nobody initialises.
TORCH_DEFAULT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def normalize(
  images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
  """Standardises images by the data set's statistics.

  Args:
    images: pixels [B, H, W, C] in [0, 1], H and W at least 8.
    mean: mean per channel, in [0, 1].
    std: standard deviation per channel, in [0, 1].

  Returns:
    Images [B, H, W, C] in the default float type.

  Raises:
    ValueError: if the shape is not [B, H, W, C] with the statistics' C, or the
      images are smaller than 8.
  """
  if images.ndim != 4 or images.shape[-1] != len(mean):
    raise ValueError(
      f"images of shape {images.shape} do not fit statistics of {len(mean)} "
      f"channels: give [B, H, W, {len(mean)}]"
    )
  if min(images.shape[1:3]) < MIN_SIZE:
    raise ValueError(
      f"images of {images.shape[1]}x{images.shape[2]} pixels are too small: "
      f"give {MIN_SIZE}x{MIN_SIZE} or larger"
    )
  dtype = jnp.result_type(float)
  return (images - jnp.asarray(mean, dtype)) / jnp.asarray(std, dtype)


def conv(
  features: int,
  kernel: int,
  stride: int = 1,
  dtype: Any = None,
  kernel_init: Callable = HE_FAN_OUT,
  name: str | None = None,
) -> nn.Conv:
  """A convolution without bias, padded on both sides alike as in PyTorch.

  'SAME' would pad a strided 3x3 convolution of even images on one side only.

  Args:
    features: output channels.
    kernel: side of the kernel, odd.
    stride: step in both directions.
    dtype: type of the arithmetic, None for the default float type.
    kernel_init: initializer of the kernel.
    name: of the module, None for one that its place gives.

  Returns:
    The module.
  """
  return nn.Conv(
    features,
    (kernel, kernel),
    strides=stride,
    padding=kernel // 2,
    use_bias=False,
    dtype=dtype,
    param_dtype=jnp.result_type(float),
    kernel_init=kernel_init,
    name=name,
  )


def linear(num_classes: int, bias_init: Callable) -> nn.Dense:
  """The classifier's head, with PyTorch's uniform weights.

  Convolutions, and the activations between them, follow a network's dtype. The
  head, the mean over the pixels and a normalisation after the last block stay
  in the default float type: bfloat16's 8 bits would round features and logits.

  Args:
    num_classes: outputs.
    bias_init: initializer of the bias.

  Returns:
    The module.
  """
  return nn.Dense(
    num_classes,
    param_dtype=jnp.result_type(float),
    kernel_init=TORCH_DEFAULT,
    bias_init=bias_init,
  )


def pool(x: jax.Array) -> jax.Array:
  """Mean over the pixels, in the default float type.

  Args:
    x: activations [B, H, W, C].

  Returns:
    Features [B, C].
  """
  return jnp.mean(x.astype(jnp.result_type(float)), axis=(1, 2))
