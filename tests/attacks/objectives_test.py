import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.attacks import objectives

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(64, 7))
LABELS = np.arange(64) % 7
TARGETS = (LABELS + 1 + np.arange(64) // 7 % 6) % 7


def by_hand(name, z, y, t):
  """The formulas of arXiv 2003.01690, one example at a time."""
  ranked = sorted(z, reverse=True)
  other = max(value for k, value in enumerate(z) if k != y)
  return {
    "margin": other - z[y],
    "dlr": -(z[y] - other) / (ranked[0] - ranked[2]),
    "targeted_dlr": -(z[y] - z[t]) / (ranked[0] - (ranked[2] + ranked[3]) / 2),
  }[name]


def call(name, logits, labels=LABELS, targets=TARGETS):
  more = [targets] if name == "targeted_dlr" else []
  function = getattr(objectives, name)
  return function(jnp.asarray(logits), *map(jnp.asarray, (labels, *more)))


@pytest.mark.parametrize("name", ["margin", "dlr", "targeted_dlr"])
def test_equals_the_formula(x64, name):
  rows = zip(LOGITS, LABELS, TARGETS, strict=True)
  expected = [by_hand(name, *row) for row in rows]
  np.testing.assert_allclose(call(name, LOGITS), expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_above_zero_where_misclassified(x64, name):
  wrong = LOGITS.argmax(1) != LABELS
  np.testing.assert_array_equal(call(name, LOGITS) > 0, wrong)


@pytest.mark.parametrize("name", ["dlr", "targeted_dlr"])
def test_scale_and_shift_of_the_logits_change_nothing(x64, name):
  expected = call(name, LOGITS)
  found = call(name, 1000 * LOGITS - 5)
  np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["margin", "dlr", "targeted_dlr"])
@pytest.mark.parametrize("value", [0.0, 1e4])
def test_equal_logits_have_finite_values_and_gradients(name, value):
  logits = jnp.full((64, 7), value)
  gradient = jax.grad(lambda z: call(name, z).sum())(logits)
  assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(call(name, logits), 0)


@pytest.mark.parametrize(
  ("name", "least"), [("margin", 2), ("dlr", 3), ("targeted_dlr", 4)]
)
def test_too_few_classes(name, least):
  zeros = np.zeros(64, int)
  assert call(name, LOGITS[:, :least], zeros, zeros).shape == (64,)
  words = f"{name}' needs at least {least} classes"
  with pytest.raises(ValueError, match=words):
    call(name, LOGITS[:, : least - 1], zeros, zeros)


@pytest.mark.parametrize("targets", [LOGITS, LABELS / 1.0, LABELS[:2]])
def test_targets_that_are_not_labels(targets):
  with pytest.raises(ValueError, match="needs integer classes"):
    call("dlr", LOGITS, targets)
