"""Logits that are not finite: wrong everywhere, counted, and no NaN in JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import standard
from ram_jax import experiment
from ram_jax.attacks.pgd import Attack
from ram_jax.evaluation import (
  adversarial,
  attack_checks,
  clean,
  correctness,
  fourier,
)
from ram_jax.evaluation import loop as evaluate

SIZE = 8
# Grey images, all of class 0 for `cliff`.
IMAGES = np.full((SIZE, 4, 4, 3), 102, np.uint8)
LABELS = np.zeros(SIZE, np.int32)
KEY = jax.random.key(0)


def logits(score):
  return jnp.stack([-score, score], axis=-1)


@jax.tree_util.Partial
def cliff(images):
  """Class 0, and NaN above a mean of 0.41; the images' is 0.4."""
  mean = jnp.mean(images, axis=(1, 2, 3))
  return logits(jnp.where(mean > 0.41, jnp.nan, mean - 1))


@jax.tree_util.Partial
def kink(images):
  """Class 1 at every image, with a gradient that is NaN."""
  return logits(jnp.sqrt(0 * jnp.mean(images, axis=(1, 2, 3))) + 1)


@jax.tree_util.Partial
def steep(images):
  """Logits that are finite, of probabilities whose logarithms are not."""
  return logits(jnp.full(len(images), 3e38))


def attacked(model, labels=LABELS, **fields):
  fields = {"steps": 2, "start": "none", "unroll": True} | fields
  attack = Attack(1.0, 1.0, **fields)
  evaluator = adversarial.Evaluator(attack, (0.0, 0.5), 0.5, 0, SIZE)
  return evaluator.run(model, IMAGES, labels, KEY)


@pytest.fixture(scope="module")
def fallen():
  return attacked(cliff, restarts=2)


def test_attack_that_reaches_a_nan_has_succeeded(fallen):
  unmoved, moved = fallen["by_epsilon"]
  assert unmoved["correct"].all() and "not_finite" not in unmoved
  assert not moved["correct"].any()
  assert moved["not_finite"] == moved["total"] == SIZE


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_gradient_that_is_nan_makes_no_image_nan(norm):
  for row in attacked(kink, LABELS + 1, norm=norm)["by_epsilon"]:
    assert row["correct"].all() and "not_finite" not in row


@pytest.mark.parametrize(("model", "level"), [(kink, 102), (cliff, 200)])
def test_checks_name_gradients_that_are_nan(model, level):
  batch = {"images": np.full_like(IMAGES, level), "labels": LABELS}
  numbers, [text] = attack_checks.probe_model(model, batch, SIZE)
  # NaN twice is no random network.
  assert numbers == {"zero_gradients": SIZE, "changed_logits": 0}
  assert "of 8 of 8 clean images is zero (L2 norm below 1e-12) or not" in text


def test_waves_that_lead_to_nan_are_errors_and_counted():
  # Of the frequencies, 0 alone changes the mean, and up in half of the draws
  # of three signs.
  found = fourier.Evaluator(SIZE, 0.5, SIZE).run(cliff, IMAGES, LABELS, KEY)
  wrong = np.array(found["wrong"])
  assert 0 < wrong[2, 2] == found["not_finite"] <= SIZE
  assert wrong.sum() == wrong[2, 2]


def test_clean_images_without_a_prediction():
  images = IMAGES.copy()
  images[:3] = 200
  found = clean.Evaluator(SIZE).run(cliff, images, LABELS, KEY)
  assert found["correct"].tolist() == [False] * 3 + [True] * 5
  assert found["not_finite"] == 3 and found["calibration"] == {}
  # A likelihood of 0 whose network is sound: the others are numbers.
  found = clean.Evaluator(SIZE).run(steep, images, LABELS, KEY)
  assert "not_finite" not in found
  assert found["calibration"].keys() == {"rms", "ece", "brier"}


def test_notes_say_how_many(fallen):
  images = IMAGES.copy()
  images[:3] = 200
  measured = {
    "clean": clean.Evaluator(SIZE).run(cliff, images, LABELS, KEY),
    "adversarial": fallen,
  }
  results = {n: correctness.counted(x, n, {}) for n, x in measured.items()}
  config = experiment.resolve(standard.get_config("dataset=digits"))
  notes = evaluate.notes(config, results)
  assert (
    "the network's logits are not finite (NaN or infinite), which counts as "
    "wrong: 3 of 8 images in clean, 8 of 8 images in adversarial"
  ) in notes
  assert "calibration that is not finite is left out: clean" in notes
  json.dumps(results, allow_nan=False)
