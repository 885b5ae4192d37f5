"""Motion blur equals ImageMagick 6's at given angles."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.corruptions import motion
from tests.corruptions import reference

# Made with ImageMagick 6.9.11-60 Q16, MagickMotionBlurImage, from CIFAR-10's
# first test images, each with the gray levels of another as a fourth channel
# (blurred alone), and from noise of 28x45; [radius, sigma, degrees].
GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "motion.npz")


def check(actual, reference):
  # ImageMagick's weights are doubles; those of ram_jax have 23 bits.
  difference = np.abs(np.asarray(actual, int) - reference)
  assert difference.max() <= 1
  assert np.mean(difference > 0) < 1e-4


@pytest.mark.parametrize("case", range(len(GOLDEN["parameters"])))
def test_blur_equals_imagemagick(case):
  radius, sigma, degrees = GOLDEN["parameters"][case]
  # With zeros at the end, as for all but the largest radius.
  path = motion.weights(int(radius), sigma, int(radius) + 1)
  actual = jax.jit(motion.blur)(GOLDEN["images"][case], degrees, path)
  check(actual, GOLDEN["blurred"][case])


def test_blur_equals_imagemagick_at_other_sizes_and_under_x64(x64):
  actual = jax.jit(motion.blur)(GOLDEN["odd"], -20, motion.weights(8, 2, 8))
  check(actual, GOLDEN["odd_blurred"])


def test_angles_are_drawn_from_45_degrees_on_both_sides():
  spot = jnp.zeros((33, 33, 3)).at[16, 16].set(1)
  keys = jax.random.split(jax.random.key(0), 400)
  blur = functools.partial(reference.corrupt_one, motion.motion_blur)
  blurred = jax.jit(jax.vmap(lambda key: blur(key, spot, 5)))(keys)
  blurred = np.asarray(blurred)[..., 0]
  assert not blurred[:, :, 17:].any()  # what lies on the right is taken
  # The fourth pixel of a path is 4 to the right below 7.2 and 3 above 28.9
  # degrees, and up or down alike.
  mirrored = blurred[:, :16].any(axis=(1, 2)), blurred[:, 17:].any(axis=(1, 2))
  up, down = (side.sum() for side in mirrored)
  assert abs(int(up) - int(down)) < 80  # four deviations of 400 coins
  rows = np.abs(np.argwhere(blurred[:, :, 12] > 0)[:, 1] - 16)
  assert set(rows) == {0, 1, 2, 3, 4}
