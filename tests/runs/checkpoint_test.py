"""Checkpoints: exact, limited to the newest two; damage is reported."""

import resource
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.models import wide_resnet
from ram_jax.runs import checkpoint
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.training.state import TrainState


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
    return checkpoints.restore(template or state(0))[0]
  finally:
    checkpoints.close()


def test_newest_is_restored_bit_identically(saved):
  assert_equal(restore(saved), state(6))


def test_the_newest_two_are_kept(saved):
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
    ValueError, match=r"params/kernel of shape \(3, 5\), but this .*4"
  ):
    restore(saved, state(0, width=4))


def damage(path, how):
  """Deletes a file or folder, or replaces the content of a file."""
  if path.is_dir():
    shutil.rmtree(path)
    return
  data = bytearray(path.read_bytes())
  if how == "flip":
    data[len(data) // 2] ^= 16
  kept = {"delete": 0, "empty": 0, "truncate": len(data) // 2}.get(how)
  path.write_bytes(data[:kept])
  if how == "delete":
    path.unlink()


@pytest.mark.parametrize("how", ["delete", "empty", "truncate", "flip"])
def test_damage_is_reported_and_the_previous_one_used(
  saved, tmp_path, how, capsys
):
  parts = [p.relative_to(saved) for p in (saved / "6").rglob("*")]
  rejected = set()
  for number, part in enumerate(sorted(parts)):
    copy = shutil.copytree(saved, tmp_path / str(number))
    if how != "delete" and (copy / part).is_dir():
      continue
    damage(copy / part, how)
    found = restore(copy)
    # What is not rejected must be right: some files are only logs.
    if found.step == 6:
      assert_equal(found, state(6))
      continue
    rejected.add(part.parts[1])
    assert_equal(found, state(4))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"the checkpoint {copy / '6'} is damaged (")
    assert line.endswith("; kept as 6.damaged): using step 4")
    assert {p.name for p in copy.iterdir()} == {"4", "6.damaged"}
  assert rejected >= {"state", "beside"}


def test_step_of_a_damaged_checkpoint_is_saved_again(copy, capsys):
  damage(copy / "6" / "state", "delete")
  (copy / "6.damaged").mkdir()  # of another time
  checkpoints = Checkpoints(copy)
  assert checkpoints.restore(state(0))[0].step == 4
  checkpoints.save(5, state(5), open_line={"since": 4})
  checkpoints.save(6, state(7))
  checkpoints.close()
  names = {p.name for p in copy.iterdir()}
  assert names == {"5", "6", "6.damaged"} and any(
    (copy / "6.damaged").iterdir()
  )
  assert_equal(restore(copy), state(7))
  shutil.rmtree(copy / "6")
  checkpoints = Checkpoints(copy)
  assert checkpoints.restore(state(0))[1] == {"since": 4}
  checkpoints.close()


def test_all_damaged_is_an_error_and_nothing_is_moved(copy):
  for step in "46":
    damage(copy / step / "beside", "delete")
  with pytest.raises(
    ValueError, match=r"every checkpoint.*\(6: .*; 4: .*\): restore"
  ):
    restore(copy)
  assert {p.name for p in copy.iterdir()} == {"4", "6"}


def test_other_arrays_are_not_taken_for_the_saved_ones(copy, monkeypatch):
  """Even if orbax reads the checkpoint without an error."""
  real = checkpoint.ocp.CheckpointManager.restore

  def changed(manager, step, args):
    found = real(manager, step, args=args)
    if step == 6:
      found.state["params"]["kernel"][1, 2] += 1e-6
    return found

  monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "restore", changed)
  assert restore(copy).step == 4


def test_leftovers_of_a_killed_run_are_removed(copy):
  left = copy / "5.orbax-checkpoint-tmp"
  (left / "state").mkdir(parents=True)
  assert restore(copy).step == 6
  checkpoints = Checkpoints(copy)
  checkpoints.save(8, state(8))
  checkpoints.close()
  assert {p.name for p in copy.iterdir()} == {"6", "8"}


def test_full_disk_is_reported_and_the_others_are_kept(copy):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  checkpoints = Checkpoints(copy)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    checkpoints.save(8, state(8))
    with pytest.raises(
      OSError, match=r"cannot be written to .*: free some space.* 6"
    ):
      checkpoints.close()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  for step in (6, 4):
    assert_equal(restore(copy), state(step))
    shutil.rmtree(copy / str(step))


def test_event_loop_errors_are_silenced(monkeypatch):
  heard = []

  class Args:
    def __init__(self, error):
      self.exc_value = error

  monkeypatch.setattr(sys, "unraisablehook", lambda args: heard.append(args))
  checkpoint._silence_event_loop_errors()
  hook = sys.unraisablehook
  checkpoint._silence_event_loop_errors()
  assert sys.unraisablehook is hook
  hook(Args(RuntimeError("Event loop is closed")))
  hook(Args(RuntimeError("a real one")))
  assert [str(args.exc_value) for args in heard] == ["a real one"]


MODEL = wide_resnet.Model(
  num_classes=3, mean=(0.5,) * 3, std=(0.2,) * 3, depth=10, widen_factor=1
)


def test_a_part_of_a_state_is_restored(tmp_path):
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
  state, _, path = checkpoints.newest()
  checkpoints.close()
  found = checkpoint.fitted(wanted, state, path)
  wanted["params"]["head"]["bias"] = np.zeros(7)
  with pytest.raises(ValueError, match=r"head/bias.*configuration needs \(7,"):
    checkpoint.fitted(wanted, state, path)
  assert int(state["step"]) == 5
  assert_equal(found, variables)
