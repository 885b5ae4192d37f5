"""The training loop: complete runs, resuming, and NaN."""

import dataclasses
import json
import shutil
import signal

import jax
import numpy as np
import pytest

from configs import adversarial, augmix, robust_augmix, standard
from ram_jax import experiment, parallel
from ram_jax.data import digits, feed
from ram_jax.runs import folder as run_folder
from ram_jax.runs import signals as stopping
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.training import log
from ram_jax.training import loop as train

pytestmark = pytest.mark.usefixtures("tiny_network", "quick_compilation")

IMAGES, BATCH, SIDE = 32, 8, 8


@pytest.fixture(scope="module")
def data():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
  return {"images": images, "labels": rng.integers(0, 10, IMAGES, np.int32)}


def small(config):
  config.train.batch_size = BATCH
  config.train.epochs = 2
  config.train.log_every = 3
  return config


@pytest.fixture(scope="module")
def robust():
  config = small(robust_augmix.get_config())
  config.method.attack.steps = 1
  with config.unlocked():  # AugMix compiles for long
    config.method.augment = {"name": "basic", "padding": 2, "flip": True}
  config.evaluate.batch_size = 8
  config = experiment.resolve(config)
  return config, train.build(config, digits.Source(), (IMAGES, SIDE, SIDE, 3))


def fit(config, training, data, folder, stop=None):
  checkpoints = Checkpoints(folder / "checkpoints")
  try:
    state = train.fit(
      config, training, data, folder, checkpoints, stop or stopping.Stop()
    )
  finally:
    checkpoints.close()
  return jax.tree.map(np.asarray, state)


@pytest.fixture(scope="module")
def whole(robust, data, tmp_path_factory):
  """Last state and lines of an uninterrupted run."""
  folder = tmp_path_factory.mktemp("whole")
  return fit(*robust, data, folder), lines(folder)


def interrupted(training, after):
  """A training run whose dispatch is interrupted as by Ctrl-C."""
  calls = iter(range(after))

  def dispatch(*args):
    if next(calls, None) is None:
      raise KeyboardInterrupt
    return training.dispatch(*args)

  return dataclasses.replace(training, dispatch=dispatch)


def timed(folder):
  rows = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(row) for row in rows]


def lines(folder):
  rows = timed(folder)
  return [{k: v for k, v in row.items() if k != "timing"} for row in rows]


# After 2: before any checkpoint. After 5: one epoch is saved, then a step is
# lost. After 7: and a line of metrics.jsonl is lost, too.
@pytest.mark.parametrize("after", [2, 5, 7])
def test_resumed_run_equals_uninterrupted(robust, data, whole, tmp_path, after):
  config, training = robust
  with pytest.raises(KeyboardInterrupt):
    fit(config, interrupted(training, after), data, tmp_path / "cut")
  resumed = fit(config, training, data, tmp_path / "cut")
  assert resumed.step == 8
  assert_equal(whole[0], resumed)
  assert whole[1] == lines(tmp_path / "cut")
  assert [row["step"] for row in lines(tmp_path / "cut")] == [3, 4, 6, 8]


def test_loop_compiles_once_without_implicit_transfers(
  robust, data, tmp_path, caplog
):
  config, training = robust
  logged = []

  def dispatch(*args):
    with (
      jax.transfer_guard_host_to_device("disallow"),
      jax.log_compiles(),
    ):
      caplog.clear()
      result = training.dispatch(*args)
      logged.append([row for row in caplog.messages if "ompil" in row])
    return result

  watched = dataclasses.replace(training, dispatch=dispatch)
  assert fit(config, watched, data, tmp_path).step == 8
  assert logged[1:] == [[]] * 7
  # Both would have been seen.
  with jax.log_compiles():
    jax.jit(lambda x: 3 * x)(np.ones(7))
  assert "Compiling" in caplog.text
  placed = training.create(), data, training.settings
  unplaced = np.zeros((jax.device_count(), 1, 2), np.int32)
  with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to"):
    dispatch(*parallel.replicate(placed), unplaced)


NUMBERS = {
  "seed": 1,
  "optimizer.learning_rate": 0.03,
  "method.weight": 5.0,
  "method.attack.epsilon": 0.3,
  "method.attack.step_size": 0.1,
  "method.adversarial_weight": 0.7,
}


@pytest.mark.parametrize(
  "method", [standard, adversarial, augmix, robust_augmix]
)
def test_runs_that_differ_in_numbers_share_a_program(method):
  config = experiment.resolve(small(method.get_config()))
  known = run_folder.flat(config.to_dict())
  numbers = {name: x for name, x in NUMBERS.items() if name in known}
  other = config.copy_and_resolve_references()
  other.update_from_flattened_dict(numbers)
  shape = (IMAGES, SIDE, SIDE, 3)
  one, two = (train.build(c, digits.Source(), shape) for c in (config, other))
  assert one.dispatch is two.dispatch and one.create.func is two.create.func
  assert jax.tree.structure(one.settings) == jax.tree.structure(two.settings)
  found = [
    np.asarray(x).item() for x in jax.tree.leaves(two.settings.replace(key=0))
  ]
  wanted = [x for name, x in numbers.items() if name != "seed"]
  assert sorted(found) == pytest.approx(sorted([0, *wanted]))
  # Anything else is a part of the program.
  other.optimizer.momentum = 0.5
  three = train.build(other, digits.Source(), shape)
  assert three.dispatch is not one.dispatch


