"""Snow, frost, fog and spatter equal the original's for given draws."""

import pathlib

import jax
import numpy as np
import pytest

from ram_jax.corruptions import spatter, weather
from tests.corruptions import reference

# The original's functions, given these draws (float16 numbers in place of
# NumPy's) on CIFAR-10 test images, one for each severity; OpenCV 5.0,
# scikit-image 0.26, SciPy 1.17, ImageMagick 6.9.11-60. `ice` is what frost cut
# out of its photographs.
GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "weather.npz")
SEVERITIES = [
  pytest.param(severity, marks=pytest.mark.slow)
  if severity in (2, 4)  # other parameters of the same branches
  else severity
  for severity in (1, 2, 3, 4, 5)
]
SIZE = (32, 32)
PICTURES = tuple(
  np.full(shape, 50 * i + 20, np.uint8)
  for i, shape in enumerate([(40, 60, 3), (63, 50, 3), (50, 33, 3)])
)


def given(name, severity):
  return GOLDEN[name][severity - 1].astype(np.float32)


def parameters(corruption, severity):
  return corruption.parameters(severity, (*SIZE, 3), PICTURES)


@jax.jit
def snow(levels, draws, degrees, chosen):
  layer = chosen["mean"] + chosen["std"] / np.float32(2**0.5) * draws
  layer = weather.snow_layer(layer, degrees, chosen)
  return weather.snow_cover(levels, layer, chosen["kept"])


def snowed(levels, severity):
  chosen = parameters(weather.snow, severity)
  # The draws of the original's smaller image come first.
  height, width = (axis["count"] for axis in chosen["sources"])
  top, left = (32 - height) // 2, (32 - width) // 2
  draws = given("noise", severity)[top : top + height, left : left + width]
  draws = np.resize(draws, SIZE)
  return snow(levels, draws, given("degrees", severity), chosen)


@jax.jit
def frost(levels, ice, kept, added):
  return weather.frost_cover(levels, ice, kept, added)


def frosted(levels, severity):
  kept, added = parameters(weather.frost, severity)["percent"]
  return frost(levels, GOLDEN["ice"][severity - 1], kept, added)


@jax.jit
def fog(levels, draws, decay, thickness):
  cloud = weather.plasma(draws, decay.value)
  return weather.fog_cover(levels, cloud, thickness)


def fogged(levels, severity):
  return fog(
    levels, given("plasma", severity), *parameters(weather.fog, severity)
  )


@jax.jit
def cover(levels, draws, chosen):
  draws = chosen["std"] / np.float32(2**0.5) * draws
  return spatter.cover(levels, draws, chosen)


def splash(levels, severity):
  chosen = parameters(spatter.spatter, severity)
  return cover(levels, given("noise", severity), chosen)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
  ("name", "function"),
  [
    ("snow", snowed),
    ("frost", frosted),
    ("fog", fogged),
    ("spatter", splash),
  ],
)
def test_equals_the_original_for_given_draws(name, function, severity):
  levels = GOLDEN["images"][severity - 1]
  actual = function(levels, severity)
  difference = np.abs(np.asarray(actual, int) - GOLDEN[name][severity - 1])
  # The original computes in doubles and truncates.
  assert difference.max() <= 1
  assert np.mean(difference > 0) < 1e-3


def test_water_without_a_drop_keeps_the_image():
  levels = GOLDEN["images"][0]
  dry = np.full(SIZE, -9, np.float32)
  chosen = parameters(spatter.spatter, 1)
  np.testing.assert_array_equal(cover(levels, dry, chosen), levels)


def iced(count, pictures):
  """Levels [count,H,W,3] of black images with frost, 20 % of the pictures'."""
  keys = jax.random.split(jax.random.key(0), count)
  black = np.zeros((count, *SIZE, 3), np.uint8)
  chosen = weather.frost.parameters(1, black.shape[1:], pictures)
  return np.asarray(reference.apply(weather.frost.apply, keys, black, chosen))


def test_frost_draws_pictures_uniformly():
  shades = iced(600, PICTURES).reshape(600, -1)
  assert (shades == shades[:, :1]).all()  # no window leaves its picture
  counts = [np.sum(shades[:, 0] == (50 * i + 20) // 5) for i in range(3)]
  assert sum(counts) == 600
  # Four standard deviations.
  assert max(abs(count - 200) for count in counts) < 47


def test_frost_draws_every_window():
  places = np.moveaxis(np.indices((36, 34, 1))[..., 0], 0, 2)  # (y, x, 0)
  windows = iced(100, (np.uint8(5 * places),)).astype(int)
  corners = windows[:, :1, :1]
  np.testing.assert_array_equal(windows, corners + places[:32, :32])
  found = np.unique(corners.reshape(-1, 3), axis=0)
  np.testing.assert_array_equal(found[:, :2], np.argwhere(np.ones((4, 2))))


def test_x64_does_not_change_drops_and_flakes(x64):
  levels = GOLDEN["images"][0]
  for function, name in [(snowed, "snow"), (splash, "spatter")]:
    actual = function(levels, 1)
    np.testing.assert_array_equal(actual, GOLDEN[name][0])
