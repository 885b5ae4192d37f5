"""Streamed data gives the same run as data on devices, in bounded memory."""

import itertools
import threading
import types

import jax
import numpy as np
import pytest

from configs import standard
from ram_jax import experiment, parallel
from ram_jax.data import digits, feed, pipeline
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.training import loop as train

pytestmark = pytest.mark.usefixtures("tiny_network")

SIZE, BATCH, PER_DISPATCH = 36, 8, 2


@pytest.fixture(scope="module")
def data():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (SIZE, 8, 8, 3), np.uint8)
  return {"images": images, "labels": rng.integers(0, 10, SIZE, np.int32)}


def built(data, budget):
  config = standard.get_config()
  config.train.update(
    batch_size=BATCH,
    epochs=2,
    steps_per_dispatch=PER_DISPATCH,
    device_data_gib=budget,
  )
  config = experiment.resolve(config)
  training = train.build(config, digits.Source(), data["images"].shape)
  return config, training


def fit(config, training, data, folder):
  checkpoints = Checkpoints(folder / "checkpoints")
  try:
    state = train.fit(config, training, data, folder, checkpoints)
  finally:
    checkpoints.close()
  return jax.tree.leaves(jax.tree.map(np.asarray, state))


def threads():
  return [t for t in threading.enumerate() if t.name.startswith("feed")]


class Failing:
  """Labels that fail at the read of a dispatch."""

  def __init__(self, labels, after):
    self._labels, self._left = labels, after

  def __len__(self):
    return len(self._labels)

  def __getitem__(self, index):
    assert threading.current_thread() in threads()
    self._left -= 1
    if self._left < 0:
      raise OSError("the disk is gone")
    return self._labels[index]


def test_streamed_run_is_bit_identical(data, tmp_path):
  """Also if a failing read stops it in the second epoch and it resumes."""
  size = data["images"].nbytes / 2**30
  config, training = built(data, size)
  assert not training.streamed
  wanted = fit(config, training, data, tmp_path / "devices")
  config, training = built(data, size * 0.999)
  assert training.streamed
  broken = data | {"labels": Failing(data["labels"], 3)}
  with pytest.raises(OSError, match="the disk is gone"):
    fit(config, training, broken, tmp_path / "streamed")
  assert not threads()
  checkpoints = Checkpoints(tmp_path / "streamed" / "checkpoints")
  assert checkpoints.latest_step() == 4
  checkpoints.close()
  found = fit(config, training, data, tmp_path / "streamed")
  assert not threads()
  assert found[0] == 8
  for a, b in zip(wanted, found, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_read_disjoint_rows_that_make_the_batch(
  data, processes, monkeypatch
):
  training = types.SimpleNamespace(
    seed=5, batch_size=BATCH, per_dispatch=2, total_steps=6, streamed=True
  )
  local = 4 // processes
  monkeypatch.setattr(jax, "local_device_count", lambda: local)
  monkeypatch.setattr(parallel, "place", lambda rows: rows)
  parts = []
  for process in range(processes):
    monkeypatch.setattr(jax, "process_index", lambda p=process: p)
    fed = feed.dispatches(training, data, 2)
    parts.append([rows["images"][:, index[0]] for rows, index in fed])
  order = pipeline.batch_indices(5, 2, 4, SIZE, BATCH)
  for dispatch, images in enumerate(zip(*parts, strict=True)):
    # [devices, K, b, ...] to [K, B, ...]: every row of the batch, once.
    found = np.concatenate(np.concatenate(images), axis=1)
    rows = feed.as_rows(data)["images"]
    wanted = rows[order[2 * dispatch : 2 * dispatch + 2]]
    np.testing.assert_array_equal(found, wanted)


def test_prefetching_is_bounded():
  made = []
  results = feed._ahead(made.append, itertools.count())
  assert not made and not threads()  # nothing starts before it is wanted
  for taken in range(1, 6):
    next(results)
    # Those made or being made, and never more, whatever the time.
    assert taken <= len(made) <= taken + feed.AHEAD
  results.close()
  assert not threads()
