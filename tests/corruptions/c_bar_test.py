"""CIFAR-10-C-bar equals the original for given draws, and SciPy."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from ram_jax import corruptions
from ram_jax.corruptions import c_bar
from tests.corruptions import reference

FOLDER = pathlib.Path(__file__).parent / "golden"
# Every second row of the original's images for the given draws, one image for
# each severity; NumPy 1.23, SciPy 1.9, scikit-image 0.20. `NAME.x` are the
# numbers that it drew; a seed is that of its RandomState for further ones.
GOLDEN = np.load(FOLDER / "c_bar.npz")
with np.load(FOLDER / "weather.npz") as file:
  IMAGES = file["images"]
SIZE = (32, 32)
# Fraction of values that differ, by one level: the original rounds in float32
# before it truncates, and either way to whole levels; others differ by
# rounding errors of float32 here.
DIFFERENT = {
  "pinch_and_twirl": 5e-3,
  "circular_motion_blur": 1e-3,
  "transverse_chromatic_abberation": 1e-2,
}


def drawn(name, severity):
  """The original's numbers, and its generator for further ones."""
  found = {
    key.split(".")[1]: value[severity - 1]
    for key, value in GOLDEN.items()
    if key.startswith(f"{name}.")
  }
  return found, np.random.RandomState(found.pop("seed", 0))


def noise(rng, power):
  phases = rng.uniform(0, 2 * np.pi, (32, 16)).T.ravel()
  return c_bar.noise_from_phases(jnp.asarray(phases), power)


def blue_noise_sample(levels, threshold, rng):
  mask = noise(rng, c_bar.radius(*SIZE)) > threshold
  return levels * mask[..., None]


def brownish_noise(levels, std, rng):
  power = 1 / (c_bar.radius(*SIZE) ** 2 + 1)
  return levels + std * jnp.stack([noise(rng, power) for _ in range(3)], -1)


