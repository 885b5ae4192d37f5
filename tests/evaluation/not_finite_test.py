"""Non-finite logits are misclassified and counted; JSON contains no NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.attacks.pgd import Attack
from ram_jax.evaluation import (
  adversarial,
  attack_checks,
  clean,
  fourier,
  rows,
)
from tests import found

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
  """Finite logits with probabilities whose logarithms are not finite."""
  return logits(jnp.full(len(images), 3e38))


def attacked(model, labels=LABELS, **fields):
  fields = {"steps": 2, "start": "none", "unroll": True} | fields
  attack = Attack(1.0, 1.0, **fields)
  evaluator = adversarial.Evaluator(attack, (0.0, 0.5), 0.5, 0, SIZE)
  return found.collect(evaluator, model, IMAGES, labels, KEY)[0]


@pytest.fixture(scope="module")
def fallen():
  return attacked(cliff, restarts=2)


def test_attack_succeeds_if_it_reaches_a_nan(fallen):
  unmoved, moved = fallen.rows
  assert unmoved.correct.all() and not unmoved.values
  assert not moved.correct.any()
  assert moved.values["not_finite"] == moved.total == SIZE


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_nan_gradient_does_not_make_images_nan(norm):
  for row in attacked(kink, LABELS + 1, norm=norm).rows:
    assert row.correct.all() and not row.values


@pytest.mark.parametrize(("model", "level"), [(kink, 102), (cliff, 200)])
def test_checks_name_gradients_that_are_nan(model, level):
  batch = {"images": np.full_like(IMAGES, level), "labels": LABELS}
  attack = Attack(1.0, 1.0)
  row, note = attack_checks.probe_model(attack, model, batch, SIZE)
  # NaN twice is no random network.
  assert row.values == {"zero_gradients": SIZE, "changed_logits": 0}
  text = note.text
  assert "of 8 of 8 clean images is zero (L2 norm below 1e-12) or not" in text


def test_waves_that_lead_to_nan_are_errors_and_counted():
  # Of the frequencies, 0 alone changes the mean, and up in half of the draws
  # of three signs.
  built = fourier.Evaluator(SIZE, 0.5, SIZE)
  run, _ = found.collect(built, cliff, IMAGES, LABELS, KEY)
  (row,) = (row for row in run.rows if row.correct_count < SIZE)
  assert (row.settings["y"], row.settings["x"]) == (0, 0)
  assert row.values == {"not_finite": SIZE - row.correct_count}


def clean_row(model, images):
  built = clean.Evaluator(SIZE)
  return found.collect(built, model, images, LABELS, KEY)[0].rows[0]


def test_clean_images_without_a_prediction():
  images = IMAGES.copy()
  images[:3] = 200
  row = clean_row(cliff, images)
  assert row.correct.tolist() == [False] * 3 + [True] * 5
  assert row.values == {"not_finite": 3}
  # A likelihood of 0 whose network is sound: the others are numbers.
  row = clean_row(steep, images)
  assert row.values.keys() == {"rms", "ece", "brier"}


def test_notes_say_how_many(fallen):
  images = IMAGES.copy()
  images[:3] = 200
  _, logits, calibration = rows.notes([clean_row(cliff, images), *fallen.rows])
  assert logits.text == (
    "images whose logits are not finite (NaN or infinite) count as "
    "misclassified: 3 of 8 images in clean, 8 of 8 images in adversarial"
  )
  text = "non-finite calibration values are left out: clean"
  assert calibration.text == text and calibration.level == "warning"
  (note,) = rows.notes([clean_row(kink, IMAGES), fallen.rows[0]])
  assert note.text.endswith("not AutoAttack")
