"""Runs in an object store: fsspec's in memory, and its view of a local disk."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import fsspec
import pytest

from ram_jax import bucket, metrics
from tests.main_test import config, data, refuses, run  # noqa: F401
from tests.reliability_test import (  # noqa: F401
  FLAGS,
  KILLED,
  ROOT,
  assert_as_whole,
  command,
  stop_after,
  whole,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(bucket, "SECONDS", 0.2)


@pytest.fixture
def memory():
  """The URL of an empty store."""
  files = fsspec.filesystem("memory")
  yield "memory://bucket/run"
  files.rm("/", recursive=True)


def fetched(url, folder):
  """What lies in a store, as a folder."""
  files, root = fsspec.core.url_to_fs(url)
  files.get(root, str(folder), recursive=True)
  assert not (folder / bucket.LOCK).exists()
  (folder / "lock").touch()  # the only file of a run that is not copied
  return folder


def test_stopped_run_goes_on_from_the_store(
  monkeypatch,
  command,  # noqa: F811
  whole,  # noqa: F811
  memory,
  tmp_path,
):
  argv = (*command, f"--workdir={memory}")
  real = metrics.MetricWriter.write

  def write(self, row):
    real(self, row)
    if row["step"] == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(metrics.MetricWriter, "write", write)
    code, _, err = run(*argv)
  assert code == 143 and "step 3 of 8 is saved" in err
  with monkeypatch.context() as patch:
    stop_after(patch, 10)
    code, _, err = run(*argv)
  assert code == 143 and "going on from step 3 of 8" in err
  code, out, err = run(*argv)
  assert code == 0 and "going on from step 8 of 8" in err
  assert f"Results: {memory}/results.json" in out
  assert_as_whole(fetched(memory, tmp_path / "copy"), whole)
  left = pathlib.Path(err.partition("worked on in ")[2].partition(",")[0])
  assert left.name.startswith("ram_jax-") and not left.exists()
  code, out, err = run(*argv)
  assert code == 0 and "is finished" in err


def test_killed_run_goes_on_from_the_store(command, whole, tmp_path):  # noqa: F811
  url = f"file://{tmp_path / 'store'}"
  argv = (*command, f"--workdir={url}")
  quick = "import sys; from ram_jax import bucket; bucket.SECONDS = 0.2\n"
  quick = f"import sys; sys.path.insert(0, sys.argv[1])\n{quick}"
  program = [sys.executable, "-c", quick + KILLED, str(ROOT), "part", *argv]
  killed = subprocess.run(
    program, capture_output=True, text=True, cwd=tmp_path, check=False
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert (tmp_path / "store" / bucket.LOCK).exists()
  code, _, err = run(*argv)
  assert code == 0 and "was in use by process" in err
  assert_as_whole(fetched(url, tmp_path / "copy"), whole)


def test_store_in_use(command, memory):  # noqa: F811
  with bucket.opened(memory):
    words = f"--workdir={memory} is in use by process {os.getpid()} on "
    refuses(words, *command, f"--workdir={memory}")
  with bucket.opened(memory):  # nothing is waited for
    pass


def test_store_that_fails(monkeypatch, command, memory, capsys):  # noqa: F811
  """The run goes on; what could not be copied is kept, and where is said."""
  real = bucket._Store._put

  def put(self, path, name):
    if name == "results.json":
      raise PermissionError("no rights")
    real(self, path, name)

  monkeypatch.setattr(bucket._Store, "_put", put)
  code, _, err = run(*command, f"--workdir={memory}")
  last = err.splitlines()[-1]
  start = f"error: {memory} cannot be written (no rights); everything is in "
  assert code == 2 and last.startswith(start)
  folder = pathlib.Path(last.removeprefix(start).partition(":")[0])
  assert (folder / "results.json").exists()
  assert err.count("cannot be written now: no rights") <= 1


@pytest.mark.parametrize(
  ("url", "words"),
  [
    ("gs://bucket/run", "gcsfs"),
    ("nothing://bucket/run", "Protocol not known: nothing"),
    ("file:///dev/null/run", "cannot be read or written: "),
  ],
)
def test_unusable_store(monkeypatch, command, url, words):  # noqa: F811
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  refuses(words, *command, f"--workdir={url}")


def test_copy_that_breaks_off_can_be_gone_on_from(
  monkeypatch, memory, tmp_path
):
  """Whatever is copied last: no whole checkpoint lacks its lines."""
  files, root = fsspec.core.url_to_fs(memory)
  real, left = bucket._Store._put, []

  def put(self, path, name):
    if not left:
      raise ConnectionError
    left.pop()
    real(self, path, name)
    if name == "checkpoints/4/data":  # meanwhile the run is further
      save(6)

  def save(step):
    with open(folder / "metrics.jsonl", "a") as file:
      file.write(f"{step}\n")
    (folder / f"checkpoints/{step}").mkdir(parents=True)
    for name in ("data", "more"):
      (folder / f"checkpoints/{step}/{name}").write_text("x")

  monkeypatch.setattr(bucket._Store, "_put", put)
  for count in range(12):
    folder = tmp_path / str(count)
    folder.mkdir()
    store = bucket._Store(f"{memory}{count}")
    left[:] = [0] * 100
    save(2)
    store.push(folder)
    save(4)
    left[:] = [0] * count
    for _ in range(2):
      try:
        store.push(folder)
      except ConnectionError:
        break
    there = files.find(f"{root}{count}")
    text = files.cat_file(f"{root}{count}/metrics.jsonl").decode()
    last = f"{root}{count}/checkpoints/{{}}/more"
    complete = [step for step in (2, 4, 6) if last.format(step) in there]
    assert 2 in complete
    assert all(str(step) in text.splitlines() for step in complete), count
  assert complete == [2, 4, 6]


def test_what_is_gone_here_goes_there(memory, tmp_path):
  files, root = fsspec.core.url_to_fs(memory)
  store, names = bucket._Store(memory), ("a", "b.part", "c/d")
  for name in names:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(name)
  store.push(tmp_path)
  assert files.find(root) == [f"{root}/a", f"{root}/c/d"]
  (tmp_path / "c/d").unlink()
  store.push(tmp_path)
  assert files.find(root) == [f"{root}/a"]
  assert not [t for t in threading.enumerate() if t.name == "bucket"]
