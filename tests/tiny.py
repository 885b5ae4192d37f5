"""A network that compiles in a second, for tests that accept any network."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm


def waves(key: Any, shape: tuple, dtype: Any) -> Any:
  """Weights without random numbers, whose compilation takes seconds."""
  numbers = jnp.arange(1, math.prod(shape) + 1, dtype=dtype)
  size = math.prod(shape[:-1])
  return (jnp.sin(numbers * numbers) / size**0.5).reshape(shape)


class Net(nn.Module):
  """Two convolutions, each with BatchNorm and ReLU, and a head."""

  num_classes: int = 10
  axis_name: str | None = None
  dtype: Any = None
  widths: tuple[int, int] = (4, 8)

  @property
  def label(self):
    return "Tiny"

  @nn.compact
  def __call__(self, images, train):
    x = images - 0.5
    for features in self.widths:
      x = layers.conv(features, 3, 2, self.dtype, waves)(x)
      x = nn.relu(BatchNorm(self.axis_name, self.dtype)(x, train))
    dtype = jnp.result_type(float)
    x = jnp.mean(x.astype(dtype), (1, 2))
    return nn.Dense(self.num_classes, param_dtype=dtype, kernel_init=waves)(x)


def build_model(
  config: Any, source: Any, dtype: str, axis_name: str | None
) -> Net:
  """Replaces `plugins.build_model`."""
  number = None if dtype == "float32" else jnp.dtype(dtype)
  return Net(source.num_classes, axis_name, number)
