"""Ways to call a corruption, and the original's images.

The latter are used if they are next to the checkout.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax import corruptions
from ram_jax.image import color


def corrupt_one(corruption, key, image, severity, assets=None):
  """Corrupts floats [H,W,C] in [0,1], multiples of 1/255 before and after."""
  parameters = corruption.parameters(severity, image.shape, assets)
  levels = corruption.apply(key, color.quantize(image), parameters)
  return color.dequantize(levels, image.dtype)


@functools.partial(jax.jit, static_argnums=0)
def apply(function, keys, levels, parameters):
  """Corrupts levels [B,H,W,C], as `Generator` does."""
  made = jax.vmap(function, (0, 0, None))(keys, levels, parameters)
  return made.astype(jnp.uint8)


def corrupt(name, severity, keys, images, assets=None):
  """Corrupts floats [B,H,W,C] in [0,1], multiples of 1/255."""
  corruption = corruptions.EVERY[name]
  parameters = corruption.parameters(severity, images.shape[1:], assets)
  levels = apply(corruption.apply, keys, color.quantize(images), parameters)
  return color.dequantize(levels, images.dtype)


def differences(corruption, folder):
  """Absolute differences from the original at each severity: int [5,...]."""
  path = folder / "cifar10c_reference.npz"
  if not path.exists():
    pytest.skip(f"the original's images are not at {path}")
  with np.load(path) as file:
    levels, reference = file["images"], file[corruption.name]
  images = jnp.asarray(levels, jnp.float32) / 255

  @jax.jit
  def run(images):
    key = jax.random.key(0)
    return [
      jax.vmap(lambda image, s=s: corrupt_one(corruption, key, image, s))(
        images
      )
      for s in (1, 2, 3, 4, 5)
    ]

  actual = np.round(255 * np.stack(run(images))).astype(int)
  return np.abs(actual - reference)