def test_numbers_need_no_compilation_but_have_an_effect(robust, data, caplog):
  rows = feed.as_rows(data)
  indices = np.arange(8, dtype=np.int32).reshape(4, 1, 2)

  def step(changes):
    config = robust[0].copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    training = train.build(config, digits.Source(), (IMAGES, SIDE, SIDE, 3))
    placed = parallel.replicate((training.create(), rows, training.settings))
    state, _ = training.dispatch(*placed, indices)
    leaves = map(np.ravel, jax.tree.leaves(state.params))
    return np.concatenate(list(leaves))

  first = step({})
  with jax.log_compiles():
    caplog.clear()
    others = {name: step({name: value}) for name, value in NUMBERS.items()}
    assert "ompiling" not in caplog.text
    step({"optimizer.momentum": 0.5})
  assert "ompiling" in caplog.text
  for name, found in others.items():
    assert np.abs(found - first).max() > 1e-6, name


def assert_equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def signaled(training, stop, after, number):
  """A training run that receives a signal during a dispatch."""
  steps = iter(range(1, after + 1))

  def dispatch(*args):
    if next(steps, None) == after:
      stop.signaled(number)
    return training.dispatch(*args)

  return dataclasses.replace(training, dispatch=dispatch)


def test_signal_at_any_step_changes_no_result(robust, data, whole, tmp_path):
  """After 2 and 5 of 8: between the lines, which are at 3, 4, 6 and 8."""
  config, training = robust
  for after, number, code in (
    (2, signal.SIGTERM, 143),
    (3, signal.SIGINT, 130),
  ):
    stop = stopping.Stop()
    stopped = signaled(training, stop, after, number)
    with pytest.raises(stopping.Stopped) as caught:
      fit(config, stopped, data, tmp_path / "cut", stop)
    assert caught.value.code == code
  assert "interrupted: step 5 of 8 is saved; the same comm" in str(caught.value)
  resumed = fit(config, training, data, tmp_path / "cut")
  assert_equal(whole[0], resumed)
  assert whole[1] == lines(tmp_path / "cut")
  seconds = [row["timing"]["seconds"] for row in timed(tmp_path / "cut")]
  assert all(np.array(seconds) > 0)


def test_damaged_checkpoint_loses_only_its_steps(robust, data, whole, tmp_path):
  """Resumes from a step between two lines; later lines are removed."""
  config, training = robust
  for after in (5, 2):
    stop = stopping.Stop()
    stopped = signaled(training, stop, after, signal.SIGTERM)
    with pytest.raises(stopping.Stopped):
      fit(config, stopped, data, tmp_path / "cut", stop)
  assert [row["step"] for row in lines(tmp_path / "cut")] == [3, 4, 6]
  shutil.rmtree(tmp_path / "cut" / "checkpoints" / "7" / "state")
  resumed = fit(config, training, data, tmp_path / "cut")
  assert_equal(whole[0], resumed)
  assert whole[1] == lines(tmp_path / "cut")


def test_signal_while_the_last_step_runs(robust, data, tmp_path):
  config, training = robust
  stop = stopping.Stop()
  stopped = signaled(training, stop, 8, signal.SIGTERM)
  with pytest.raises(stopping.Stopped, match="step 8 of 8 is saved"):
    fit(config, stopped, data, tmp_path, stop)
  assert fit(config, training, data, tmp_path).step == 8


def test_seed_changes_the_run(robust, data, whole, tmp_path):
  config = robust[0].copy_and_resolve_references()
  config.seed = 1
  training = train.build(config, digits.Source(), (IMAGES, SIDE, SIDE, 3))
  assert training.dispatch is robust[1].dispatch
  other = fit(config, training, data, tmp_path / "other")
  a, b = (jax.tree.leaves(state.params)[-1] for state in (whole[0], other))
  assert np.abs(a - b).max() > 1e-4


@pytest.mark.parametrize("requested", [1, 3, 8, 100])
def test_steps_per_dispatch_divides_the_run(requested):
  config = small(standard.get_config())
  config.train.steps_per_dispatch = requested
  config = experiment.resolve(config)
  training = train.build(config, digits.Source(), (IMAGES, SIDE, SIDE, 3))
  assert training.per_dispatch == {1: 1, 3: 2, 8: 8, 100: 8}[requested]


def test_diverging_run_stops_and_keeps_its_checkpoint(data, tmp_path):
  config = small(standard.get_config())
  config.train.epochs = 4
  config = experiment.resolve(config)
  training = train.build(config, digits.Source(), (IMAGES, SIDE, SIDE, 3))

  def poisoned(state, *rest):
    if int(state.step) == 9:
      state = state.replace(
        params=jax.tree.map(lambda x: x * np.inf, state.params)
      )
    return training.dispatch(state, *rest)

  broken = dataclasses.replace(training, dispatch=poisoned)
  with pytest.raises(FloatingPointError, match=r"step 10: .*cross_entropy nan"):
    fit(config, broken, data, tmp_path)
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  assert checkpoints.latest_step() == 8
  kept, _ = checkpoints.restore(training.create())
  checkpoints.close()
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept))


def test_check_finite_names_the_first_bad_step_and_its_parts():
  rows = {
    "loss": np.array([1.0, np.nan, np.nan]),
    "cross_entropy": np.array([1.0, 2.0, np.inf]),
    "jensen_shannon": np.array([0.0, np.nan, 0.0]),
  }
  with pytest.raises(FloatingPointError) as caught:
    log.check_finite(rows, since=40)
  message = str(caught.value)
  assert message.startswith("step 42: loss is nan, jensen_shannon is nan.")
