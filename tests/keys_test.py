"""Keys per example depend only on the position, and never repeat."""

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import keys as keys_lib


def data(keys):
  return np.asarray(jax.random.key_data(keys))


def test_key_depends_on_the_position_alone():
  key = jax.random.key(3)
  whole = data(keys_lib.per_example(key, jnp.arange(8)))
  halves = [
    data(keys_lib.per_example(key, start + jnp.arange(4))) for start in (0, 4)
  ]
  np.testing.assert_array_equal(whole, np.concatenate(halves))
  np.testing.assert_array_equal(whole[5], data(jax.random.fold_in(key, 5)))


def test_no_key_twice():
  keys = keys_lib.per_example(jax.random.key(0), jnp.arange(100))
  parts = keys_lib.split(keys, 3)
  assert len(parts) == 3
  assert all(part.shape == keys.shape for part in parts)
  rows = np.concatenate([data(keys), *map(data, parts)])
  assert len(np.unique(rows, axis=0)) == 400
