"""PixMix against the formulas of its authors' code, and its mixing sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from configs import common
from ram_jax import plugins
from ram_jax.augment import pixmix
from ram_jax.data import arrays, fractals

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIDE = 8
SMALL = fractals.Pictures(count=5)


def keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def original(draw, image, copies, picture):
  """`pixmix` of cifar.py with given draws, in float64."""
  mixed = copies[0] if draw.augmented[0] else image
  for i in range(draw.count):
    other = copies[i + 1] if draw.augmented[i + 1] else picture
    a, b = draw.first[i], draw.second[i]
    if draw.multiply[i]:
      mixed = (mixed * 2) ** a * (other * 2).clip(1e-37) ** b / 2
    else:
      mixed = (a * (mixed * 2 - 1) + b * (other * 2 - 1) + 1) / 2
    mixed = np.clip(mixed, 0, 1)
  return mixed


def test_rounds_equal_the_originals(x64):
  rng = np.random.default_rng(0)
  augment = pixmix.Augment(SMALL)
  size = (SIDE, SIDE)
  draws = jax.vmap(lambda k: augment.draw(k, (5, 9, 9, 3), size))(keys(200))
  # Grey levels, with black pixels.
  images, pictures = rng.integers(0, 256, (2, 200, *size, 3)) / 255
  copies = rng.integers(0, 256, (200, 5, *size, 3)) / 255
  for x in (images, pictures, copies):
    x[..., 0, 0, :] = 0
  found = jax.jit(jax.vmap(augment.mix))(draws, images, copies, pictures)
  draws = jax.tree.map(np.asarray, draws)
  assert set(draws.count) == set(range(5))
  for i in range(200):
    draw = jax.tree.map(lambda x, i=i: x[i], draws)
    expected = original(draw, images[i], copies[i], pictures[i])
    np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-12)


def test_draws_have_the_originals_distribution():
  augment = pixmix.Augment(SMALL, rounds=1, beta=3.0)
  draws = jax.vmap(lambda k: augment.draw(k, (5, 10, 9, 3), (8, 9)))(keys(4000))
  first, second = (np.asarray(x)[:, 0] for x in (draws.first, draws.second))
  rising, falling = stats.beta(3, 1).cdf, stats.beta(1, 3).cdf
  negative = second < 0
  for values, distribution in (
    (first[~negative], rising),
    (second[~negative], falling),
    (first[negative] - 1, falling),
    (-second[negative], falling),
  ):
    assert stats.kstest(values, distribution).pvalue > 1e-4
  halves = [negative, draws.multiply[:, 0], *np.asarray(draws.augmented).T]
  for choice in (*halves, draws.count):
    assert abs(np.mean(choice) - 0.5) < 0.04
  for numbers, count in ((draws.index, 5), (draws.corner[:, 0], 3)):
    assert stats.chisquare(np.bincount(numbers, minlength=count)).pvalue > 1e-4
  assert (np.asarray(draws.corner[:, 1]) == 0).all()


class Whole:
  """Pictures whose pixels are their position."""

  def load(self, size):
    rows, columns = np.indices((10, 12), np.uint8)
    one = np.stack([rows, columns, rows], axis=-1)
    return np.stack([one, one + np.uint8(100)])


def test_pictures_are_random_crops(monkeypatch):
  def mix(self, draw, image, copies, picture):
    return picture

  monkeypatch.setattr(pixmix.Augment, "mix", mix)
  monkeypatch.setattr(pixmix.Augment, "_copies", lambda self: Copies())
  augment = pixmix.Augment(Whole(), augment=lambda k, x: x)
  images = np.zeros((40, 8, 9, 3), np.float32)
  found = np.round(np.asarray(jax.jit(augment)(keys(40), images)) * 255)
  corners = found[:, 0, 0].astype(int)
  expected = np.indices((8, 9))
  for image, (row, column, _) in zip(found, corners, strict=True):
    np.testing.assert_array_equal(image[..., 0], row + expected[0])
    np.testing.assert_array_equal(image[..., 1], column + expected[1])
  assert {*corners[:, 0] % 100} == {0, 1, 2} and corners.max() >= 100
  assert {*corners[:, 1] % 100} == {0, 1, 2, 3}


class Copies:
  def chains(self, keys, images):
    return jnp.stack([images] * 5, axis=1)


def test_augments_first_and_then_mixes():
  augment = pixmix.Augment(SMALL, augment=lambda k, x: x / 2)
  images = np.full((64, 32, 32, 3), 0.8, np.float32)
  found = np.asarray(jax.jit(augment)(keys(64), images))
  assert found.min() >= 0 and found.max() <= 1
  # Neither augmented nor mixed: one of 2 * 5, or if an operation is trivial.
  unchanged = (np.abs(found - 0.4) < 0.003).all((1, 2, 3)).mean()
  assert 0.05 < unchanged < 0.4


def test_lowers_for_tpu():
  augment = jax.jit(pixmix.Augment(SMALL, rounds=1))
  images = np.zeros((2, 32, 32, 3), np.float32)
  exported = jax.export.export(augment, platforms=["tpu"])(keys(2), images)
  assert exported.platforms == ("tpu",)


@pytest.mark.parametrize(
  ("field", "value"),
  [("rounds", 0), ("beta", 0), ("severity", 11), ("operations", 5)],
)
def test_impossible_values(field, value):
  with pytest.raises(ValueError, match=field):
    pixmix.Augment(SMALL, **{field: value})


def test_fractals_are_reproducible_and_structured():
  found = fractals.Pictures(count=40, seed=1).load((32, 24))
  assert found.shape == (40, 36, 27, 3) and found.dtype == np.uint8
  again = fractals.Pictures(count=40, seed=1).load((32, 24))
  np.testing.assert_array_equal(found, again)
  other = fractals.Pictures(count=40, seed=2).load((32, 24))
  assert (found != other).any((1, 2, 3)).all()
  assert len(np.unique(found.reshape(40, -1), axis=0)) == 40
  # Each has a background and a contrast, and its pixels are not noise:
  # neighbors are more alike than any two pixels.
  x = found.astype(float)
  deviation = x.std((1, 2)).mean(-1)
  assert (deviation > 3).mean() > 0.9
  near = np.abs(np.diff(x, axis=1)).mean((1, 2, 3))
  shuffled = (
    np.random.default_rng(0)
    .permutation(x.reshape(40, -1, 3), axis=1)
    .reshape(x.shape)
  )
  far = np.abs(np.diff(shuffled, axis=1)).mean((1, 2, 3))
  assert (near < 0.9 * far).mean() > 0.9


@pytest.mark.parametrize(("field", "value"), [("count", 0), ("seed", -1)])
def test_impossible_fractals(field, value):
  with pytest.raises(ValueError, match=f"^{field} is"):
    fractals.Pictures(**{field: value})


def test_own_pictures(tmp_path):
  path = tmp_path / "pictures.npz"
  pictures = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), np.uint8)
  np.savez(path, pictures=pictures)
  spec = common.AUGMENTS["pixmix_arrays"]
  spec = spec | {"pictures": spec["pictures"] | {"path": str(path)}}
  augment = plugins.build("augment", spec)
  np.testing.assert_array_equal(augment.pictures.load((8, 8)), pictures)
  with pytest.raises(ValueError, match="are 9x8 pixels, but .* 10x8"):
    augment.pictures.load((10, 8))
  assert hash(augment) == hash(plugins.build("augment", spec))


@pytest.mark.parametrize(
  ("given", "words"),
  [
    ({"pictures": np.zeros((3, 8, 8, 3))}, r"float64 .*expected uint8"),
    ({"pictures": np.zeros((3, 8, 8), np.uint8)}, "expected uint8"),
    ({"pictures": np.zeros((0, 8, 8, 3), np.uint8)}, "0 bytes"),
    (
      {"pictures": np.zeros((6000, 64, 64, 3), np.uint8)},
      "are compiled into the",
    ),
    ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, "lacks pictures"),
  ],
)
def test_unusable_pictures(tmp_path, given, words):
  path = tmp_path / "pictures.npz"
  np.savez(path, **given)
  with pytest.raises(ValueError, match=words):
    arrays.Pictures(str(path))


def test_missing_pictures():
  with pytest.raises(FileNotFoundError, match="pictures.path must name"):
    arrays.Pictures("")
