"""The original's images, if they are next to the checkout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


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
      jax.vmap(lambda image, s=s: corruption(key, image, s))(images)
      for s in (1, 2, 3, 4, 5)
    ]

  actual = np.round(255 * np.stack(run(images))).astype(int)
  return np.abs(actual - reference)
