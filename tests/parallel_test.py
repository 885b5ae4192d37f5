"""Devices and processes, tested in one process."""

import glob
import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax import keys as keys_lib
from ram_jax import parallel
from ram_jax.attacks import norms
from ram_jax.augment import basic


@pytest.fixture
def joined(monkeypatch):
  """Simulates a TPU; records the arguments of jax.distributed.initialize."""
  calls = []
  monkeypatch.setattr(glob, "glob", lambda p: [p] if "accel" in p else [])
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda *given: calls.append(given)
  )
  for name in os.environ:
    if name.startswith(("JAX_", "TPU_")):
      monkeypatch.delenv(name)
  return calls


@pytest.mark.parametrize(
  ("environment", "wanted"),
  [
    ({}, [()]),  # JAX asks the machine itself
    ({"JAX_PLATFORMS": "tpu,cpu"}, [()]),
    ({"JAX_PLATFORMS": "cpu"}, []),
    ({"TPU_SKIP_MDS_QUERY": "1"}, []),
    ({"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "a,b"}, [()]),
    (
      {
        "JAX_COORDINATOR_ADDRESS": "a:1",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "0",
      },
      [("a:1", 2, 0)],
    ),
  ],
  ids=str,
)
def test_processes_find_each_other(joined, monkeypatch, environment, wanted):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  parallel.initialize()
  assert joined == wanted


@pytest.mark.parametrize("gone", ["glob", "find_spec"])
def test_machine_without_tpu_is_a_single_process(joined, monkeypatch, gone):
  module = glob if gone == "glob" else importlib.util
  monkeypatch.setattr(module, gone, lambda name: None)
  parallel.initialize()
  assert joined == []


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
  ("error", "code"),
  [
    (RuntimeError("lost"), 1),
    (KeyboardInterrupt(), 1),
    (SystemExit(2), 2),
    (SystemExit(0), None),
  ],
  ids=repr,
)
def test_failed_process_does_not_wait_for_others(
  monkeypatch, capsys, several, error, code
):
  codes = []
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: several)
  monkeypatch.setattr(os, "_exit", codes.append)
  with pytest.raises(type(error)), parallel.ending_together():
    raise error
  # A single process does not wait for its own computations either.
  leaving = isinstance(error, SystemExit)
  wanted = code if several else error.code if leaving else None
  assert codes == ([] if wanted is None else [wanted])
  said = capsys.readouterr().err
  assert ("RuntimeError: lost" in said) == (several and "lost" in str(error))


def test_environment_does_not_change_the_draws():
  before = jax.random.key_data(jax.random.split(jax.random.key(0)))
  jax.config.update("jax_default_prng_impl", "rbg")  # as JAX_DEFAULT_PRNG_IMPL
  jax.config.update("jax_threefry_partitionable", False)
  parallel.initialize()
  after = jax.random.key_data(jax.random.split(jax.random.key(0)))
  np.testing.assert_array_equal(after, before)


def test_prepared_program_is_compiled_once(caplog):
  def function(shared, positions, batch):
    return shared + batch["x"] + positions

  batch = {"x": np.arange(11.0, dtype=np.float32)}
  shared = parallel.replicate(np.float32(2))
  expected = parallel.per_example(function)(shared, batch, 8)
  run = parallel.per_example(function)
  run.prepare(shared, batch, 8)
  run.prepare(shared, batch, 8)
  with jax.log_compiles():
    caplog.clear()
    found = run(shared, batch, 8)
    assert not [x for x in caplog.messages if x.startswith("Compiling")]
    run(shared, batch, 4)  # another program
    assert [x for x in caplog.messages if x.startswith("Compiling")]
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ("size", "batch_size", "even"),
  [(100, 512, 100), (1000, 2048, 1000), (1000, 512, 500), (7, 4, 4), (1, 8, 4)],
)
def test_batches_are_equal(size, batch_size, even):
  """On the tests' 4 devices."""
  assert parallel.even_batches(size, batch_size) == even


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_predecessors_are_those_in_the_global_batch(devices):
  mapped = jax.pmap(parallel.previous, axis_name=parallel.AXIS)
  rows = np.arange(16).reshape(devices, 8 // devices, 2)
  found = np.asarray(mapped(rows)).reshape(8, 2)
  np.testing.assert_array_equal(found, np.roll(np.arange(16), 2).reshape(8, 2))


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_positions_count_through_the_global_batch(devices):
  mapped = jax.pmap(
    lambda x: x + parallel.positions(8 // devices), axis_name=parallel.AXIS
  )
  positions = mapped(jnp.zeros((devices, 8 // devices), jnp.int32))
  np.testing.assert_array_equal(np.ravel(positions), np.arange(8))


def test_devices_draw_bit_identically():
  """Flips, crops and starts of the attack; AugMix in benchmarks/devices.py."""

  def draw(state, images, key, indices):
    keys = keys_lib.per_example(key, parallel.positions(len(indices)))
    start = jax.vmap(lambda k: norms.l2_sphere(k, (8, 8, 3), jnp.float32))
    drawn = basic.Augment()(keys, images[indices] / 255), start(keys)
    return state, jax.lax.all_gather(drawn, parallel.AXIS, tiled=True)

  rng = np.random.default_rng(0)
  stored = rng.integers(0, 256, (32, 8, 8, 3), np.uint8)
  results = []
  for devices in (1, 2, 4):
    shards = np.arange(8).reshape(devices, -1)
    dispatch = parallel.training_dispatch(draw, streamed=False)
    _, drawn = dispatch(jnp.zeros(()), stored, jax.random.key(7), shards)
    results.append([np.asarray(x) for x in drawn])
  for found in results[1:]:
    for a, b in zip(results[0], found, strict=True):
      np.testing.assert_array_equal(a, b)
