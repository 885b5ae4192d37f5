"""The Fourier basis, and a model that is sensitive to only one frequency."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.evaluation import fourier
from tests import found

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIDES = [(6, 6), (5, 8), (7, 3)]


@pytest.mark.parametrize("size", SIDES, ids=str)
def test_waves_are_the_inverse_transform_of_a_pair(size):
  height, width = size
  for y, x in fourier.half_plane(height, width):
    spectrum = np.zeros(size, complex)
    spectrum[y % height, x % width] += 0.5 + 0.5j
    spectrum[-y % height, -x % width] += 0.5 - 0.5j
    image = np.fft.ifft2(spectrum, norm="ortho")
    np.testing.assert_allclose(image.imag, 0, atol=1e-12)
    actual = fourier.wave(jnp.array([y, x]), height, width)
    np.testing.assert_allclose(actual, image.real, atol=1e-6)


@pytest.mark.parametrize("size", SIDES, ids=str)
def test_waves_are_an_orthonormal_basis(size, x64):
  plane = np.stack(np.indices(size), -1).reshape(-1, 2)
  waves = [np.ravel(fourier.wave(jnp.asarray(f), *size)) for f in plane]
  products = np.stack(waves) @ np.stack(waves).T
  np.testing.assert_allclose(products, np.eye(len(plane)), atol=1e-12)


@pytest.mark.parametrize("size", [*SIDES, (1, 1)], ids=str)
def test_half_plane_and_its_conjugates_cover_the_plane(size):
  half = list(fourier.half_plane(*size))
  twins = [(-y, -x) for y, x in half]
  plane = {(y % size[0], x % size[1]) for y, x in half + twins}
  assert len(plane) == size[0] * size[1]
  alone = 2 ** sum(n % 2 == 0 for n in size)  # 0 and, if even, the highest
  assert 2 * len(half) == len(plane) + alone


@jax.tree_util.Partial
def detector(images):
  """Wrong where a wave of 2 cycles down and 1 across has an amplitude."""
  rows, columns = np.indices((8, 8)) / 8
  # The evaluator takes (-2, -1) of the pair: rows come in ascending order.
  wave = np.cos(np.pi / 4 - 2 * np.pi * (2 * rows + columns)) / 32**0.5
  seen = jnp.sum((images[..., 0] - 0.5) * wave, axis=(1, 2))
  return jnp.stack([jnp.ones_like(seen), 2 * seen, -2 * seen], axis=-1)


def test_linear_model_is_sensitive_to_its_own_frequency():
  images = np.full((40, 8, 8, 3), 128, np.uint8)
  labels = np.zeros(40, np.int32)
  key = jax.random.key(3)
  # 0.6 keeps every pixel in [0, 1]; the score is then 1.2 against 1.
  built = fourier.Evaluator(30, 0.6, 8)
  run, _ = found.collect(built, detector, images, labels, key)
  assert len(run.rows) == 34  # of 64 frequencies, 4 are their own twins
  assert {row.total for row in run.rows} == {30}
  wrong = [row for row in run.rows if row.correct_count < 30]
  (row,) = wrong
  assert row.correct_count == 0 and row.settings["wave_norm"] == 0.6
  y, x = row.settings["y"], row.settings["x"]
  assert (y, x) in ((2, 1), (-2, -1))
  built = fourier.Evaluator(99, 0.45, 16)
  weaker, _ = found.collect(built, detector, images, labels, key)
  assert {(r.correct_count, r.total) for r in weaker.rows} == {(40, 40)}


@jax.tree_util.Partial
def sign(images):
  """Encodes the signs of the channels' mean changes as one of eight classes."""
  up = jnp.mean(images, axis=(1, 2)) > 0.5
  return jax.nn.one_hot(up @ jnp.array([4, 2, 1]), 8)


def test_signs_are_random_and_independent_of_the_batch():
  images = np.full((400, 2, 2, 3), 128, np.uint8)
  counts = []
  for label in range(8):
    labels = np.full(400, label, np.int32)
    built = fourier.Evaluator(400, 1.0, (16, 400)[label % 2])
    run, _ = found.collect(built, sign, images, labels)
    counts.append(found.row(run, "fourier", y=0, x=0).correct_count)
  assert sum(counts) == 400  # the same signs, whatever the batch size
  # Binomial with p = 1/8: 50 +- 6.6; five deviations.
  assert min(counts) > 17 and max(counts) < 83


@pytest.mark.parametrize("fields", [(-1, 4.0), (1, 0.0), (1, float("nan"))])
def test_bad_fields(fields):
  with pytest.raises(ValueError, match="images is|norm is"):
    fourier.Evaluator(*fields, 8)


def test_no_images_gives_no_rows():
  run, _ = found.collect(fourier.Evaluator(0, 4.0, 8), None, None, None)
  assert run.rows == ()
