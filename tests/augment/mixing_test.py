"""MixUp, CutMix and Cutout against their definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ram_jax.augment import basic, cutout, mixing

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZE = 32, 24
PLAIN = basic.Augment(flip=False, padding=0)


def keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def edges(middle, length, size):
  """First and last pixel of a side, as in Cutout's and CutMix's code."""
  sides = (middle - length // 2, middle + length // 2)
  return np.clip(sides, 0, size)


def batch(count=6):
  """Images, targets, and those that precede them."""
  rng = np.random.default_rng(0)
  images = rng.uniform(size=(count, *SIZE, 3))
  targets = np.eye(4)[rng.integers(0, 4, count)]
  return (images, targets), (np.roll(images, 1, 0), np.roll(targets, 1, 0))


SHARES = np.asarray([0, 0.05, 0.3, 0.5, 0.9, 1])


def test_mixup_is_the_weighted_mean(x64):
  pairs = batch()
  augment = mixing.Mixing("mixup")
  weights = jnp.stack(
    [augment.weights(share, jnp.zeros(2, int), True, SIZE) for share in SHARES]
  )
  found = mixing.mix(weights, *pairs)
  for i, share in enumerate(SHARES):
    for x, one, other in zip(found, *pairs, strict=True):
      expected = share * one[i] + (1 - share) * other[i]
      np.testing.assert_allclose(x[i], expected, rtol=1e-14, atol=1e-15)


def test_cutmix_copies_a_rectangle(x64):
  (images, targets), (others, their) = pairs = batch()
  augment = mixing.Mixing("cutmix")
  middles = np.asarray([(0, 0), (31, 23), (16, 12), (3, 20), (9, 9), (8, 8)])
  weights = jnp.stack(
    [
      augment.weights(share, middle, True, SIZE)
      for share, middle in zip(SHARES, middles, strict=True)
    ]
  )
  found, mixed = mixing.mix(weights, *pairs)
  for i, share in enumerate(SHARES):
    lengths = [int(n * np.sqrt(1 - share)) for n in SIZE]
    (top, bottom), (left, right) = map(edges, middles[i], lengths, SIZE)
    expected = images[i].copy()
    expected[top:bottom, left:right] = others[i, top:bottom, left:right]
    np.testing.assert_array_equal(found[i], expected)
    area = (bottom - top) * (right - left) / np.prod(SIZE)
    expected = (1 - area) * targets[i] + area * their[i]
    np.testing.assert_allclose(mixed[i], expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
  "alpha", [pytest.param(0.4, marks=pytest.mark.slow), 1.0]
)
def test_draws_of_pairs(alpha):
  augment = mixing.Mixing("cutmix", alpha=alpha, probability=0.3)
  share, middle, chosen = jax.vmap(lambda k: augment.draw(k, SIZE))(keys(2000))
  assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 1e-4
  for i, n in enumerate(SIZE):
    counts = np.bincount(middle[:, i], minlength=n)
    assert len(counts) == n and stats.chisquare(counts).pvalue > 1e-4
  assert abs(chosen.mean() - 0.3) < 0.04
  pairs = jax.tree.map(np.float32, batch(6))
  mixed, _ = augment(keys(6), *pairs)
  changed = (mixed != pairs[0][0]).any((1, 2, 3))
  assert not changed[~chosen[:6]].any()


def test_cutout_fills_a_clipped_square():
  color = (0.2, 0.4, 0.6)
  images = np.random.default_rng(0).random((300, *SIZE, 3), np.float32)
  augment = cutout.Augment(PLAIN, length=10, value=color)
  found = np.asarray(jax.jit(augment)(keys(300), images))
  filled = (found != images).any(-1)
  np.testing.assert_array_equal(
    found[filled], np.broadcast_to(np.float32(color), (filled.sum(), 3))
  )
  possible = set()
  for middle in itertools.product(*map(range, SIZE)):
    mask = np.zeros(SIZE, bool)
    (top, bottom), (left, right) = map(edges, middle, (10, 10), SIZE)
    mask[top:bottom, left:right] = True
    possible.add(mask.tobytes())
  assert {mask.tobytes() for mask in filled} <= possible
  # The mean area of a side is that over all centers.
  expected = [
    np.mean([np.ptp(edges(c, 10, n)) for c in range(n)]) for n in SIZE
  ]
  assert filled.mean() == pytest.approx(np.prod(expected) / 768, rel=0.05)


def test_cutout_augments_first():
  images = np.random.default_rng(0).random((4, *SIZE, 3), np.float32)
  augment = cutout.Augment(lambda keys, images: images / 2, length=2)
  found = np.asarray(augment(keys(4), images))
  assert ((found == images / 2).all(-1).mean((1, 2)) > 0.98).all()


@pytest.mark.parametrize(
  ("field", "value"),
  [("length", 0), ("length", 7), ("value", (0.5,)), ("value", (0, 0, 1.5))],
)
def test_impossible_cutout(field, value):
  with pytest.raises(ValueError, match=f"^{field} is"):
    cutout.Augment(PLAIN, **{field: value})
