"""Corrupted test sets in files: complete, reproducible and resumable."""

import errno
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import standard
from ram_jax import corrupt, corruptions, parallel, plugins
from ram_jax.corruptions.corruption import Corruption
from ram_jax.data import cifar_c, generated, manifest
from tests import found

SIZE = 6
NAMES = ("gaussian_noise", "frost", "fog")
SHAPE = (8, 8, 3)
LABELS = np.array([0, 59, 119, 179, 239, 299])  # more than uint8 takes


def noisy(key, levels, parameters):
  """A stand-in that compiles fast: a pattern that grows with severity."""
  severity, assets = parameters
  steps = jnp.arange(levels.size).reshape(levels.shape)
  draw = (jax.random.key_data(key)[1] / 2.0**32 * (1 + steps)) % 1
  mixed = (1 - 0.1 * severity) * levels + 0.1 * severity * 255 * draw
  return 0.5 * mixed + 0.5 * assets[0] if assets else mixed


def parameters(severity, shape, assets):
  return severity, assets


def photographs(folder, size):
  if folder == "none":
    raise ValueError("frost needs its photographs")
  return (np.full(SHAPE, 255, np.uint8),)


@pytest.fixture(scope="module", autouse=True)
def three_corruptions():
  """Replaces the 29 corruptions by 4 stand-ins, compiled once for all tests."""
  generated._program.cache_clear()
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(corruptions.SETS, "cifar_c", NAMES)
    patch.setitem(corruptions.SETS, "cifar_c_bar", ("lines",))
    rows = corruptions.SEVERITIES
    stand_in = Corruption("noisy", rows, parameters, noisy)
    every = dict.fromkeys((*NAMES, "lines"), stand_in)
    patch.setattr(generated, "EVERY", every)
    patch.setattr(generated.frost, "load", photographs)
    yield
  generated._program.cache_clear()


@pytest.fixture
def config(tmp_path):
  rng = np.random.default_rng(0)
  arrays = {}
  for split in ("train", "test"):
    images = rng.integers(0, 256, (SIZE, *SHAPE), np.uint8)
    arrays[f"{split}_images"] = images
    arrays[f"{split}_labels"] = LABELS
  np.savez(tmp_path / "mine.npz", **arrays)
  config = standard.get_config("dataset=arrays,smoke")
  config.dataset.path = str(tmp_path / "mine.npz")
  config.dataset.num_classes = 300
  config.evaluate.images = 0
  config.evaluate.batch_size = 4
  return config


@pytest.fixture
def out(tmp_path):
  return tmp_path / "new" / "set"


def data(config):
  source = plugins.build("dataset", config.dataset)
  return source.load("test")


def files(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_layout_of_cifar_10_c(config, out):
  found = corrupt.write(config, out)
  images, labels = data(config)
  stacked = np.load(out / "fog.npy")
  assert stacked.dtype == np.uint8 and stacked.shape == (5 * SIZE, *SHAPE)
  source = generated.Generator(images, labels, 0, "", 4)
  for severity in range(1, 6):
    part = stacked[(severity - 1) * SIZE : severity * SIZE]
    np.testing.assert_array_equal(part, source.load("fog", severity)[0])
  np.testing.assert_array_equal(np.load(out / "labels.npy"), [*labels] * 5)
  assert found == manifest.read(out)
  assert set(found["files"]) == {f"{n}.npy" for n in (*NAMES, "labels")}
  assert found["made_with"]["data"]["label"] == "mine"
  assert set(files(out)) == {*found["files"], "manifest.json"}


def test_a_written_set_equals_a_generated_one(config, out):
  corrupt.write(config, out)

  @jax.tree_util.Partial
  def model(images):
    """Predicts the label whose pixel in the first column is brightest."""
    logits = jnp.zeros((len(images), LABELS[-1] + 1))
    return logits.at[:, LABELS].set(images[:, :SIZE, 0, 0])

  results = []
  for fields in ({"folder": str(out)}, {"generate": True}):
    spec = config.evaluators.corruption.to_dict() | fields
    evaluator = plugins.build("evaluator", spec, batch_size=4)
    evaluator.check(found.batch(*data(config)))
    run, pictures = found.collect(evaluator, model, *data(config))
    rows = [(r.settings, r.correct, r.values) for r in run.rows]
    results.append((rows, pictures, run.notes))
  np.testing.assert_equal(*results)
  assert len(rows) == 15
  assert 0 < sum(correct.sum() for _, correct, _ in rows) < 15 * SIZE


def test_interrupted_set_is_resumed(config, out, monkeypatch):
  corrupt.write(config, out.parent / "whole")
  load = generated.Generator.load

  def interrupted(self, name, severity):
    if (name, severity) == ("fog", 3):
      raise KeyboardInterrupt
    return load(self, name, severity)

  monkeypatch.setattr(generated.Generator, "load", interrupted)
  with pytest.raises(KeyboardInterrupt):
    corrupt.write(config, out)
  kept = files(out)
  assert set(kept) == {
    "manifest.json",
    *(f"{name}.npy" for name in ("labels", "gaussian_noise", "frost")),
  }
  assert set(json.loads(kept["manifest.json"])["files"]) == set(kept) - {
    "manifest.json"
  }
  times = {path: path.stat().st_mtime_ns for path in out.glob("*.npy")}
  monkeypatch.setattr(generated.Generator, "load", load)
  found = corrupt.write(config, out)
  assert found == manifest.read(out)
  assert {path: path.stat().st_mtime_ns for path in times} == times
  whole = files(out.parent / "whole")
  assert {n: b for n, b in files(out).items() if n != "manifest.json"} == {
    n: b for n, b in whole.items() if n != "manifest.json"
  }


def test_complete_set_is_kept_and_damaged_file_regenerated(config, out, capfd):
  corrupt.write(config, out)
  before = files(out)
  capfd.readouterr()
  corrupt.write(config, out)
  assert "is complete: nothing to do" in capfd.readouterr().err
  assert files(out) == before
  (out / "fog.npy").write_bytes(before["fog.npy"][:-1] + b"\0")
  (out / "labels.npy").unlink()
  corrupt.write(config, out)
  assert "  fog (1 of 1)" in capfd.readouterr().err
  for name in ("fog.npy", "labels.npy"):
    assert files(out)[name] == before[name]


def test_frost_can_be_added_later(config, out):
  config.evaluators.corruption.frost_folder = "none"
  found = corrupt.write(config, out)
  assert found["missing"] == {"frost": "frost needs its photographs"}
  assert len(list(out.glob("*.npy"))) == 3
  config.evaluators.corruption.frost_folder = ""
  assert corrupt.write(config, out)["missing"] == {}
  config.evaluators.corruption.frost_folder = "none"
  assert corrupt.write(config, out)["missing"] == {}  # it is there


@pytest.mark.parametrize(
  ("field", "value", "words"),
  [
    ("evaluators.corruption.seed", 1, "seed was 0 and is now 1"),
    ("evaluate.images", 4, "data.size was 6 and is now 4"),
    ("dataset.label", "x", "data.label was 'mine' and is now 'x'"),
  ],
)
def test_folder_with_another_set_is_rejected(config, out, field, value, words):
  config.evaluators.corruption.names = ("fog",)
  corrupt.write(config, out)
  before = files(out)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=f"contains other images.*{words}"):
    corrupt.write(config, out)
  assert files(out) == before


