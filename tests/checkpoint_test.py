"""Checkpoints: exact, the newest two, and damage that is told, not hidden."""

import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax import checkpoint
from ram_jax.checkpoint import Checkpoints
from ram_jax.models import wide_resnet
from ram_jax.state import TrainState


def state(step, width=3):
  rng = np.random.default_rng(step)
  params = {"kernel": rng.normal(size=(width, 5)).astype(np.float32)}
  return TrainState(
    step=np.int32(step),
    params=params,
    batch_stats={"mean": np.float64(rng.normal()), "half": jnp.bfloat16(0.1)},
    opt_state=(params, {"count": np.int32(step)}),
  )


def assert_equal(got, wanted):
  assert jax.tree.structure(got) == jax.tree.structure(wanted)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
    assert np.asarray(a).dtype == np.asarray(b).dtype
    np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run") / "checkpoints"
  checkpoints = Checkpoints(folder)
  for step in (2, 4, 6):
    checkpoints.save(step, state(step))
  checkpoints.close()
  return folder


@pytest.fixture
def copy(saved, tmp_path):
  return shutil.copytree(saved, tmp_path / "checkpoints")


def restore(folder, template=None):
  checkpoints = Checkpoints(folder)
  try:
    return checkpoints.restore(template or state(0))
  finally:
    checkpoints.close()


def test_newest_comes_back_bit_for_bit(saved):
  assert_equal(restore(saved), state(6))


def test_the_newest_two_stay(saved):
  assert sorted(p.name for p in saved.iterdir()) == ["4", "6"]


def test_saving_a_step_again_changes_nothing(copy):
  checkpoints = Checkpoints(copy)
  checkpoints.save(6, state(7))
  checkpoints.close()
  assert_equal(restore(copy), state(6))


def test_nothing_saved_yet(tmp_path):
  checkpoints = Checkpoints(tmp_path / "new")
  assert checkpoints.latest_step() is None
  with pytest.raises(FileNotFoundError, match="train this run first"):
    checkpoints.restore(state(0))
  checkpoints.close()


def test_another_shape_is_named(saved):
  with pytest.raises(
    ValueError, match=r"kernel'\] of shape \(3, 5\), this .*4"
  ):
    restore(saved, state(0, width=4))


def damage(path, how):
  """Deletes a folder, or deletes or halves a file."""
  if path.is_dir():
    shutil.rmtree(path)
  elif how == "delete":
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("how", ["delete", "truncate"])
def test_damage_is_told_and_the_one_before_serves(saved, tmp_path, how):
  parts = [p.relative_to(saved) for p in (saved / "6").rglob("*")]
  refused = 0
  for number, part in enumerate(sorted(parts)):
    copy = shutil.copytree(saved, tmp_path / str(number))
    if how == "truncate" and (copy / part).is_dir():
      continue
    damage(copy / part, how)
    try:
      # What is not refused must be right: some files are only logs.
      assert_equal(restore(copy), state(6))
    except ValueError as error:
      refused += 1
      message = str(error)
      assert f"the checkpoint {copy / '6'} cannot be read (" in message
      assert "move it out of the --workdir" in message and "\n" not in message
      shutil.rmtree(copy / "6")
      assert_equal(restore(copy), state(4))
  assert refused >= 3


def test_complaints_of_other_readers_are_dropped(monkeypatch):
  heard = []
  monkeypatch.setattr(sys, "unraisablehook", heard.append)

  class Args:
    def __init__(self, error):
      self.exc_value = error

  def complain():
    sys.unraisablehook(Args(RuntimeError("Event loop is closed")))
    sys.unraisablehook(Args(RuntimeError("a real one")))

  with pytest.raises(OSError), checkpoint._without_echoes():
    raise OSError
  complain()  # after the error, from threads
  assert [str(args.exc_value) for args in heard] == ["a real one"]


MODEL = wide_resnet.Model(
  num_classes=3, mean=(0.5,) * 3, std=(0.2,) * 3, depth=10, widen_factor=1
)


def test_variables_come_without_the_optimizer(tmp_path):
  shape = (8, 8, 3)
  wanted = jax.eval_shape(
    lambda key: MODEL.init(key, jnp.zeros((1, *shape)), train=False),
    jax.random.key(0),
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(x.dtype), wanted
  )
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  state = TrainState(step=np.int32(5), opt_state=(), **variables)
  checkpoints.save(5, state)
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  found = checkpoints.restore_variables(MODEL, shape)
  with pytest.raises(ValueError, match=r"head.*this configuration needs.*7"):
    checkpoints.restore_variables(MODEL.clone(num_classes=7), shape)
  checkpoints.close()
  assert int(found.step) == 5
  assert_equal(found.params, variables["params"])
  assert_equal(found.batch_stats, variables["batch_stats"])
