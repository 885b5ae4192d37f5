"""Random keys per example: root -> step -> example -> purpose.

A key is folded or split, never both: `fold_in(key, 0)` is `split(key)[0]`.
"""

import jax
import jax.numpy as jnp


def per_example(key: jax.Array, positions: jax.Array) -> jax.Array:
  """Gives each position of the global batch a key of its own.

  The keys depend on the position alone, never on how the batch is spread over
  devices, so 1 and 8 devices draw the same numbers bit for bit.

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
    num: how many keys each example gets.

  Returns:
    `num` arrays of keys, [B] each.
  """
  rows = jax.vmap(lambda key: jax.random.split(key, num))(keys)
  return tuple(jnp.moveaxis(rows, 1, 0))
