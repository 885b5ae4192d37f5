"""Random keys per example: root -> step -> example -> purpose.

A key is folded or split, never both: `fold_in(key, 0)` is `split(key)[0]`.
"""

import jax
import jax.numpy as jnp


def per_example(key: jax.Array, positions: jax.Array) -> jax.Array:
  """Derives a separate key for each position of the global batch.

  The keys depend only on the position, not on how the batch is split over
  devices, so the draws on 1 and 8 devices are bit-identical.

  Args:
    key: one key, the same on every device.
    positions: integers [B], positions in the global batch.

  Returns:
    Keys [B].
  """
  return jax.vmap(lambda p: jax.random.fold_in(key, p))(positions)


def split(keys: jax.Array, num: int = 2) -> tuple[jax.Array, ...]:
  """Splits every key of a batch, one result per purpose.

  Args:
    keys: keys [B].
    num: number of keys per example.

  Returns:
    `num` arrays of keys, [B] each.
  """
  rows = jax.vmap(lambda key: jax.random.split(key, num))(keys)
  return tuple(jnp.moveaxis(rows, 1, 0))