def checkerboard_cutout(levels, fraction, rng, angle, scales):
  count = int(4 * 32 // scales[0])
  cut = rng.uniform(size=(count, count)) < fraction
  # Of 41 positions, those beyond `count` are outside the image.
  places = np.r_[0:21, -20:0]
  places *= abs(places) < count
  hidden = c_bar.cut_squares(
    cut[np.ix_(places, places)], angle, scales[0], SIZE
  )
  return jnp.where(hidden[..., None], 128, levels)


def ray_lengths(rng, count, radius):
  lengths = np.full(200, np.nan)  # those that are not drawn are not used
  lengths[:count] = radius + 0.25 * radius * rng.standard_normal(count)
  return lengths


def inverse_sparkles(levels, exponent, rng, center, rays):
  lengths = jnp.asarray(ray_lengths(rng, rays, 8))
  kept = c_bar.light(center, rays, lengths, exponent, SIZE)[..., None]
  return 255 - (255 - levels) * kept


def sparkles(levels, radius, rng, centers, nrays):
  for center, count in zip(centers, nrays, strict=True):
    lengths = jnp.maximum(ray_lengths(rng, count, radius), 1)
    light = c_bar.light(center, count, lengths, 1, SIZE)[..., None]
    levels = 255 - (255 - levels) * (1 - light)
  return levels


def lines(levels, count, rng, angle, angle_variation):
  row, column, turn = rng.uniform(size=(int(count), 3)).T
  angle = angle + 2 * np.pi * angle_variation * (turn - 0.5)
  middle = 32 * np.stack([row, column], axis=1)
  half = 32 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  ends = np.stack([middle - half, middle + half], axis=1)
  # One line more, which is not drawn.
  ends = jnp.asarray(np.append(ends, [[[0, 0], [9, 9]]], axis=0))
  return c_bar.draw_lines(levels, ends, jnp.arange(len(ends)) < len(row))


def pinch_and_twirl(levels, sources, rng, angles):
  return c_bar.twirl(levels, jnp.asarray(angles.T < 0), jnp.asarray(sources))


def ripple(levels, amplitude, rng, wavelengths, phases):
  return c_bar.waver(levels, amplitude, wavelengths, phases)


def circular_motion_blur(levels, parameters, rng):
  return c_bar.blur(levels, jax.tree.map(jnp.asarray, parameters)) + 2e-4


def transverse_chromatic_abberation(levels, zooms, rng, scales):
  return c_bar.enlarge(levels, np.argsort(np.argsort(scales)), zooms)


def difference(name, severity, dtype=np.float32):
  levels = jnp.asarray(IMAGES[severity - 1], dtype)
  chosen = corruptions.C_BAR[name].parameters(severity, (*SIZE, 3), None)
  numbers, rng = drawn(name, severity)
  made = globals()[name](levels, chosen, rng, **numbers)
  made = np.clip(made, 0, 255).astype(np.uint8)[::2]
  return np.abs(made.astype(int) - GOLDEN[name][severity - 1])


@pytest.mark.parametrize("name", corruptions.C_BAR)
def test_equals_the_original_for_given_draws(name):
  found = np.stack([difference(name, s) for s in range(1, 6)])
  assert found.max() <= 1
  assert np.mean(found > 0) <= DIFFERENT.get(name, 5e-4)


@pytest.mark.parametrize("name", sorted(set(corruptions.C_BAR) - {*DIFFERENT}))
def test_is_identical_to_the_original_in_float64(name, x64):
  assert difference(name, 3, np.float64).max() == 0


def image(height, width):
  rng = np.random.default_rng(height)
  return rng.integers(0, 256, (height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [(32, 32), (130, 120)])
def test_ripple_equals_scipys_interpolation(size, x64):
  # In the larger image, shifts by up to 4 pixels reach beyond the border.
  levels, amplitude = image(*size).astype(float), size[0] / 32
  lengths, phases = np.array([21.0, 17.0]), np.array([0.3, 2.0])
  made = c_bar.waver(jnp.asarray(levels), amplitude, lengths, phases)
  places = np.moveaxis(np.mgrid[: size[0], : size[1]].astype(float), 0, -1)
  places += amplitude * np.sin(2 * np.pi * places / lengths + phases)
  for channel in range(3):
    want = scipy.ndimage.map_coordinates(
      levels[..., channel],
      np.moveaxis(places, -1, 0),
      order=1,
      mode="grid-constant",
    )
    np.testing.assert_allclose(made[..., channel], want, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (8, 40), (11, 10), (32, 32)])
def test_discs_are_three_along_the_smaller_side(size):
  diameter, counts = c_bar._discs(size)
  assert counts[int(np.argmin(size))] == 3
  assert all(n * diameter <= side for n, side in zip(counts, size, strict=True))


def test_circular_motion_blur_averages_scipys_rotations():
  levels = image(20, 27)
  turns = np.linspace(-1, 1, 21)
  weights = np.exp(-2 * turns**2)
  turned = [
    scipy.ndimage.rotate(levels.astype(float), 9 * turn, reshape=False)
    for turn in turns
  ]
  wanted = np.einsum("i,i...->...", weights / weights.sum(), turned)
  parameters = c_bar.circular_motion_blur.parameters(5, levels.shape, None)
  actual = c_bar.blur(levels, jax.tree.map(jnp.float32, parameters))
  np.testing.assert_allclose(actual, wanted, rtol=0, atol=3e-4)


def test_aberration_enlarges_like_scipy():
  levels = image(21, 26)
  zooms = c_bar.transverse_chromatic_abberation.parameters(4, levels.shape)
  order = (2, 0, 1)
  actual = c_bar.enlarge(levels, np.array(order), zooms)
  for channel, factor in enumerate(np.array([1, 1.225, 1.45])[list(order)]):
    part = levels[..., channel].astype(float)
    zoomed = scipy.ndimage.zoom(part, factor, prefilter=False)
    edges = (np.array(zoomed.shape) - part.shape) // 2
    middle = zoomed[edges[0] :, edges[1] :][: part.shape[0], : part.shape[1]]
    # Halves may be rounded either way.
    assert np.abs(actual[..., channel] - middle).max() <= 0.5002


def test_noise_has_the_standard_deviation_of_its_severity():
  keys = jax.random.split(jax.random.key(0), 40)
  gray = jnp.full((40, *SIZE, 3), jnp.float32(128 / 255))
  made = np.round(255 * reference.corrupt("brownish_noise", 1, keys, gray))
  # Exact for every image and channel, up to truncation.
  np.testing.assert_allclose(made.std(axis=(1, 2)), 16, atol=0.1)
  cut = reference.corrupt("checkerboard_cutout", 5, keys, 0 * gray)
  # Half of the black squares; they vary in number.
  assert abs(np.mean(cut > 0) - 0.25) < 0.02


def test_lines_grow_with_severity_and_keep_the_center_gray():
  black = jnp.zeros((1, *SIZE, 3))
  keys = jax.random.split(jax.random.key(1), 1)
  made = [reference.corrupt("lines", s, keys, black) for s in (1, 2, 3, 4, 5)]
  counts = [int(np.sum(x > 0)) for x in made]
  assert counts == sorted(counts) and counts[0] > 3 * 10
  assert max(float(x.max()) for x in made) <= np.float32(128 / 255)
