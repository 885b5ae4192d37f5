"""Noises have the same probabilities as NumPy's, and draw from them."""

import jax
import numpy as np
import pytest

from ram_jax.corruptions import noise
from tests.corruptions import reference

DRAWS = 40_000
LEVELS = (0, 1, 60, 128, 250, 255)
RNG = np.random.default_rng(0)


def gaussian(values, deviation):
  return values + RNG.normal(0, deviation, values.shape)


def shot(values, photons):
  return RNG.poisson(values * photons) / photons


def impulse(values, share):
  hit = RNG.random(values.shape) < share
  return np.where(hit, RNG.random(values.shape) < 0.5, values)


def speckle(values, deviation):
  return values * (1 + RNG.normal(0, deviation, values.shape))


# The weakest and the strongest of each.
NOISES = [
  (noise.gaussian_probabilities, gaussian, 0.04),
  (noise.gaussian_probabilities, gaussian, 0.10),
  (noise.shot_probabilities, shot, 500),
  (noise.shot_probabilities, shot, 50),
  (noise.impulse_probabilities, impulse, 0.01),
  (noise.impulse_probabilities, impulse, 0.07),
  (noise.speckle_probabilities, speckle, 0.06),
  (noise.speckle_probabilities, speckle, 0.20),
]


def shares(levels):
  """Fraction of each of the 256 pixel values in each row."""
  return np.stack([np.bincount(row, minlength=256) for row in levels]) / DRAWS


def check(found, probabilities):
  """Agreement within five standard errors, or three counts if there are few."""
  allowed = 5 * np.sqrt(probabilities / DRAWS) + 3 / DRAWS
  assert (np.abs(found - probabilities) <= allowed).all()


@pytest.mark.parametrize(("probabilities", "numpy_noise", "parameter"), NOISES)
def test_probabilities_and_draws_equal_numpy(
  probabilities, numpy_noise, parameter
):
  wanted = probabilities(parameter)
  assert wanted.min() >= 0
  np.testing.assert_allclose(wanted.sum(axis=1), 1, atol=1e-12)
  levels = np.repeat(np.array(LEVELS)[:, None], DRAWS, axis=1)
  reference = np.clip(numpy_noise(levels / 255, parameter), 0, 1) * 255
  check(shares(reference.astype(int)), wanted[list(LEVELS)])
  table = noise.alias_table(probabilities, parameter)
  actual = jax.jit(noise.replace)(jax.random.key(1), np.uint8(levels), table)
  check(shares(np.asarray(actual)), wanted[list(LEVELS)])


@pytest.mark.parametrize(("probabilities", "_", "parameter"), NOISES)
def test_alias_table_has_all_probabilities(probabilities, _, parameter):
  table = noise.alias_table(probabilities, parameter).astype(np.int64)
  threshold, other = (table >> 8) / 2**24 / 256, table & 255
  held = threshold.copy()
  rows = np.broadcast_to(np.arange(256)[:, None], other.shape)
  np.add.at(held, (rows, other), 1 / 256 - threshold)
  # 256 columns, each of which rounds to 2^-32, or is cut by twice that.
  np.testing.assert_allclose(held, probabilities(parameter), atol=256 * 2**-31)


@pytest.mark.parametrize(
  ("function", "deviations"),
  [
    (noise.gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    (noise.shot_noise, 0.5**0.5 / np.sqrt((500, 250, 100, 75, 50))),
    (noise.impulse_noise, 0.5 * np.sqrt((0.01, 0.02, 0.03, 0.05, 0.07))),
    (noise.speckle_noise, 0.5 * np.array((0.06, 0.10, 0.12, 0.16, 0.20))),
  ],
)
def test_severities_on_gray(function, deviations):
  image = np.full((64, 64, 3), np.float32(128 / 255))
  for severity, deviation in enumerate(deviations, 1):
    found = reference.corrupt_one(
      function, jax.random.key(severity), image, severity
    )
    # 12,288 values: four standard errors are 2.6 %, of salt and pepper 15 %.
    tolerance = 0.15 if function is noise.impulse_noise else 0.026
    np.testing.assert_allclose(np.std(found), deviation, rtol=tolerance)
