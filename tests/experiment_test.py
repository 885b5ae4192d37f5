"""Configs are resolved, and values out of range are rejected."""

import json

import jax
import pytest

from configs import robust_augmix, standard
from ram_jax import experiment, plugins
from ram_jax import memory as memory_lib


def config(**overrides):
  found = robust_augmix.get_config("smoke")
  found.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in overrides.items()}
  )
  return found


def test_placeholders_are_filled_for_the_device(monkeypatch):
  given = config()
  on_cpu = experiment.resolve(given).train
  assert (on_cpu.steps_per_dispatch, on_cpu.unroll) == (1, True)
  assert on_cpu.dtype == "float32"
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  on_tpu = experiment.resolve(given).train
  assert (on_tpu.steps_per_dispatch, on_tpu.unroll) == (10, False)
  assert on_tpu.dtype == "bfloat16"
  assert given.train.dtype is None  # the given one is left alone
  chosen = experiment.resolve(
    config(train__dtype="float32", train__unroll=True)
  )
  assert (chosen.train.dtype, chosen.train.unroll) == ("float32", True)
  # A run trained on a CPU and evaluated here keeps its training settings.
  trained = experiment.resolve(given).to_dict()
  trained["train"] = on_cpu.to_dict()
  assert experiment.resolve(given, trained).train == on_cpu


@pytest.mark.parametrize(
  ("platform", "free", "wanted"),
  [
    ("cpu", None, (512, "float32")),
    ("gpu", 60 * 2**30, (2048, "tensorfloat32")),
    ("tpu", 6 * 2**30, (1024, "float32")),  # 256 for each of 4 devices
  ],
)
def test_evaluation_fits_the_platform(monkeypatch, platform, free, wanted):
  monkeypatch.setattr(jax, "default_backend", lambda: platform)
  monkeypatch.setattr(memory_lib, "available", lambda: free)
  given = config(evaluate__batch_size=None)
  found = experiment.resolve(given).evaluate
  assert (found.batch_size, found.precision) == wanted
  chosen = config(evaluate__batch_size=8, evaluate__precision="float32")
  found = experiment.resolve(chosen).evaluate
  assert (found.batch_size, found.precision) == (8, "float32")


def test_resolved_config_is_complete_and_locked():
  given = config()
  given.method.attack.epsilon = 2.0
  resolved = experiment.resolve(given)
  assert resolved.is_locked
  assert resolved.method.attack.step_size == pytest.approx(2 * 2.5 / 7)
  given.method.attack.epsilon = 1.0
  assert resolved.method.attack.epsilon == 2.0
  json.dumps(resolved.to_dict(), allow_nan=False)


NAN, INF = float("nan"), float("inf")
BAD = {
  "name": [""],
  "seed": [-1, 2**32],
  "train.epochs": [0, -3],
  "train.batch_size": [0],
  "train.images": [-1],
  "train.log_every": [0],
  "train.checkpoint_every": [0],
  "train.steps_per_dispatch": [0],
  "train.dtype": ["float16", ""],
  "optimizer.learning_rate": [0.0, -0.1, NAN, INF],
  "optimizer.momentum": [-0.1, 1.0, 2.0, NAN],
  "optimizer.weight_decay": [-1e-4, NAN, INF],
  "batch_norm.views": ["both"],
  "batch_norm.attack": ["none"],
  "evaluate.batch_size": [0],
  "evaluate.images": [-1],
  "method.attack.steps": [0, -1],
  "method.attack.step_size": [0.0, -1.0, NAN, INF],
  "evaluators.adversarial.attack.steps": [0],
}


@pytest.mark.parametrize(
  ("name", "value"), [(n, value) for n in BAD for value in BAD[n]]
)
def test_value_out_of_range_is_named(name, value):
  given = config()
  given.update_from_flattened_dict({name: value})
  with pytest.raises(ValueError) as caught:
    experiment.resolve(given)
  message = str(caught.value)
  assert message.startswith(f"config.{name} is {value!r}: give ")


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("seed", 2**32 - 1),
    ("optimizer.momentum", 0.0),
    ("optimizer.weight_decay", 0.0),
    ("method.attack.epsilon", 0.0),  # the step size is then also 0
    ("train.images", 0),
  ],
)
def test_bounds_of_a_range_are_valid(name, value):
  given = config()
  given.update_from_flattened_dict({name: value})
  experiment.resolve(given)


@pytest.mark.parametrize(
  "row",
  [
    "clean",
    5,
    ("clean",),
    ("clean", 1.0, "at least", 0.5),
    ("adversarial", None, "at least", 0.5),
    ("adversarial", "1", "at least", 0.5),
    ("clean", None, "above", 0.5),
    ("clean", None, "at least", 92.0),
    ("clean", None, "at least", "0.9"),
    ("cleen", None, "at least", 0.9),
  ],
)
def test_malformed_floor_is_rejected_at_the_start(row):
  good = ("adversarial", 1.0, "at most", 0.5)
  experiment.resolve(config(floors=(good,)))
  with pytest.raises(ValueError, match="is not .metric, epsilon, bound"):
    experiment.resolve(config(floors=(good, row)))


def test_nothing_to_evaluate_is_rejected():
  given = config()
  with given.unlocked():
    given.evaluators = {}
  with pytest.raises(ValueError, match=r"config\.evaluators is empty"):
    experiment.resolve(given)


@pytest.mark.parametrize("unroll", [False, True])
def test_unroll_is_passed_to_attacks(unroll):
  given = experiment.resolve(config())
  method = plugins.build("method", given.method, unroll=unroll)
  assert method.attack.unroll is unroll
  assert "unroll" not in given.method.attack
  plugins.build("method", standard.get_config().method, unroll=unroll)


@pytest.mark.parametrize("dataset", ["digits", "cifar100"])
def test_corrupted_set_of_another_data_set(dataset):
  given = robust_augmix.get_config(f"dataset={dataset}")
  given.evaluators.corruption.tfds_dir = "somewhere"
  given.evaluators.corruption.classes = 10
  with pytest.raises(ValueError, match="uses CIFAR-10-C, but the data set"):
    experiment.resolve(given)
