import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from ram_jax import losses

pytestmark = pytest.mark.usefixtures("quick_compilation")
DIVERGENCES = [losses.jensen_shannon, losses.clamped_jensen_shannon]


VALUE_AND_GRADIENT = jax.jit(
  lambda loss, z: jax.value_and_grad(lambda x: loss(*x).sum())(z),
  static_argnums=0,
)


def draw(*shape, scale=3.0, seed=0):
  return scale * np.random.default_rng(seed).normal(size=shape)


def softmax(z):
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def gradient(loss, *args):
  total = jax.jit(jax.grad(lambda x: jnp.sum(loss(*x))))
  return total(tuple(map(jnp.asarray, args)))


def differences(loss, z, h=2.0**-20):
  """Central differences of loss(z) in every entry of z."""
  out = np.zeros_like(z)
  for i in np.ndindex(z.shape):
    step = np.zeros_like(z)
    step[i] = h
    out[i] = (loss(z + step) - loss(z - step)).sum() / (2 * h)
  return out


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
def test_cross_entropy_and_its_gradient_equal_torch(x64, kind):
  torch = pytest.importorskip("torch")
  z, targets = draw(6, 10), np.arange(6)
  if kind == "probabilities":
    targets = softmax(draw(6, 10, seed=1))
  reference = torch.tensor(z, requires_grad=True)
  expected = torch.nn.functional.cross_entropy(
    reference, torch.tensor(targets), reduction="none"
  )
  expected.sum().backward()
  actual = losses.cross_entropy(jnp.asarray(z), jnp.asarray(targets))
  np.testing.assert_allclose(actual, expected.detach(), rtol=1e-12)
  grad = gradient(lambda x: losses.cross_entropy(x, jnp.asarray(targets)), z)
  np.testing.assert_allclose(grad[0], reference.grad, atol=1e-13)


def test_cross_entropy_by_hand():
  # Uniform over 4: log 4. Saturated and wrong: the logits' gap, 2e4.
  z = jnp.asarray([[0.0, 0, 0, 0], [1e4, -1e4, 0, 0]])
  actual = losses.cross_entropy(z, jnp.asarray([2, 1]))
  np.testing.assert_allclose(actual, [np.log(4), 2e4], rtol=1e-6)


def test_cross_entropy_gradient_of_saturated_logits_by_hand():
  # Wrong: softmax (1, 0, 0) less the target's (0, 1, 0). Right: nothing.
  z = jnp.asarray([[1e4, -1e4, 0.0]] * 2)
  value, grad = VALUE_AND_GRADIENT(
    lambda a: losses.cross_entropy(a, jnp.asarray([1, 0])), (z,)
  )
  assert value == 2e4
  np.testing.assert_array_equal(grad[0], [[1, -1, 0], [0, 0, 0]])


