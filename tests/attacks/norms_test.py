import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ram_jax.attacks.norms import NORMS

pytestmark = pytest.mark.usefixtures("quick_compilation")
EVERY = [(norm, start) for norm in NORMS for start in NORMS[norm].starts]


def length(norm, x):
  """Norm of each example, by numpy in double precision."""
  order = {"l2": 2, "linf": np.inf}[norm]
  flat = np.asarray(x, np.float64).reshape(len(x), -1)
  return np.linalg.norm(flat, order, axis=1)


@functools.cache
def draws(norm, start, count=4000, shape=(2, 2, 1)):
  keys = jax.random.split(jax.random.key(0), count)
  draw = NORMS[norm].starts[start]
  made = jax.jit(jax.vmap(lambda k: draw(k, shape, jnp.result_type(float))))(
    keys
  )
  return np.asarray(made, np.float64).reshape(count, -1)


def test_projection_by_hand():
  delta = jnp.asarray([[3.0, 4.0], [0.3, -0.4]])
  actual = NORMS["l2"].project(delta, 1.0)
  np.testing.assert_allclose(actual, [[0.6, 0.8], [0.3, -0.4]], rtol=2e-6)
  actual = NORMS["linf"].project(delta, 0.35)
  np.testing.assert_allclose(actual, [[0.35, 0.35], [0.3, -0.35]], rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 0.1, 1.0, 8.0])
def test_projection_is_inside_and_keeps_points_inside(norm, epsilon):
  delta = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)))
  once = NORMS[norm].project(delta, epsilon)
  assert (length(norm, once) <= np.float32(epsilon)).all()
  # 8 roundings of float32 inside, and as much again for the norm's own.
  np.testing.assert_allclose(
    length(norm, once), np.minimum(epsilon, length(norm, delta)), rtol=3e-6
  )
  np.testing.assert_allclose(
    NORMS[norm].project(once, epsilon), once, rtol=2e-6
  )


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_direction_has_length_one_whatever_the_scale(scale):
  gradient = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)))
  expected = np.asarray(gradient, np.float64)
  expected /= length("l2", gradient).reshape(-1, 1, 1, 1)
  actual = NORMS["l2"].direction(gradient * scale)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)
  actual = NORMS["linf"].direction(gradient * scale)
  np.testing.assert_array_equal(actual, np.sign(gradient))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("tiny", [0.0, 1e-45])
def test_direction_of_a_zero_gradient_is_zero(norm, tiny):
  actual = NORMS[norm].direction(jnp.full((2, 4, 4, 1), tiny))
  assert np.isfinite(actual).all()
  if tiny == 0:
    assert not actual.any()


@pytest.mark.parametrize(("norm", "start"), EVERY)
def test_starts_are_where_their_name_says(norm, start):
  size = length(norm, draws(norm, start))
  if start == "none":
    assert not size.any()
  elif start == "sphere":
    np.testing.assert_allclose(size, 1, rtol=1e-6)
  else:
    # Uniform in a ball of d dimensions: size to the power d is uniform.
    assert size.max() <= 1 + 1e-6
    assert stats.kstest(size**4, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
  ("norm", "start", "square"),
  [
    # E x_i^2: 1 / d on the sphere, 1 / (d + 2) in the ball, 1/3 in the box, and
    # on the box's surface (1 + (d - 1) / 3) / d. Here d = 4.
    ("l2", "sphere", 1 / 4),
    ("l2", "uniform", 1 / 6),
    ("linf", "uniform", 1 / 3),
    ("linf", "sphere", 1 / 2),
  ],
)
def test_moments_of_starts(norm, start, square):
  x = draws(norm, start)
  # Five standard errors of 4000 draws; x_i^2 has a deviation below 0.4.
  np.testing.assert_allclose(x.mean(0), 0, atol=5 * np.sqrt(square / 4000))
  np.testing.assert_allclose((x**2).mean(0), square, atol=0.03)
  correlation = np.corrcoef(x.T) - np.eye(4)
  assert abs(correlation).max() < 5 / np.sqrt(4000)
