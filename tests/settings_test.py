"""Configs made definite, values out of range, and whose folder it is."""

import json
import os

import jax
import numpy as np
import pytest

from configs import augmix, robust_augmix, standard
from ram_jax import settings
from ram_jax.checkpoint import Checkpoints


def config(**overrides):
  found = robust_augmix.get_config("smoke")
  found.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in overrides.items()}
  )
  return found


def test_placeholders_are_filled_for_the_device(monkeypatch):
  given = config()
  on_cpu = settings.resolve(given).train
  assert (on_cpu.steps_per_dispatch, on_cpu.unroll) == (1, True)
  assert on_cpu.dtype == "float32"
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  on_tpu = settings.resolve(given).train
  assert (on_tpu.steps_per_dispatch, on_tpu.unroll) == (10, False)
  assert on_tpu.dtype == "bfloat16"
  assert given.train.dtype is None  # the given one is left alone
  chosen = settings.resolve(config(train__dtype="float32", train__unroll=True))
  assert (chosen.train.dtype, chosen.train.unroll) == ("float32", True)
  # A run trained on a CPU and measured here keeps what it was trained with.
  trained = {"train": on_cpu.to_dict()}
  assert settings.resolve(given, trained).train == on_cpu


def test_resolved_config_is_definite_and_locked():
  given = config()
  given.method.attack.epsilon = 2.0
  resolved = settings.resolve(given)
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
    settings.resolve(given)
  message = str(caught.value)
  assert message.startswith(f"config.{name} is {value!r}: give ")


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("seed", 2**32 - 1),
    ("optimizer.momentum", 0.0),
    ("optimizer.weight_decay", 0.0),
    ("method.attack.epsilon", 0.0),  # no step either, then
    ("train.images", 0),
  ],
)
def test_edge_of_the_range_is_inside(name, value):
  given = config()
  given.update_from_flattened_dict({name: value})
  settings.resolve(given)


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
def test_malformed_floor_is_refused_at_the_start(row):
  good = ("adversarial", 1.0, "at most", 0.5)
  settings.resolve(config(floors=(good,)))
  with pytest.raises(ValueError, match="is not .measure, epsilon, bound"):
    settings.resolve(config(floors=(good, row)))


def test_nothing_to_measure_is_refused():
  given = config()
  with given.unlocked():
    given.evaluators = {}
  with pytest.raises(ValueError, match=r"config\.evaluators is empty"):
    settings.resolve(given)


def test_unroll_reaches_the_attack_alone():
  given = settings.resolve(config())
  spec = settings.attack_spec(given.method, unroll=False)
  assert spec["attack"]["unroll"] is False and "unroll" not in spec
  assert "unroll" not in given.method.attack
  spec = settings.attack_spec(standard.get_config().method, unroll=True)
  assert spec == {"name": "standard"}


def test_differences_ignore_tuples_and_what_is_told_to():
  given = settings.resolve(config())
  saved = json.loads(json.dumps(given.to_dict()))
  assert settings.differences(saved, given) == []
  saved["seed"] = 3
  saved["evaluate"]["images"] = 7
  del saved["model"]["depth"]
  assert settings.differences(saved, given) == [
    "evaluate.images is 7 there and 32 now",
    "model.depth is None there and 10 now",
    "seed is 3 there and 0 now",
  ]
  assert len(settings.differences(saved, given, ("evaluate",))) == 2


def owned(folder, given):
  """A folder as a started run leaves it."""
  resolved = settings.resolve(given)
  settings.write(resolved, folder)
  return resolved


def test_own_folder_is_accepted_and_evaluation_may_differ(tmp_path):
  given = owned(tmp_path / "run", config())
  settings.check_workdir(given, tmp_path / "run")
  settings.check_workdir(given, tmp_path / "not" / "there" / "yet")
  assert [p.name for p in tmp_path.iterdir()] == ["run"]  # nothing is made
  other = config(evaluate__images=5, name="other")
  settings.check_workdir(settings.resolve(other), tmp_path / "run")