def test_correct_for_classes_and_probabilities():
  z = jnp.asarray([[0.0, 2, 1], [3, 2, 1], [0, 0, 1]])
  assert losses.correct(z, jnp.asarray([1, 1, 2])).tolist() == [1, 0, 1]
  p = jnp.asarray([[0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
  assert losses.correct(z, p).tolist() == [1, 0, 1]


def test_logits_that_are_not_finite_are_wrong():
  bad = [[jnp.nan, 2, 1], [jnp.inf, 2, 1], [3, -jnp.inf, 1], [3, 1, jnp.nan]]
  z = jnp.asarray([*bad, [3, 2, 1]])
  assert losses.correct(z, jnp.zeros(5, int)).tolist() == [0, 0, 0, 0, 1]


def test_jensen_shannon_of_two_equals_scipy(x64):
  a, b = draw(8, 10), draw(8, 10, seed=1)
  actual = losses.jensen_shannon(jnp.asarray(a), jnp.asarray(b))
  expected = distance.jensenshannon(softmax(a), softmax(b), axis=-1) ** 2
  np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("views", [2, 3, 5])
def test_jensen_shannon_is_entropy_of_mixture_less_mean_entropy(x64, views):
  z = draw(views, 8, 10, scale=10)
  p = softmax(z)
  expected = stats.entropy(p.mean(0), axis=-1) - stats.entropy(p, axis=-1).mean(
    0
  )
  actual = losses.jensen_shannon(*jnp.asarray(z))
  np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("loss", DIVERGENCES)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_divergence_gradient_equals_differences(x64, loss, scale):
  z = draw(3, 4, 5, scale=scale)
  # One view saturated to the last bit: its zeros must not disturb the others.
  # A power of two, so that the step is added to it without rounding.
  z[0] = 2.0**13 * np.sign(z[0])
  grad = gradient(lambda x: loss(*x), z)[0]
  expected = differences(jax.jit(lambda x: loss(*x)), z)
  np.testing.assert_allclose(grad, expected, atol=2e-9)


@pytest.mark.parametrize("loss", DIVERGENCES)
@pytest.mark.parametrize(
  ("rows", "expected"),
  [
    # Disjoint certainties: log n; equal ones, saturated or not: 0.
    ([[1e4, -1e4, -1e4], [-1e4, 1e4, -1e4]], np.log(2)),
    ([[1e4, 0, 0], [0, 1e4, 0], [0, 0, 1e4]], np.log(3)),
    ([[1e4, -1e4, 0], [1e4, -1e4, 0]], 0.0),
    ([[1.0, 2, 3], [11.0, 12, 13]], 0.0),
    # Certain against half and half: 3/4 log 4/3 + 1/4 log 2 ... by parts
    # KL((1,0)|M) = log 4/3, KL((1/2,1/2)|M) = 1/2 log 2/3 + 1/2 log 2.
    ([[1e4, 0, -1e4], [0, 0, -1e4]], (np.log(4 / 3) + np.log(4 / 3) / 2) / 2),
  ],
)
def test_divergences_by_hand_in_single_precision(loss, rows, expected):
  value, grad = VALUE_AND_GRADIENT(loss, np.asarray(rows)[:, None])
  np.testing.assert_allclose(value, expected, atol=3e-7)
  assert np.isfinite(grad).all()


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_clamped_jensen_shannon_equals_torch(x64, scale):
  torch = pytest.importorskip("torch")
  functional = torch.nn.functional
  z = draw(3, 8, 10, scale=scale)
  reference = torch.tensor(z, requires_grad=True)
  p = torch.softmax(reference, -1)
  mixture = torch.clamp(p.mean(0), 1e-7, 1).log().expand(3, -1, -1)
  expected = functional.kl_div(mixture, p, reduction="none").sum(-1).mean(0)
  expected.sum().backward()
  actual = losses.clamped_jensen_shannon(*jnp.asarray(z))
  np.testing.assert_allclose(actual, expected.detach(), rtol=1e-12, atol=1e-12)
  grad = gradient(lambda x: losses.clamped_jensen_shannon(*x), z)[0]
  np.testing.assert_allclose(grad, reference.grad, atol=1e-12)


def test_clamping_changes_the_divergence_only_below_its_floor(x64):
  flat, steep = draw(3, 8, 10), draw(3, 8, 10, scale=30)
  for z, close in ((flat, True), (steep, False)):
    a, b = (loss(*jnp.asarray(z)) for loss in DIVERGENCES)
    assert np.allclose(a, b, rtol=1e-12, atol=1e-12) == close


@pytest.mark.parametrize("loss", [*DIVERGENCES, losses.cross_entropy])
def test_losses_are_in_the_default_float_type(x64, loss):
  z = jnp.zeros((2, 3), jnp.bfloat16)
  second = jnp.zeros(2, int) if loss is losses.cross_entropy else z
  assert loss(z, second).dtype == jnp.float64
  text = str(jax.make_jaxpr(lambda x: gradient(loss, x, x))(jnp.zeros((2, 3))))
  assert "f32[" not in text


@pytest.mark.parametrize(
  "divergence", [losses.jensen_shannon, losses.clamped_jensen_shannon]
)
def test_weight_as_an_argument_gives_bit_identical_gradients(divergence):
  """12 is no power of two, so all factors of the gradient are rounded."""
  rng = np.random.default_rng(0)
  logits = [rng.normal(0, 5, (12, 10)).astype("f4") for _ in range(3)]

  def loss(logits, weight):
    return (logits[0].sum(-1) + weight * divergence(*logits)).mean()

  traced = jax.jit(jax.grad(loss))
  for weight in (12.0, 7.3, 0.1):
    constant = jax.jit(jax.grad(functools.partial(loss, weight=weight)))
    for a, b in zip(constant(logits), traced(logits, weight), strict=True):
      np.testing.assert_array_equal(a, b)
