"""Evaluators: exact counts, whatever the batch and the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax import keys as keys_lib
from ram_jax import parallel, plugins
from ram_jax.attacks.pgd import Attack
from ram_jax.evaluators import adversarial, clean, corruption
from ram_jax.models.classifier import Classifier
from ram_jax.models.wide_resnet import Model

SIZE = 21  # not a multiple of any batch below


@pytest.fixture(scope="module")
def model():
  module = Model(10, (0.5,) * 3, (0.25,) * 3, depth=10, widen_factor=1)
  variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), False)
  # Scaled up, so that small attacks change some predictions and not all.
  params = jax.tree.map(lambda x: 1.5 * x, variables["params"])
  return parallel.replicate(
    Classifier(params, variables["batch_stats"], module)
  )


@pytest.fixture(scope="module")
def data(model):
  return examples(model, 8)


def examples(model, side):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (SIZE, side, side, 3), np.uint8)
  logits = np.asarray(model(jnp.asarray(images / 255, jnp.float32)))
  labels = logits.argmax(-1).astype(np.int32)
  labels[:5] = (labels[:5] + 1) % 10  # five wrong ones
  return images, labels


@pytest.mark.parametrize("batch_size", [4, 16, 32])
def test_clean_counts_every_example_once(model, data, batch_size):
  results = clean.Evaluator(batch_size).run(model, *data, jax.random.key(0))
  assert results == {"correct": SIZE - 5, "total": SIZE}


def evaluator(batch_size, epsilons=(0.0, 0.05, 8.0)):
  attack = Attack(1.0, 1.0, steps=3, start="sphere")
  return adversarial.Evaluator(attack, epsilons, 2.5 / 7, batch_size)


def test_adversarial_counts_are_those_of_the_attack_by_hand(model, data):
  images, labels = data
  key = jax.random.key(4)
  results = evaluator(8).run(model, images, labels, key)
  keys = keys_lib.per_example(key, jnp.arange(SIZE))
  floats = jnp.asarray(images, jnp.float32) / 255
  for row in results["by_epsilon"]:
    epsilon = row["epsilon"]
    attack = Attack(epsilon, epsilon * 2.5 / 7, steps=3, start="sphere")
    logits = model(attack(keys, floats, jnp.asarray(labels), model))
    wanted = int((np.asarray(logits).argmax(-1) == labels).sum())
    assert (row["correct"], row["total"]) == (wanted, SIZE)
  counts = [row["correct"] for row in results["by_epsilon"]]
  assert counts[0] == SIZE - 5 > counts[1] > counts[2]
  assert results["attack"]["name"] == "PGD-3"


def test_batch_size_changes_no_robust_count(model, data):
  key = jax.random.key(4)
  runs = [evaluator(size, (0.05,)).run(model, *data, key) for size in (4, 32)]
  assert runs[0] == runs[1]


@pytest.mark.parametrize("epsilons", [(), (-1.0,), (float("nan"),)])
def test_bad_epsilons(epsilons):
  with pytest.raises(ValueError, match="epsilons"):
    evaluator(8, epsilons)


def test_corruption_counts_by_name_and_severity(model, tmp_path):
  images, labels = examples(model, 32)
  # Severity s keeps the first 21 - 4 s images and blackens the others.
  stacked = np.concatenate([images] * 5)
  for severity in range(1, 6):
    stacked[severity * SIZE - 4 * severity : severity * SIZE] = 0
  np.save(tmp_path / "fog.npy", stacked)
  np.save(tmp_path / "labels.npy", np.tile(labels, 5))
  built = corruption.Evaluator(10, str(tmp_path), "", 8)
  rows = built.run(model, images, labels, jax.random.key(0))["by_corruption"]
  assert [(r["corruption"], r["severity"]) for r in rows] == [
    ("fog", severity) for severity in range(1, 6)
  ]
  black = int(np.argmax(model(jnp.zeros((1, 32, 32, 3)))))
  for row in rows:
    kept = SIZE - 4 * row["severity"]
    lucky = int((labels[kept:] == black).sum())
    assert row["correct"] == max(kept - 5, 0) + lucky
    assert row["total"] == SIZE


def test_no_corrupted_set_is_no_result(model, data):
  built = corruption.Evaluator(10, "", "", 8)
  assert built.run(model, *data, jax.random.key(0)) is None


def test_every_evaluator_is_tested_here():
  assert set(plugins.available("evaluator")) == {
    "adversarial",
    "clean",
    "corruption",
  }