def test_another_runs_folder_is_refused(tmp_path):
  owned(tmp_path, config())
  other = settings.resolve(config(seed=1, train__epochs=7))
  with pytest.raises(ValueError) as caught:
    settings.check_workdir(other, tmp_path)
  assert "seed is 0 there and 1 now; train.epochs is 1 there and 7 now" in str(
    caught.value
  )
  with pytest.raises(ValueError, match=r"; and \d+ more\. Choose another"):
    settings.check_workdir(settings.resolve(augmix.get_config()), tmp_path)


def test_folder_that_is_none(tmp_path, monkeypatch):
  given = settings.resolve(config())
  file = tmp_path / "file"
  file.write_text("")
  for folder in (file, file / "below", file / "far" / "below"):
    with pytest.raises(ValueError, match="file is a file, name a folder"):
      settings.check_workdir(given, folder)
  monkeypatch.setattr(os, "access", lambda path, mode: False)
  with pytest.raises(ValueError, match="you may not write in"):
    settings.check_workdir(given, tmp_path / "new")


def test_checkpoints_of_an_unknown_config(tmp_path):
  (tmp_path / "checkpoints").mkdir()
  with pytest.raises(ValueError, match=r"without the config\.json"):
    settings.check_workdir(settings.resolve(config()), tmp_path)


@pytest.mark.parametrize("text", ["", '{"train": {"epo', "[]", "{}", "\xff"])
def test_damaged_config_is_told(tmp_path, text):
  (tmp_path / "config.json").write_text(text, encoding="latin-1")
  for read in (
    lambda: settings.read(tmp_path),
    lambda: settings.check_workdir(settings.resolve(config()), tmp_path),
  ):
    with pytest.raises(ValueError, match=r"config\.json is damaged .*restore"):
      read()


def test_config_comes_back(tmp_path):
  with pytest.raises(FileNotFoundError, match="must name the folder of a run"):
    settings.read(tmp_path)
  given = owned(tmp_path, config())
  assert settings.differences(settings.read(tmp_path), given) == []


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
  path = tmp_path / "new" / "file.json"
  settings.write_json({"a": 1}, path)
  with pytest.raises(TypeError):
    settings.write_json({"a": object()}, path)
  assert json.loads(path.read_text()) == {"a": 1}


class Trained:
  """A finished run's folder, without the training: 64 images, 4 steps."""

  def __init__(self, folder):
    self.folder, self.config = folder, owned(folder, config())
    self.results = {
      "schema": 1,
      "run": {"name": "x-0", "label": "X", "model": "M", "step": 4}
      | {"data_label": "D", "seed": 0},
      "config": self.config.to_dict(),
      "data": {"train": {"size": 64}},
      "clean": {"correct": 1, "total": 2},
    }
    self.write()

  def write(self):
    settings.write_json(self.results, self.folder / "results.json")

  def save(self, *steps):
    checkpoints = Checkpoints(self.folder / "checkpoints")
    for step in steps:
      checkpoints.save(step, {"step": np.int32(step)})
    checkpoints.close()


@pytest.fixture
def trained(tmp_path):
  return Trained(tmp_path / "run")


def test_finished_run_is_known(trained, tmp_path):
  assert settings.finished(trained.config, tmp_path / "none") is None
  assert settings.finished(trained.config, trained.folder) is None
  trained.save(3)
  assert settings.finished(trained.config, trained.folder) is None
  trained.save(4)
  found = settings.finished(trained.config, trained.folder)
  assert found["clean"] == {"correct": 1, "total": 2}
  other = settings.resolve(config(evaluate__images=5))
  assert settings.finished(other, trained.folder) is None


@pytest.mark.parametrize("case", ["partly", "step", "damaged", "foreign"])
def test_unfinished_or_unknown_results_are_measured_again(trained, case):
  trained.save(4)
  if case == "partly":  # measured by --mode=evaluate while it was training
    trained.results["run"]["step"] = 2
  elif case == "step":  # of a longer run, by the size of its data
    trained.results["data"]["train"]["size"] = 80
  elif case == "foreign":
    del trained.results["data"]
  trained.write()
  if case == "damaged":
    path = trained.folder / "results.json"
    path.write_text(path.read_text()[:-20])
  assert settings.finished(trained.config, trained.folder) is None
