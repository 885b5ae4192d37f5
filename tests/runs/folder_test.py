"""A run's folder: ownership, fields that may differ, and finished runs."""

import json
import os

import numpy as np
import pytest

from configs import augmix, robust_augmix
from ram_jax import experiment
from ram_jax.contracts import Row
from ram_jax.runs import folder as run_folder
from ram_jax.runs import results as runs
from ram_jax.runs.checkpoint import Checkpoints

SPLIT = {"size": 64, "fingerprint": "sha256:0"}
DATA = {"train": SPLIT, "test": SPLIT, "notes": ["odd"]}


def config(**overrides):
  found = robust_augmix.get_config("smoke")
  found.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in overrides.items()}
  )
  return found


def test_differences_ignore_tuples_and_given_fields():
  given = experiment.resolve(config())
  saved = json.loads(json.dumps(given.to_dict()))
  assert run_folder.differences(saved, given.to_dict()) == []
  saved["seed"] = 3
  saved["evaluate"]["images"] = 7
  del saved["model"]["depth"]
  assert run_folder.differences(saved, given.to_dict()) == [
    "evaluate.images was 7 and is now 32",
    "model.depth was None and is now 10",
    "seed was 3 and is now 0",
  ]
  assert len(run_folder.differences(saved, given.to_dict(), ("evaluate",))) == 2


def owned(folder, given):
  """The folder of a run that was started."""
  resolved = experiment.resolve(given)
  run_folder.claim(resolved, DATA, folder)
  return resolved


def test_own_folder_is_accepted_and_evaluation_may_differ(tmp_path):
  given = owned(tmp_path / "run", config())
  run_folder.check(given, tmp_path / "run")
  run_folder.check(given, tmp_path / "not" / "there" / "yet")
  assert [p.name for p in tmp_path.iterdir()] == ["run"]  # nothing is made
  other = config(evaluate__images=5, name="other")
  run_folder.check(experiment.resolve(other), tmp_path / "run")


def test_data_may_move_but_not_change(tmp_path):
  owned(tmp_path, config(dataset__folder="here"))
  moved = experiment.resolve(config(dataset__folder="there"))
  run_folder.check(moved, tmp_path)
  run_folder.check_data(DATA, tmp_path)
  run_folder.check_data(DATA, tmp_path / "new")
  run_folder.check_data({"test": SPLIT}, tmp_path)  # to evaluate it
  other = SPLIT | {"fingerprint": "sha256:1"}
  for split, words in (("train", "trained"), ("test", "evaluated")):
    with pytest.raises(ValueError, match=f"was {words} on different data"):
      run_folder.check_data(DATA | {split: other}, tmp_path)
  assert run_folder.read_data(tmp_path) == DATA
  (tmp_path / "data.json").write_text("{")
  with pytest.raises(ValueError, match=r"data\.json is damaged"):
    run_folder.check_data(DATA, tmp_path)


def test_folder_of_another_run_is_rejected(tmp_path):
  owned(tmp_path, config())
  other = experiment.resolve(config(seed=1, train__epochs=7))
  with pytest.raises(ValueError) as caught:
    run_folder.check(other, tmp_path)
  assert "seed was 0 and is now 1; train.epochs was 1 and is now 7" in str(
    caught.value
  )
  with pytest.raises(ValueError, match=r"; and \d+ more\. Choose another"):
    run_folder.check(experiment.resolve(augmix.get_config()), tmp_path)


def test_unusable_folders(tmp_path, monkeypatch):
  given = experiment.resolve(config())
  file = tmp_path / "file"
  file.write_text("")
  for folder in (file, file / "below", file / "far" / "below"):
    with pytest.raises(ValueError, match="file is a file; give a folder"):
      run_folder.check(given, folder)
  for name in ("lr[0.1]", "a\\b"):  # orbax cannot read its files there
    with pytest.raises(ValueError, match="the path contains .*, which check"):
      run_folder.check(given, tmp_path / name / "run")
  monkeypatch.setattr(os, "access", lambda path, mode: False)
  with pytest.raises(ValueError, match="no permission to write to"):
    run_folder.check(given, tmp_path / "new")


