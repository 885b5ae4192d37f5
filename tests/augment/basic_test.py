"""Flips and crops keep pixels exactly and have the right probabilities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.augment import basic

COUNT = 20000


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  # One image, each pixel a value of its own: its place can be read off.
  image = rng.permutation(5 * 7).reshape(5, 7, 1) + 1.0
  return np.repeat(image[None], COUNT, axis=0).astype(np.float32)


def test_every_flip_and_corner_is_equally_likely(batch):
  keys = jax.random.split(jax.random.key(0), COUNT)
  ours = np.asarray(jax.jit(basic.Augment(padding=2))(keys, batch))
  seen = np.zeros((2, 5, 5), int)
  for flip in range(2):
    image = batch[0, :, ::-1] if flip else batch[0]
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    for y, x in np.ndindex(5, 5):
      expected = padded[y : y + 5, x : x + 7]
      seen[flip, y, x] = np.sum(np.all(ours == expected, axis=(1, 2, 3)))
  assert seen.sum() == COUNT  # every result is one of the fifty
  expected = COUNT / 50
  assert np.abs(seen - expected).max() < 5 * np.sqrt(expected)


def test_an_example_depends_on_its_own_key_and_image_alone():
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (37, 32, 32, 3), np.uint8)
  keys = jax.random.split(jax.random.key(1), 37)
  augment = jax.jit(basic.Augment())
  together = augment(keys, images)
  assert together.dtype == jnp.uint8
  np.testing.assert_array_equal(augment(keys[4:5], images[4:5])[0], together[4])
  order = rng.permutation(37)
  np.testing.assert_array_equal(
    augment(keys[order], images[order]), np.asarray(together)[order]
  )
  spread = jax.pmap(basic.Augment())(
    keys[:36].reshape(4, 9), images[:36].reshape(4, 9, 32, 32, 3)
  )
  np.testing.assert_array_equal(
    np.asarray(spread).reshape(36, 32, 32, 3), together[:36]
  )


def test_both_crops_are_equal():
  image = np.random.default_rng(2).integers(0, 256, (9, 8, 3), np.uint8)
  corners = jnp.argwhere(jnp.ones((5, 5))).astype(jnp.int32)
  slices, selects = (
    jax.vmap(functools.partial(crop, (5, 4, 3), image))(corners)
    for crop in (basic.crop_by_slice, basic.crop_by_select)
  )
  np.testing.assert_array_equal(slices, selects)
  np.testing.assert_array_equal(slices[7], image[1:6, 2:6])


def test_no_flip_and_no_padding_change_nothing(batch):
  keys = jax.random.split(jax.random.key(0), 50)
  plain = jax.jit(basic.Augment(flip=False, padding=0))(keys, batch[:50])
  np.testing.assert_array_equal(plain, batch[:50])
  flips = np.asarray(jax.jit(basic.Augment(padding=0))(keys, batch[:50]))
  flipped = np.all(flips == batch[:50, :, ::-1], axis=(1, 2, 3))
  assert 0 < flipped.sum() < 50
  np.testing.assert_array_equal(flips[~flipped], batch[:50][~flipped])


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"padding": -1}, "padding is -1: give an integer, at least 0"),
    ({"padding": 1.5}, "padding is 1.5"),
  ],
)
def test_a_wrong_field_is_refused_at_construction(fields, message):
  with pytest.raises(ValueError, match=message):
    basic.Augment(**fields)
