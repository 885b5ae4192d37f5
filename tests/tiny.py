"""A network that compiles in a second, where the network does not matter."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm


class Net(nn.Module):
  """Two convolutions, each with BatchNorm and ReLU, and a head."""

  num_classes: int = 10
  axis_name: str | None = None
  dtype: Any = None

  @property
  def label(self):
    return "Tiny"

  @nn.compact
  def __call__(self, images, train):
    x = images - 0.5
    for features in (4, 8):
      x = layers.conv(features, 3, 2, self.dtype)(x)
      x = nn.relu(BatchNorm(self.axis_name, self.dtype)(x, train))
    dtype = jnp.result_type(float)
    head = nn.Dense(self.num_classes, param_dtype=dtype, name="head")
    return head(jnp.mean(x.astype(dtype), (1, 2)))


def build_model(
  config: Any, source: Any, dtype: str, axis_name: str | None
) -> Net:
  """In place of `plugins.build_model`."""
  number = None if dtype == "float32" else jnp.dtype(dtype)
  return Net(source.num_classes, axis_name, number)
