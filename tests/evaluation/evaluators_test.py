"""Evaluators: exact counts for any batch size and number of devices."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax import keys as keys_lib
from ram_jax import parallel, plugins
from ram_jax.attacks.pgd import Attack
from ram_jax.contracts import Row
from ram_jax.evaluation import adversarial, clean
from ram_jax.evaluation import rows as evaluation_rows
from tests import found

pytestmark = pytest.mark.usefixtures("quick_compilation")
SIZE = 21  # not a multiple of any batch below
LOGITS = jax.jit(lambda model, images: model(images))
ATTACKED = jax.jit(
  lambda attack, keys, images, labels, model: model(
    attack(keys, images, labels, model)
  )
)


@flax.struct.dataclass
class Network:
  """Two layers that compile fast."""

  first: jax.Array
  second: jax.Array

  def __call__(self, images):
    pixels = images.reshape(len(images), -1) - 0.5
    return jnp.tanh(pixels @ self.first) @ self.second


@pytest.fixture(scope="module")
def model():
  rng = np.random.default_rng(0)
  # So large that small attacks change some predictions and not all.
  first, second = rng.normal(size=(192, 16)), rng.normal(size=(16, 10))
  layers = jnp.asarray(first / 4), jnp.asarray(second)
  return parallel.replicate(Network(*layers))


@pytest.fixture(scope="module")
def data(model):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (SIZE, 8, 8, 3), np.uint8)
  logits = np.asarray(LOGITS(model, jnp.asarray(images / 255, jnp.float32)))
  labels = logits.argmax(-1).astype(np.int32)
  labels[:5] = (labels[:5] + 1) % 10  # five wrong ones
  return images, labels


@pytest.mark.parametrize("batch_size", [4, 16, 32])
def test_clean_counts_every_example_once(model, data, batch_size):
  run, _ = found.collect(clean.Evaluator(batch_size), model, *data)
  row = found.row(run, "clean")
  assert row.correct.tolist() == [False] * 5 + [True] * (SIZE - 5)
  assert (row.correct_count, row.total) == (SIZE - 5, SIZE)
  assert set(row.values) == {"rms", "ece", "nll", "brier"}


def evaluator(batch_size, epsilons=(0.0, 0.3, 8.0)):
  attack = Attack(1.0, 1.0, steps=3, start="sphere")
  return adversarial.Evaluator(attack, epsilons, 2.5 / 7, 0, batch_size)


def test_adversarial_counts_are_those_of_the_attack_by_hand(model, data):
  images, labels = data
  key = jax.random.key(4)
  run, _ = found.collect(evaluator(8), model, images, labels, key)
  rows = found.rows(run, "adversarial", attack="PGD-3", norm="l2")
  keys = keys_lib.per_example(key, jnp.arange(SIZE))
  floats = jnp.asarray(images, jnp.float32) / 255
  for row in rows:
    epsilon = row.settings["epsilon"]
    attack = Attack(epsilon, epsilon * 2.5 / 7, steps=3, start="sphere")
    logits = ATTACKED(attack, keys, floats, labels, model)
    wanted = np.asarray(logits).argmax(-1) == labels
    np.testing.assert_array_equal(row.correct, wanted)
    assert row.total == SIZE
  counts = [row.correct_count for row in rows]
  assert counts[0] == SIZE - 5 > counts[1] > counts[2]
  (note,) = evaluation_rows.notes(rows)
  text = "adversarial accuracy: PGD-3, not AutoAttack"
  assert (note.text, note.level) == (text, "info")
  done = Row("autoattack", {"attack": "AutoAttack"}, 1, 1)
  assert evaluation_rows.notes([*rows, done]) == []


def test_batch_size_does_not_change_robust_images(model, data):
  key = jax.random.key(4)
  one, other = (
    found.collect(evaluator(size, (0.3,)), model, *data, key)[0].rows[0].correct
    for size in (4, 32)
  )
  np.testing.assert_array_equal(one, other)
  assert 0 < one.sum() < SIZE - 5


@pytest.mark.parametrize("epsilons", [(), (-1.0,), (float("nan"),)])
def test_bad_epsilons(epsilons):
  with pytest.raises(ValueError, match="epsilons"):
    evaluator(8, epsilons)


def test_attacks_other_than_pgd_are_rejected():
  with pytest.raises(ValueError, match="supports only pgd"):
    adversarial.Evaluator(lambda *_: None, (1.0,), 0.4, 0, 8)


def test_every_evaluator_is_tested_here():
  assert set(plugins.available("evaluator")) == {
    "adversarial",
    "autoattack",
    "cifar10_1",
    "clean",
    "corruption",
    "fourier",
  }
