"""All 29 corruptions give the same image however they are called."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax import corruptions
from tests.corruptions import reference

NAMES = tuple(corruptions.EVERY)
CERTAIN = {
  "defocus_blur",
  "zoom_blur",
  "gaussian_blur",
  "brightness",
  "contrast",
  "pixelate",
  "jpeg_compression",
  "saturate",
  "circular_motion_blur",
}


def some(names, *chosen):
  """All names, of which only the chosen ones are not slow."""
  slow = pytest.mark.slow
  return [n if n in chosen else pytest.param(n, marks=slow) for n in names]


@functools.cache
def photographs(name):
  if name != "frost":
    return None
  rng = np.random.default_rng(9)
  sizes = ((99, 120), (130, 97), (100, 100), (97, 98), (110, 105))
  return tuple(rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes)


def batch(height, width):
  """Black, white, noise and a ramp of colors: floats [4,H,W,3]."""
  rng = np.random.default_rng(height)
  levels = np.zeros((4, height, width, 3))
  levels[1] = 255
  levels[2] = rng.integers(0, 256, levels[2].shape)
  levels[3, ..., 0] = np.linspace(0, 255, width)
  levels[3, ..., 1] = np.linspace(200, 0, height)[:, None]
  return jnp.asarray(np.floor(levels) / 255, jnp.float32)


def keys(seed):
  return jax.random.split(jax.random.key(seed), 4)


def levels(images):
  return np.round(255 * np.asarray(images)).astype(int)


# All tests that can share compiled programs use one size and severity. One side
# is odd, neither is a multiple of a JPEG block, and the sides differ.
SIZE = (33, 28)
SEVERITY = 5


# Of CIFAR-10-C-bar, those with random fields, rays and rotations.
@pytest.mark.parametrize(
  "name",
  [
    *corruptions.CORRUPTIONS,
    *some(
      corruptions.C_BAR,
      "checkerboard_cutout",
      "sparkles",
      "circular_motion_blur",
    ),
  ],
)
def test_same_under_vmap_jit_and_loop_and_in_any_batch(name):
  images, assets = batch(*SIZE), photographs(name)
  call = functools.partial(reference.corrupt, name, SEVERITY, assets=assets)
  together = levels(call(keys(0), images))
  turned = call(keys(0)[::-1], images[::-1])
  np.testing.assert_array_equal(levels(turned)[::-1], together)
  # Here, the parameters are constants of the program.
  one = functools.partial(
    reference.corrupt_one,
    corruptions.EVERY[name],
    severity=SEVERITY,
    assets=assets,
  )
  loop = [jax.jit(one)(*pair) for pair in zip(keys(0), images, strict=True)]
  np.testing.assert_array_equal(levels(loop), together)


@pytest.mark.parametrize("name", some(NAMES, "impulse_noise", "saturate"))
def test_eager_equals_jit(name):
  images, assets = batch(*SIZE), photographs(name)
  together = reference.corrupt(name, SEVERITY, keys(0), images, assets=assets)
  function = corruptions.EVERY[name]
  alone = reference.corrupt_one(
    function, keys(0)[2], images[2], SEVERITY, assets
  )
  differences = np.abs(levels(alone) - levels(together)[2])
  # On some processors, float32 powers are rounded differently outside of a
  # compiled program: 3 of 2772 values changed by a level.
  in_floats = name == "inverse_sparkles"
  assert differences.max() <= in_floats and np.mean(differences > 0) < 0.002


def check_gray_levels_by_key(name, size, severity):
  images = batch(*size)
  call = functools.partial(
    reference.corrupt, name, severity, assets=photographs(name)
  )
  first = np.asarray(call(keys(1), images))
  assert first.shape == images.shape and first.dtype == np.float32
  assert first.min() >= 0 and first.max() <= 1  # not so for NaN
  # On some CPUs, XLA multiplies by the reciprocal, which rounds once more.
  gray = np.float32(levels(first)) / 255
  np.testing.assert_allclose(first, gray, rtol=0, atol=6e-8)
  np.testing.assert_array_equal(call(keys(1), images), first)
  other = np.asarray(call(keys(2), images))
  same = [(a == b).all() for a, b in zip(first[2:], other[2:], strict=True)]
  assert same == [name in CERTAIN] * 2
  assert (first[2] != images[2]).any()


@pytest.mark.parametrize("name", NAMES)
def test_gray_levels_by_key(name):
  check_gray_levels_by_key(name, SIZE, SEVERITY)


# Severity 1 of elastic_transform takes a different branch.
@pytest.mark.parametrize("name", some(NAMES, "elastic_transform"))
def test_gray_levels_by_key_of_large_images(name):
  check_gray_levels_by_key(name, (96, 96), 1)


def test_one_and_four_devices_agree():
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
  across = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
  spread = jax.device_put((keys(3), batch(*SIZE)), across)
  for name in ("shot_noise", "elastic_transform"):
    call = functools.partial(reference.corrupt, name, SEVERITY, assets=None)
    many = call(*spread).block_until_ready()
    assert len(many.sharding.device_set) == 4
    one = call(keys(3), batch(*SIZE))
    np.testing.assert_array_equal(many, one)


def test_x64_gives_the_same_images(x64):
  images = batch(*SIZE)
  for name in ("gaussian_noise", "glass_blur", "zoom_blur", "saturate"):
    call = functools.partial(reference.corrupt, name, SEVERITY, assets=None)
    many = call(keys(4), images)
    assert many.dtype == jnp.float32
    with jax.enable_x64(False):
      one = call(keys(4), images)
    np.testing.assert_array_equal(many, one)


def test_names_are_in_one_set_and_those_of_cifar_c_in_one_category():
  assert NAMES[:19] == corruptions.NAMES and len(NAMES) == 29
  assert (len(corruptions.BENCHMARK), len(corruptions.EXTRA)) == (15, 4)
  assert NAMES[:19] == corruptions.BENCHMARK + corruptions.EXTRA
  sorted_ = sum(corruptions.CATEGORIES.values(), ())
  assert sorted(sorted_) == sorted(NAMES[:19])
  assert sum(corruptions.SETS.values(), ()) == NAMES
