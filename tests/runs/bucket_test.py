"""Runs in object stores: fsspec's in-memory store, and a local disk."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import fsspec
import pytest

from ram_jax.runs import bucket, metrics
from tests.main_test import config, data, rejects, run  # noqa: F401
from tests.reliability_test import (  # noqa: F401
  FLAGS,
  KILLED,
  ROOT,
  assert_as_whole,
  command,
  stop_after,
  whole,
)

# Runs are compared with one that was compiled alike.
pytestmark = pytest.mark.usefixtures("quick_compilation")


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
  """The content of a store, copied to a folder."""
  files, root = fsspec.core.url_to_fs(url)
  for path in files.find(root):
    target = folder / path.removeprefix(f"{root}/")
    target.parent.mkdir(parents=True, exist_ok=True)
    files.get_file(path, str(target))
  assert not (folder / bucket.LOCK).exists()
  (folder / "lock").touch()  # the only file of a run that is not copied
  return folder


def kept(url):
  """The local folder that could not be copied."""
  folder = bucket._local_folder(url)
  shutil.rmtree(folder)
  (found,) = folder.parent.glob(f"{folder.name}-*")
  return found


@pytest.mark.slow
def test_stopped_run_resumes_from_the_store(
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
  assert code == 143 and "resuming from step 3 of 8" in err
  code, out, err = run(*argv)
  assert code == 0 and "resuming from step 8 of 8" in err
  assert f"Results: {memory}/results.json" in out
  assert_as_whole(fetched(memory, tmp_path / "copy"), whole)
  left = pathlib.Path(
    err.partition("using the local folder ")[2].partition(",")[0]
  )
  assert left.is_absolute() and not left.exists()
  code, out, err = run(*argv)
  assert code == 0 and "is finished" in err


# Killed runs without a store are tested in reliability_test.py.
@pytest.mark.slow
def test_killed_run_resumes_from_the_store(command, whole, tmp_path):  # noqa: F811
  url = f"file://{tmp_path / 'store'}"
  argv = (*command, f"--workdir={url}")
  quick = "import sys; from ram_jax.runs import bucket; bucket.SECONDS = 0.2\n"
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
    rejects(words, *command, f"--workdir={memory}")
  with bucket.opened(memory):  # nothing is waited for
    pass


def test_store_that_fails(monkeypatch, command, memory):  # noqa: F811
  """The run continues; the local folder is kept, and the message names it."""

  def put(self, path, name):
    raise PermissionError("no rights")

  monkeypatch.setattr(bucket._Store, "_put", put)
  monkeypatch.setattr(bucket, "SECONDS", 0.01)
  code, _, err = run(*command, f"--workdir={memory}")
  last = err.splitlines()[-1]
  start = f"error: {memory} cannot be written to (no rights); everything is in "
  assert code == 2 and last.startswith(start)
  folder = pathlib.Path(last.removeprefix(start).partition(":")[0])
  assert (folder / "results.json").exists()
  assert err.count("cannot be written to at the moment: no rights") == 1
  shutil.rmtree(folder)


def test_store_that_fails_for_a_while(monkeypatch, memory):
  real, left = bucket._Store._put, [ConnectionError()] * (bucket.TRIES - 1)

  def put(self, path, name):
    if left:
      raise left.pop()
    real(self, path, name)

  monkeypatch.setattr(bucket._Store, "_put", put)
  monkeypatch.setattr(bucket, "SECONDS", 0.5)
  with bucket.opened(memory) as folder:
    (folder / "a").write_text("a")
  assert fsspec.filesystem("memory").cat(f"{memory}/a") == b"a"


def test_store_errors_do_not_hide_the_original_error(
  monkeypatch, memory, capsys
):
  def put(self, path, name):
    raise ConnectionError("no network")

  monkeypatch.setattr(bucket._Store, "_put", put)
  fails = pytest.raises(FloatingPointError, match=f"see {memory}/x")
  with fails, bucket.opened(memory) as folder:
    (folder / "a").write_text("a")
    raise FloatingPointError(f"see {folder}/x")
  said = capsys.readouterr().err.splitlines()[-1]
  assert said.startswith(f"{memory} cannot be written to (no network)")
  shutil.rmtree(kept(memory))


def test_sigterm_does_not_end_the_last_copy(monkeypatch, memory):
  real = bucket._Store._put

  def put(self, path, name):
    os.kill(os.getpid(), signal.SIGTERM)
    real(self, path, name)

  monkeypatch.setattr(bucket, "SECONDS", 60)
  monkeypatch.setattr(bucket._Store, "_put", put)
  before = signal.getsignal(signal.SIGTERM)
  with bucket.opened(memory) as folder:
    (folder / "a").write_text("a")
  assert fsspec.filesystem("memory").cat(f"{memory}/a") == b"a"
  assert signal.getsignal(signal.SIGTERM) == before


def test_store_taken_over_while_disconnected(memory):
  """A program that reconnects after a takeover changes nothing in the store."""
  store = fsspec.filesystem("memory")
  fails = pytest.raises(OSError, match="process 1 on moon has taken it over")
  with fails, bucket.opened(memory) as folder:
    (folder / "a").write_text("a")
    time.sleep(3 * bucket.SECONDS)  # it may be copied: an error all the same
    for _ in range(15):  # its sign is renewed every SECONDS, as may be just now
      store.pipe_file(f"{memory}/{bucket.LOCK}", b"process 1 on moon, x, 1")
      time.sleep(bucket.SECONDS / 2)
  shutil.rmtree(kept(memory))
  assert store.cat(f"{memory}/{bucket.LOCK}") == b"process 1 on moon, x, 1"


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
  rejects(words, *command, f"--workdir={url}")


def test_run_resumes_from_an_interrupted_copy(monkeypatch, memory, tmp_path):
  """At any time, one checkpoint is complete, with all lines before it."""
  files, root = fsspec.core.url_to_fs(memory)
  left = []

  def mortal(real):
    def act(*arguments):
      if not left:
        raise ConnectionError
      left.pop()
      real(*arguments)
      if arguments[-1] == "checkpoints/4/data":  # meanwhile the run continues
        save(6)
        save(8)

    return act

  def save(step):
    with open(folder / "metrics.jsonl", "a") as file:
      file.write(f"{step}\n")
    (folder / f"checkpoints/{step}").mkdir(parents=True)
    for name in ("data", "more"):
      (folder / f"checkpoints/{step}/{name}").write_text("x")
    shutil.rmtree(folder / f"checkpoints/{step - 4}", ignore_errors=True)

  monkeypatch.setattr(bucket._Store, "_put", mortal(bucket._Store._put))
  real = type(files).rm_file
  monkeypatch.setattr(type(files), "rm_file", mortal(real))
  for count in range(20):
    folder = tmp_path / f"{count}"
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
    lines = files.cat_file(f"{root}{count}/metrics.jsonl").decode().split()
    last = f"{root}{count}/checkpoints/{{}}/more"
    whole_ones = [n for n in (2, 4, 6, 8) if last.format(n) in there]
    assert whole_ones, count
    assert {str(step) for step in whole_ones} <= set(lines), count
  assert whole_ones == [6, 8]
  left[:] = [0] * 1000  # for what comes after the test


def test_lost_response(memory, tmp_path):
  """An object that was already deleted is not an error."""
  folder = tmp_path / "run"
  folder.mkdir()
  (folder / "a").write_text("a")
  store = bucket._Store(memory)
  store.push(folder)
  fsspec.filesystem("memory").rm_file(f"{memory}/a")
  (folder / "a").unlink()
  store.push(folder)


def test_deleted_files_are_deleted_in_the_store(memory, tmp_path):
  files, root = fsspec.core.url_to_fs(memory)
  store, names = bucket._Store(memory), ("a", "b.part", "c/d")
  folder = tmp_path / "run"
  for name in names:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(name)
  store.push(folder)
  assert files.find(root) == [f"{root}/a", f"{root}/c/d"]
  (folder / "c/d").unlink()
  store.push(folder)
  assert files.find(root) == [f"{root}/a"]
  assert not [t for t in threading.enumerate() if t.name == "bucket"]


def test_compare_in_a_store(whole, memory):  # noqa: F811
  files = fsspec.filesystem("memory")
  files.put(str(whole), memory, recursive=True)
  argv = ("--mode=compare", f"--workdir={memory}", f"--reference={whole}")
  code, out, err = run(*argv)
  assert code == 0, err
  written = [line.strip() for line in out.partition("Written:")[2].split()]
  assert written and all(files.exists(name) for name in written)
  assert all(name.startswith(f"{memory}/comparison-") for name in written)


@pytest.mark.parametrize("flag", ["runs", "workdir"])
def test_reports_must_be_local(flag):
  given = {"runs": "runs/a", "workdir": "report"} | {flag: "gs://bucket/run"}
  words = f"--{flag}=gs://bucket/run is a URL, which is only supported as"
  rejects(words, "--mode=report", *(f"--{k}={v}" for k, v in given.items()))
