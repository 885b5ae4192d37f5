"""Attacks may search in a lower precision; everything is judged in float32."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.attacks.pgd import Attack
from ram_jax.evaluation import adversarial, clean, precision, suite

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZE = 8
IMAGES = np.random.default_rng(0).random((SIZE, 4, 4, 3), np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(3, 3, 3, 5)).astype(np.float32)


@jax.tree_util.Partial
def model(images):
  """A convolution and a mean."""
  window = ("NHWC", "HWIO", "NHWC")
  found = jax.lax.conv_general_dilated(
    images, WEIGHTS, (1, 1), "SAME", dimension_numbers=window
  )
  return jnp.mean(found, (1, 2))


LABELS = np.array(jnp.argmax(model(IMAGES), -1), np.int32)


@pytest.mark.parametrize(
  ("platform", "default", "allowed"),
  [
    ("cpu", "float32", {"float32"}),
    ("gpu", "tensorfloat32", {"float32", "tensorfloat32"}),
    ("tpu", "float32", {"float32", "bfloat16_3x"}),
  ],
)
def test_choices_of_a_platform(monkeypatch, platform, default, allowed):
  monkeypatch.setattr(jax, "default_backend", lambda: platform)
  assert precision.resolve(None, "field") == default
  for name in (precision.FULL, *precision.PLATFORMS):
    if name in allowed:
      assert precision.resolve(name, "field") == name
    else:
      with pytest.raises(ValueError, match=f"field is {name!r}.*{platform!r}"):
        precision.resolve(name, "field")
  with pytest.raises(ValueError, match="field is 'bfloat16'"):
    precision.resolve("bfloat16", "field")


def convolutions(function, shared):
  """Precision of each convolution, in order, of one batch on one device."""
  batch = {"images": np.zeros(IMAGES.shape, np.uint8), "labels": LABELS}
  with jax.default_matmul_precision("highest"):
    made = jax.make_jaxpr(function.__wrapped__)(shared, jnp.arange(SIZE), batch)
  return re.findall(r"precision=\(?(?:Precision\.)?(\w+)", str(made))


@pytest.mark.parametrize(
  ("name", "searched"),
  [
    ("float32", "HIGHEST"),
    ("tensorfloat32", "HIGH"),
    ("bfloat16_3x", "HIGH"),
  ],
)
def test_programs_search_and_judge(name, searched):
  attack = Attack(0.5, 0.1, steps=2, unroll=True)
  shared = attack, jax.random.key(0), precision.Searched(model, name)
  # The step is shown once: its forward pass and its gradient.
  found = convolutions(adversarial.robust, shared)
  assert found == [searched, searched, "HIGHEST"]
  assert convolutions(clean.per_example, model) == ["HIGHEST"]


def test_unconfirmed_successes_are_searched_for_in_float32(monkeypatch):
  """Here, a low precision sees every image misclassified."""
  exact = precision.Searched.__call__

  def wrong(self, images):
    logits = exact(self, images)
    return logits if self.precision == precision.FULL else -logits

  monkeypatch.setattr(precision.Searched, "__call__", wrong)

  def outcome(name):
    ball = "apgd-ce", "l2", 1.5
    attacks = suite.Suite(
      model, jax.random.key(0), *ball, SIZE, True, precision=name
    )
    *_, last = attacks.run({"images": IMAGES, "labels": LABELS})
    return last

  low, full = outcome("tensorfloat32"), outcome("float32")
  assert 0 < full.correct.sum() < SIZE
  assert low.unconfirmed == full.unconfirmed == 0
  np.testing.assert_array_equal(low.correct, full.correct)
  np.testing.assert_array_equal(low.images, full.images)
