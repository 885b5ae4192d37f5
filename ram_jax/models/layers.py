"""Layers that all networks use."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

PART = 8192  # output pixels per part of the batch, for weight gradients
MIN_SIZE = 8  # three halvings leave one pixel
HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Uniform within 1 / sqrt(fan-in): PyTorch's default initialization.
TORCH_DEFAULT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# By name in a config: the function, and the suffix of the network's name.
ACTIVATIONS = {"relu": (nn.relu, ""), "silu": (nn.silu, " (SiLU)")}


def normalize(
  images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
  """Subtracts the mean of each channel and divides by its standard deviation.

  Args:
    images: pixels [B, H, W, C] in [0, 1], H and W at least 8.
    mean: mean per channel, in [0, 1].
    std: standard deviation per channel, in [0, 1].

  Returns:
    Images [B, H, W, C] in the default float type.

  Raises:
    ValueError: if the images are smaller than 8 x 8.
  """
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
  """A convolution without bias, padded equally on both sides as in PyTorch.

  For images of even size, 'SAME' would pad strided 3x3 convolutions on one side
  only.

  Args:
    features: output channels.
    kernel: side length of the kernel, odd.
    stride: step in both directions.
    dtype: type of the arithmetic, None for the default float type.
    kernel_init: initializer of the kernel.
    name: name of the module, None for an automatic name.

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


def in_parts(
  call: Callable,
  args: tuple,
  kwargs: dict,
  context: nn.module.InterceptorContext,
) -> Any:
  """Computes weight gradients of convolutions over parts of the batch.

  An interceptor for `nn.intercept_methods`. The weight gradient is a
  convolution whose kernel is the batch of output gradients; on CPUs, XLA's time
  for it grows faster than the kernel size (see `docs/performance.md`). The sum
  of the parts' gradients is the same up to rounding.

  Args:
    call: the layer's method.
    args: its arguments.
    kwargs: its keyword arguments.
    context: the layer and the name of the method.

  Returns:
    The result of the method.
  """
  layer = context.module
  if not isinstance(layer, nn.Conv) or context.method_name != "__call__":
    return call(*args, **kwargs)
  kernel = layer.get_variable("params", "kernel")
  images, kernel = nn.dtypes.promote_dtype(*args, kernel, dtype=layer.dtype)
  strides, padding = (layer.strides,) * 2, [(layer.padding,) * 2] * 2
  order = "NHWC", "HWIO", "NHWC"

  def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
      images, kernel, strides, padding, dimension_numbers=order
    )

  def backward(saved: tuple, gradient: jax.Array) -> tuple:
    images, kernel = saved

    def to_kernel(part: slice) -> jax.Array:
      back = jax.linear_transpose(lambda k: convolve(images[part], k), kernel)
      return back(gradient[part])[0]

    to_images = jax.linear_transpose(lambda x: convolve(x, kernel), images)
    count = max(1, PART // (gradient.shape[1] * gradient.shape[2]))
    parts = [slice(i, i + count) for i in range(0, len(images), count)]
    return to_images(gradient)[0], sum(map(to_kernel, parts))

  convolved = jax.custom_vjp(convolve)
  convolved.defvjp(lambda x, k: (convolve(x, k), (x, k)), backward)
  return convolved(images, kernel)


def linear(num_classes: int, bias_init: Callable) -> nn.Dense:
  """The classifier's head; its weights have PyTorch's uniform initialization.

  Convolutions, and the activations between them, use the network's dtype. The
  head, the mean over the pixels and a normalization after the last block use
  the default float type, because bfloat16 would round features and logits.

  Args:
    num_classes: number of outputs.
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


def torch_bias(fan_in: int) -> Callable:
  """PyTorch's initializer for biases: uniform within 1 / sqrt(fan-in) of 0."""
  bound = 1 / math.sqrt(fan_in)
  return lambda key, shape, dtype: jax.random.uniform(
    key, shape, dtype, -bound, bound
  )


def pool(x: jax.Array) -> jax.Array:
  """Mean over the pixels, in the default float type.

  Args:
    x: activations [B, H, W, C].

  Returns:
    Features [B, C].
  """
  return jnp.mean(x.astype(jnp.result_type(float)), axis=(1, 2))
