"""A run that is killed or stopped at any point resumes bit-identically."""

import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from ram_jax.evaluation import cache as parts
from ram_jax.evaluation import loop as evaluate
from ram_jax.runs import folder as run_folder
from ram_jax.runs.checkpoint import Checkpoints
from tests.main_test import config, data, rejects, results, run  # noqa: F401
from tests.training.loop_test import lines

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLAGS = (
  "--config.train.epochs=2",  # 8 steps
  "--config.train.log_every=3",
  "--config.evaluators.corruption.generate=True",
  "--config.evaluators.corruption.names=brightness,contrast",
  "--config.evaluators.corruption.severities=1,5",
  "--config.evaluators.fourier.images=8",  # 34 frequencies
)
PARTS = 1 + 2 * 2 + 34


@pytest.fixture(scope="module")
def command(config):  # noqa: F811
  return (config, *FLAGS)


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
  """The folder of an uninterrupted run."""
  folder = tmp_path_factory.mktemp("whole") / "run"
  code, _, err = run(*command, f"--workdir={folder}")
  assert code == 0, err
  return folder


def state(folder):
  checkpoints = Checkpoints(folder / "checkpoints")
  saved, open_line, path = checkpoints.newest()
  checkpoints.close()
  return path.name, saved, open_line


def assert_as_whole(folder, whole):
  assert results(folder) == results(whole)
  assert lines(folder) == lines(whole)
  for name in ("correct.npz", "config.json", "data.json"):
    assert (folder / name).read_bytes() == (whole / name).read_bytes()
  jax.tree.map(np.testing.assert_array_equal, state(folder), state(whole))
  names = [{p.name for p in f.iterdir()} for f in (folder, whole)]
  assert names[0] == names[1]
  assert "parts.jsonl" not in names[1] and "figures" in names[1]


# Kills itself at a given point, like a power failure.
KILLED = """
import os, signal, sys
sys.path[0] = sys.argv.pop(1)
import main
from ram_jax.evaluation import cache as parts
where = sys.argv.pop(1)

def kill():
  os.kill(os.getpid(), signal.SIGKILL)

def rename(source, target, *rest, real=os.rename, **options):
  if os.fspath(target).endswith("checkpoints/" + where):
    kill()
  real(source, target, *rest, **options)

def keep(self, row, real=parts.Parts._keep):
  real(self, row)
  if where == "part" and "contrast 1" in row["name"]:
    size = self._path.stat().st_size
    os.truncate(self._path, size - 9)
    kill()

os.rename, parts.Parts._keep = rename, keep
main.main(sys.argv[1:])
"""


