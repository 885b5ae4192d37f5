"""A small network with data, for tests of attacks."""

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import losses

ORDER = {"l2": 2, "linf": np.inf}
START = jax.jit(
  lambda attack, keys, images, labels, targets, model: attack.start(
    keys, {"images": images, "labels": labels, "targets": targets}, model
  )
)
STEP = jax.jit(lambda attack, state, model: attack.step(state, model))


@jax.jit
def search(attack, keys, images, labels, model, ranked=None):
  """The first success against the classes `ranked` [B,T], else the input."""
  ranked = jnp.zeros((len(labels), 1), int) if ranked is None else ranked
  found, best = ~losses.correct(model(images), labels), images
  for number in range(ranked.shape[1]):
    own = jax.vmap(lambda key, n=number: jax.random.fold_in(key, n))(keys)
    state = START(attack, own, images, labels, ranked[:, number], model)
    state = jax.lax.fori_loop(
      0, attack.steps, lambda _, state: attack.step(state, model), state
    )
    best = jnp.where(found[:, None, None, None], best, attack.images(state))
    found |= attack.found(state)
  return best


def perceptron(first, second, images):
  return jnp.tanh(images.reshape(len(images), -1) @ first) @ second


def problem(count=16, classes=4, shape=(4, 4, 3)):
  """Keys, images, labels of which some are wrong, and a network."""
  rng = np.random.default_rng(0)
  size = np.prod(shape)
  model = jax.tree_util.Partial(
    perceptron,
    jnp.asarray(4 * rng.normal(size=(size, 12)) / np.sqrt(size)),
    jnp.asarray(rng.normal(size=(12, classes))),
  )
  images = jnp.asarray(rng.uniform(size=(count, *shape)))
  labels = jnp.argmax(model(images), -1).at[:2].add(1) % classes
  return jax.random.split(jax.random.key(0), count), images, labels, model


def distance(norm, a, b):
  flat = (np.asarray(a, np.float64) - np.asarray(b, np.float64)).reshape(
    len(a), -1
  )
  return np.linalg.norm(flat, ORDER[norm], axis=1)
