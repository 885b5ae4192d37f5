"""Batch normalization as in PyTorch, optionally across devices."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

MOMENTUM = 0.9  # weight of the old value; PyTorch's momentum is 0.1
EPSILON = 1e-5


class BatchNorm(nn.Module):
  """Batch normalization over all axes but the last.

  As in torch.nn.BatchNorm2d, the batch is normalized by its biased variance,
  and the running variance is updated with the unbiased one (flax uses the
  biased one). Mean and variance are computed in one pass over the inputs: after
  subtracting a pilot, which is an estimate of the mean, the variance is the
  mean of the squares minus the square of the mean.

  Attributes:
    axis_name: device axis over which statistics are computed, None for only
      this device's examples.
    dtype: type of the output, None for the default float type. Parameters and
      statistics always have the default float type.
  """

  axis_name: str | None = None
  dtype: Any = None

  @nn.compact
  def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
    """Normalizes with batch statistics in training and running ones otherwise.

    Args:
      inputs: activations [..., C].
      train: whether to use the batch's statistics and update the running ones.

    Returns:
      Activations [..., C].

    Raises:
      ValueError: in training, if each channel has only one value.
    """
    dtype = jnp.result_type(float)
    shape = inputs.shape[-1:]
    scale = self.param("scale", nn.initializers.ones, shape, dtype)
    bias = self.param("bias", nn.initializers.zeros, shape, dtype)
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape, dtype)
    var = self.variable("batch_stats", "var", jnp.ones, shape, dtype)
    x = inputs.astype(dtype)
    if train and not self.is_initializing():
      pilot = self._pilot(inputs, mean.value)
      now_mean, now_var, unbiased = self._statistics(x, pilot)
      mean.value = MOMENTUM * mean.value + (1 - MOMENTUM) * now_mean
      var.value = MOMENTUM * var.value + (1 - MOMENTUM) * unbiased
    else:
      now_mean, now_var = mean.value, var.value
    y = (x - now_mean) * (scale * jax.lax.rsqrt(now_var + EPSILON)) + bias
    return y.astype(dtype if self.dtype is None else self.dtype)

  def _pilot(self, inputs: jax.Array, running_mean: jax.Array) -> jax.Array:
    """An estimate of the mean per channel, equal on all devices.

    For inputs of the default float type, it is the central pixel of the middle
    example, averaged over the devices. The running mean would not do: it starts
    at 0, so cancellation could cost all digits of the variance. bfloat16 inputs
    have fewer digits to lose. For them, the pilot is the running mean, because
    a TPU can fuse the statistics into the convolution if the pilot is known
    before the inputs.
    """
    if inputs.dtype != running_mean.dtype:
      return running_mean
    center = inputs[tuple(size // 2 for size in inputs.shape[:-1])]
    center = jax.lax.stop_gradient(center)
    if self.axis_name is not None:
      center = jax.lax.pmean(center, self.axis_name)
    return center

  def _statistics(
    self, x: jax.Array, pilot: jax.Array
  ) -> tuple[jax.Array, ...]:
    """Mean, biased variance and unbiased variance per channel."""
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    x = x - pilot
    moments = jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)
    if self.axis_name is not None:
      moments = jax.lax.pmean(moments, self.axis_name)
      count *= jax.lax.axis_size(self.axis_name)
    if count < 2:
      raise ValueError(
        f"batch normalization of inputs {x.shape} has one value per channel: "
        "train with a batch of 2 or more, or with larger images"
      )
    mean, square = moments
    # Rounding could make it negative.
    var = jnp.maximum(square - jnp.square(mean), 0)
    return pilot + mean, var, var * (count / (count - 1))