def test_checkpoints_of_an_unknown_config(tmp_path):
  (tmp_path / "checkpoints").mkdir()
  with pytest.raises(ValueError, match=r"but not the config\.json"):
    run_folder.check(experiment.resolve(config()), tmp_path)


def test_config_without_data_is_rejected(tmp_path):
  given = experiment.resolve(config())
  run_folder.claim(given, DATA, tmp_path)
  (tmp_path / "data.json").unlink()
  with pytest.raises(ValueError, match=r"config\.json but not data\.json"):
    run_folder.check(given, tmp_path)


@pytest.mark.parametrize("text", ["", '{"train": {"epo', "[]", "{}", "\xff"])
def test_damaged_config_is_reported(tmp_path, text):
  (tmp_path / "config.json").write_text(text, encoding="latin-1")
  for read in (
    lambda: run_folder.read(tmp_path),
    lambda: run_folder.check(experiment.resolve(config()), tmp_path),
  ):
    with pytest.raises(ValueError, match=r"config\.json is damaged .*restore"):
      read()


def test_config_is_read_back(tmp_path):
  with pytest.raises(FileNotFoundError, match="give the folder of a run"):
    run_folder.read(tmp_path)
  given = owned(tmp_path, config())
  assert (
    run_folder.differences(run_folder.read(tmp_path), given.to_dict()) == []
  )


def test_json_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / "new" / "file.json"
  run_folder.write_json({"a": 1}, path)
  with pytest.raises(TypeError):
    run_folder.write_json({"a": object()}, path)

  def full(file):
    raise OSError("No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="No space"):
    run_folder.write_json({"a": 2}, path)
  assert json.loads(path.read_text()) == {"a": 1}


class Trained:
  """A finished run's folder, without the training: 64 images, 4 steps."""

  def __init__(self, folder):
    self.folder, self.config = folder, owned(folder, config())
    self.head = {
      "run": {"name": "x-0", "label": "X", "model": "M", "step": 4}
      | {"method": "x", "data_label": "D", "seed": 0},
      "config": self.config.to_dict(),
      "data": {"train": {"size": 64}},
    }
    self.write()

  def write(self):
    runs.write(self.folder, self.head, [Row("clean", {}, 2, 1)])

  def save(self, *steps):
    checkpoints = Checkpoints(self.folder / "checkpoints")
    for step in steps:
      checkpoints.save(step, {"step": np.int32(step)})
    checkpoints.close()


@pytest.fixture
def trained(tmp_path):
  return Trained(tmp_path / "run")


def test_finished_run_is_recognized(trained, tmp_path):
  assert run_folder.finished(trained.config, tmp_path / "none") is None
  # Without checkpoints, the results can still be shown.
  assert run_folder.finished(trained.config, trained.folder)
  trained.save(3)
  assert run_folder.finished(trained.config, trained.folder) is None
  trained.save(4)
  found = run_folder.finished(trained.config, trained.folder)
  assert (found.rows[0].correct_count, found.rows[0].total) == (1, 2)
  other = experiment.resolve(config(evaluate__images=5))
  assert run_folder.finished(other, trained.folder) is None


@pytest.mark.parametrize("case", ["partly", "step", "damaged", "foreign"])
def test_unfinished_or_unknown_results_are_reevaluated(trained, case):
  trained.save(4)
  if case == "partly":  # evaluated by --mode=evaluate while it was training
    trained.head["run"]["step"] = 2
  elif case == "step":  # of a longer run, by the size of its data
    trained.head["data"]["train"]["size"] = 80
  elif case == "foreign":
    del trained.head["data"]
  trained.write()
  if case == "damaged":
    path = trained.folder / "results.json"
    path.write_text(path.read_text()[:-20])
  assert run_folder.finished(trained.config, trained.folder) is None