def test_other_versions_are_rejected(config, out, monkeypatch):
  config.evaluators.corruption.names = ("fog",)
  corrupt.write(config, out)
  monkeypatch.setattr(generated, "VERSION", 99)
  with pytest.raises(
    ValueError, match="versions.corruptions was 1 and is now 99"
  ):
    corrupt.write(config, out)


def test_unknown_folder_is_rejected(config, out):
  out.mkdir(parents=True)
  (out / "fog.npy").write_bytes(b"reference")
  with pytest.raises(ValueError, match="contains .npy files that ram_jax did"):
    corrupt.write(config, out)
  with pytest.raises(ValueError, match="fog.npy is a file; give a folder"):
    corrupt.write(config, out / "fog.npy")
  assert files(out) == {"fog.npy": b"reference"}


def test_unwritable_folder_and_full_disk(config, out, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="no permission to write to /"):
      corrupt.write(config, out)
  assert not out.exists()
  save = np.save

  def full(file, array):
    if len(array.shape) == 4:
      file.write(b"half")
      raise OSError(errno.ENOSPC, "No space left on device")
    save(file, array)

  with monkeypatch.context() as patch:
    patch.setattr(corrupt.np, "save", full)
    with pytest.raises(OSError, match="No space left on device"):
      corrupt.write(config, out)
  assert {"labels.npy", "manifest.json"} == {
    name for name in files(out) if not name.endswith(".part")
  }
  assert len(corrupt.write(config, out)["files"]) == 4


@pytest.mark.parametrize(
  ("field", "value"),
  [("folder", "x"), ("tfds_dir", "x"), ("severities", (1, 2))],
)
def test_settings_that_the_layout_does_not_support(config, out, field, value):
  config.evaluators.corruption[field] = value
  config.dataset = standard.get_config().dataset  # whose tfds_dir is allowed
  with pytest.raises(
    ValueError, match="give '', as --mode=corrupt|severities is"
  ):
    corrupt.write(config, out)


def test_cifar_10_c_bar(config, out):
  fields = config.evaluators.corruption
  fields.sets = ("cifar_c_bar",)
  found = corrupt.write(config, out)
  assert set(found["files"]) == {"lines.npy", "labels.npy"}
  assert found["missing"] == {}  # frost is not in this set
  source = cifar_c.CorruptedSource(folder=str(out), set_name="cifar_c_bar")
  source.check(*data(config))
  assert source.names() == ("lines",) and source.missing() == {}
  assert source.label == "test images corrupted as in C-bar by ram_jax, seed 0"
  fields.sets = ("cifar_c", "cifar_c_bar")
  with pytest.raises(ValueError, match="give one set for --mode=corrupt"):
    corrupt.write(config, out)


def test_a_config_without_corruptions(config, out):
  with config.unlocked():
    del config.evaluators["corruption"]
  with pytest.raises(ValueError, match="has no field corruption, which"):
    corrupt.write(config, out)


def test_only_the_first_process_writes(config, out, monkeypatch):
  monkeypatch.setattr(parallel, "is_first_process", lambda: False)
  found = corrupt.write(config, out)
  assert not out.exists() and found["files"] == {}