def test_killed_run_resumes_bit_identically(command, whole, tmp_path):
  folder = tmp_path / "run"
  argv = (*command, f"--workdir={folder}")
  # While a checkpoint is being renamed, and while a line is being written.
  for where in ("8", "part"):
    program = [sys.executable, "-c", KILLED, str(ROOT), where, *argv]
    killed = subprocess.run(
      program,
      capture_output=True,
      text=True,
      env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if where == "8":
      left = [p.name for p in (folder / "checkpoints").iterdir()]
      assert "8" not in left and len(left) == 2  # one is unfinished
  assert "resuming from step 4 of 8" in killed.stderr
  assert len(parts._read(folder / "parts.jsonl")) == 3
  code, _, err = run(*argv)
  assert code == 0 and "resuming from step 8 of 8" in err
  assert_as_whole(folder, whole)


@pytest.fixture
def trained(whole, tmp_path):
  """The folder of a run as it was at the end of training."""
  folder = shutil.copytree(whole, tmp_path / "run")
  (folder / "results.json").unlink()
  (folder / "correct.npz").unlink()
  return folder


def counted(monkeypatch):
  """Names of the parts that are evaluated from now on."""
  names, real = [], parts.Parts._keep

  def keep(self, row):
    names.append(row["name"])
    real(self, row)

  monkeypatch.setattr(parts.Parts, "_keep", keep)
  return names


def stop_after(monkeypatch, count):
  names = counted(monkeypatch)
  real = parts.Parts._keep

  def keep(self, row):
    real(self, row)
    if len(names) == count:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(parts.Parts, "_keep", keep)


def test_sigterm_during_evaluation(monkeypatch, command, whole, trained):
  argv = (*command, f"--workdir={trained}")
  with monkeypatch.context() as patch:
    stop_after(patch, 10)
    code, out, err = run(*argv)
  assert (code, out) == (143, "")
  line = "stopped by SIGTERM: finished parts of the evaluation are kept; "
  assert err.splitlines()[-1].startswith(line)
  names = counted(monkeypatch)
  assert run(*argv, "--mode=evaluate")[0] == 0
  assert len(names) == PARTS - 10
  assert_as_whole(trained, whole)


def test_stale_and_damaged_parts_are_evaluated_again(
  monkeypatch, command, trained
):
  argv = (*command, f"--workdir={trained}", "--mode=evaluate")
  fourier = "--config.evaluators.fourier.norm=3.0"
  with monkeypatch.context() as patch:
    stop_after(patch, 10)
    assert run(*argv)[0] == 143
  path = trained / "parts.jsonl"
  kept = path.read_text()
  lines = kept.split("\n")
  lines[3] = lines[3].replace('"seconds"', '"minutes"')
  path.write_text("\n".join(lines))
  names = counted(monkeypatch)
  monkeypatch.setattr(parts.Parts, "remove", lambda self: None)
  # One line is damaged, and five have a different norm.
  assert run(*argv, fourier)[0] == 0 and len(names) == PARTS - 10 + 1 + 5
  for change in ("weights", "images", "program"):
    path.write_text(kept)
    names.clear()
    with monkeypatch.context() as patch:
      if change == "weights":
        patch.setattr(evaluate, "fingerprint", lambda tree: "other")
      elif change == "program":
        patch.setattr(evaluate, "cache_key", lambda: {"program": "other"})
      images = "--config.evaluate.images=16" if change == "images" else fourier
      assert run(*argv, images)[0] == 0
    assert len(names) == PARTS, change


def test_weights_of_a_file_are_evaluated_in_parts(
  monkeypatch, command, whole, tmp_path
):
  file = tmp_path / "file.safetensors"
  assert run("--mode=export", f"--workdir={whole}", f"--out={file}")[0] == 0
  argv = (*command, "--mode=evaluate", f"--weights={file}")
  assert run(*argv, f"--workdir={tmp_path / 'whole'}")[0] == 0
  argv += (f"--workdir={tmp_path / 'run'}",)
  with monkeypatch.context() as patch:
    stop_after(patch, 7)
    assert run(*argv)[0] == 143
  names = counted(monkeypatch)
  assert run(*argv)[0] == 0 and len(names) == PARTS - 7
  assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_stamp_detects_changed_files(tmp_path):
  (tmp_path / "a").mkdir()
  (tmp_path / "a" / "fog.npy").write_text("1")
  stamps = [parts.stamp("", ""), parts.stamp(str(tmp_path), "")]
  (tmp_path / "a" / "fog.npy").write_text("22")
  stamps.append(parts.stamp(str(tmp_path), ""))
  assert len(set(stamps)) == 3
  assert parts.stamp("", str(tmp_path)) == stamps[2]
  link = tmp_path.with_name("link")
  link.mkdir()
  empty = parts.stamp(str(link))
  (link / "set").symlink_to(tmp_path)
  assert parts.stamp(str(link)) != empty


def test_folder_in_use(command, trained):
  workdir = f"--workdir={trained}"
  with run_folder.lock(trained):
    for mode in ("train", "evaluate"):
      words = f"is in use by process {os.getpid()} on "
      rejects(words, *command, workdir, f"--mode={mode}")
  with run_folder.lock(trained):  # the file stays, the lock does not
    pass


@pytest.fixture
def small_files(monkeypatch):
  """Limits the size of files, to simulate a full disk."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)

  def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

  yield limit
  resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
  ("size", "words"),
  [
    (100, r"\[Errno 27\] File too large.*the same command resumes"),
    (20_000, "a checkpoint cannot be written .*the same command resumes from"),
  ],
)
def test_full_disk(command, whole, tmp_path, small_files, size, words):
  argv = (*command, f"--workdir={tmp_path / 'run'}")
  small_files(size)
  try:
    code, out, err = run(*argv)
  finally:
    small_files(resource.RLIM_INFINITY)
  assert (code, out) == (2, "")
  assert re.search(words, err.splitlines()[-1]), err
  assert run(*argv)[0] == 0
  assert_as_whole(tmp_path / "run", whole)


def test_config_json_rebuilds_the_run(command, whole, tmp_path):
  """This also shows that the same seed gives bit-identical results."""
  record = f"--config={whole / 'config.json'}"
  code, _, err = run(record, f"--workdir={tmp_path / 'run'}")
  assert code == 0, err
  assert_as_whole(tmp_path / "run", whole)
  rejects("already contains all choices", f"{record}:smoke")
  rejects(
    "seed was 0 and is now 1",
    *(record, f"--workdir={whole}", "--config.seed=1"),
  )
  broken = tmp_path / "config.json"
  broken.write_text("{")
  rejects("config.json is damaged", f"--config={broken}")
