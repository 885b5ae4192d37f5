"""Runs in object stores (gs://…): a local folder that is copied there.

Such stores can neither append nor rename. So a run works in a folder of its
own on this machine, and what changes there is copied, every few seconds and at
the end. A machine that is lost costs what came after the last copy.
"""

import contextlib
import hashlib
import os
import pathlib
import posixpath
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import fsspec
import jax

from ram_jax import parallel
from ram_jax.runs import metrics, snapshot

SECONDS = 10  # between copies
TRIES = 3  # of the last one
LOCK = "in_use"  # an object that changes as long as a program works there
# Stores without folders: asked for one, some make a bucket.
FLAT = {"gs", "gcs", "s3", "s3a", "abfs", "abfss", "az", "adl", "oci", "oss"}


@contextlib.contextmanager
def opened(workdir: str) -> Iterator[pathlib.Path]:
  """The folder in which a run works.

  Args:
    workdir: a folder, which is given as it is, or the URL of one in an object
      store: anything that fsspec knows.

  Yields:
    The folder. That of a URL holds what is there, and is copied back by the
    first process; other processes have copies of their own.

  Raises:
    ValueError: if the store cannot be reached, or another program works there.
    OSError: if the last copy fails; the folder is kept then.
  """
  if "://" not in workdir:
    yield pathlib.Path(workdir)
    return
  store = _Store(workdir)
  parallel.any_process(False)  # all are there before one of them waits
  parallel.first_process(store.claim)
  with contextlib.ExitStack() as stack:
    if parallel.is_first_process():
      stack.callback(store.release)
      stack.enter_context(_every(SECONDS, store.mark, workdir))
    base = _place(workdir)
    folder, copy = base / "run", base / "copy"
    metrics.announce(f"{workdir}: worked on in {folder}, copied as it goes")
    store.pull(folder)
    # Nobody's copy may hold already what the first process does next.
    parallel.any_process(False)
    if parallel.is_first_process():
      stack.enter_context(store.kept(folder, copy))
    else:
      stack.callback(shutil.rmtree, base)
    try:
      yield folder
    except (ValueError, OSError, FloatingPointError) as error:
      error.args = tuple(
        part.replace(str(folder), workdir) if isinstance(part, str) else part
        for part in error.args
      )
      raise


def _place(workdir: str) -> pathlib.Path:
  """An empty place for a run, the same again after a kill."""
  whose = f"{workdir} {os.getuid()} {jax.process_index()}"
  digest = hashlib.sha256(whose.encode()).hexdigest()[:16]
  base = pathlib.Path(tempfile.gettempdir()) / f"ram_jax-{digest}"
  shutil.rmtree(base, ignore_errors=True)
  for name in ("run", "copy"):
    (base / name).mkdir(parents=True, mode=0o700)
  return base


@contextlib.contextmanager
def _every(
  seconds: float, function: Callable[[], None], what: str
) -> Iterator[None]:
  """Calls a function now and then; one that fails is called again."""
  ended = threading.Event()

  def repeat() -> None:
    failed = False
    while not ended.wait(seconds):
      try:
        function()
        failed = False
      except Exception as error:  # whatever the store raises
        if not failed:
          metrics.announce(f"{what} cannot be written now: {error}")
        failed = True

  thread = threading.Thread(target=repeat, name="bucket", daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()


class _Store:
  """A folder in an object store."""

  def __init__(self, url: str) -> None:
    self.url = url
    try:
      self._files, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
      raise ValueError(
        f"--workdir={url} cannot be used: {error} (gs:// needs the package "
        "gcsfs, s3:// s3fs)"
      ) from error
    self._root = root.rstrip("/")
    self._flat = url.partition("://")[0] in FLAT
    self._copied: dict[str, tuple[int, int]] = {}  # name -> size, time
    self._pushing = threading.Lock()
    self._who = f"process {os.getpid()} on {socket.gethostname()}"
    self._token, self._beat, self._lost = uuid.uuid4().hex, 0, ""

  def claim(self) -> None:
    """Rejects a folder in which another program works; begins to work there.

    A program that was killed leaves its sign, which then changes no more.
    """
    with self._told("read or written"):
      before = self._sign()
      if before is not None:
        metrics.announce(
          f"{self.url} was in use by {before.partition(',')[0]}: looking for "
          f"{2 * SECONDS} s whether it still is"
        )
        time.sleep(2 * SECONDS)
        if self._sign() not in (None, before):
          raise ValueError(
            f"--workdir={self.url} is in use by {before.partition(',')[0]}: "
            "wait for it or stop it, or choose another --workdir"
          )
      self._sign_it()

  def mark(self) -> None:
    """Says that this program still works there."""
    sign = self._sign()
    if sign is not None and self._token not in sign:
      # As it may where this one was cut off for long.
      self._lost = f"{sign.partition(',')[0]} has taken it over"
    if not self._lost:
      self._sign_it()

  def release(self) -> None:
    """Ends the work there."""
    if not self._lost:
      with contextlib.suppress(Exception):  # the sign goes stale by itself
        self._files.rm_file(self._path(LOCK))

  def pull(self, folder: pathlib.Path) -> None:
    """Copies what is there into an empty folder."""
    with self._told("read"):
      self._files.invalidate_cache()
      for path in self._files.find(self._root):
        name = posixpath.relpath(path, self._root)
        # Some stores have objects for the folders themselves.
        if path.endswith("/") or name == LOCK or ".." in name.split("/"):
          continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._files.get_file(path, str(target))
        self._copied[name] = snapshot.stamp(target)

  @contextlib.contextmanager
  def kept(self, folder: pathlib.Path, copy: pathlib.Path) -> Iterator[None]:
    """Copies what changes; in the end removes the folders."""
    every = _every(SECONDS, lambda: self.push(folder, copy), self.url)
    try:
      with every:
        yield
    except BaseException:
      if problem := self._push_last(folder, copy):
        metrics.announce(problem)
      raise
    if problem := self._push_last(folder, copy):
      raise OSError(problem)

  def _push_last(self, folder: pathlib.Path, copy: pathlib.Path) -> str:
    """The problem, if there is one; then the folder gets another name."""
    with _deaf_to_sigterm():
      for left in reversed(range(TRIES)):
        try:
          self.push(folder, copy)
          shutil.rmtree(folder.parent)
          return ""
        except KeyboardInterrupt:
          problem = "interrupted"
          break
        except Exception as error:  # whatever the store raises
          problem = str(error)
          time.sleep(SECONDS / 2 if left else 0)
    kept = folder.parent.with_name(f"{folder.parent.name}-{time.time():.0f}")
    folder.parent.rename(kept)
    return (
      f"{self.url} cannot be written ({problem}); everything is in "
      f"{kept / 'run'}: copy it there, and the same command resumes"
    )

  def push(self, folder: pathlib.Path, copy: pathlib.Path) -> None:
    """Copies what has changed, in an order that can be gone on from any time.

    Args:
      folder: the run's.
      copy: a folder beside it, of how it is at this moment.

    Checkpoints come late, so that none lacks its lines of metrics.jsonl; what
    is gone goes last, so that one checkpoint is whole at any time.
    """
    with self._pushing:
      while not snapshot.make(folder, copy):
        time.sleep(0.01)
      here = {
        path.relative_to(copy).as_posix(): path
        for path in copy.rglob("*")
        if path.is_file()
      }
      for name in sorted(here, key=lambda n: (n.startswith("checkpoints/"), n)):
        stamp = snapshot.stamp(here[name])
        if self._copied.get(name) != stamp:
          self._put(here[name], name)
          self._copied[name] = stamp
      for name in self._copied.keys() - here.keys():
        # It may be gone already, if the answer to an earlier try was lost.
        with contextlib.suppress(FileNotFoundError):
          self._files.rm_file(self._path(name))
        del self._copied[name]

  def _put(self, path: pathlib.Path, name: str) -> None:
    if self._lost:
      raise OSError(self._lost)
    if not self._flat:
      parent = posixpath.dirname(self._path(name))
      self._files.makedirs(parent, exist_ok=True)
    self._files.put_file(str(path), self._path(name))

  def _sign(self) -> str | None:
    self._files.invalidate_cache()
    try:
      return self._files.cat_file(self._path(LOCK)).decode(errors="replace")
    except FileNotFoundError:
      return None

  def _sign_it(self) -> None:
    self._beat += 1
    if not self._flat:
      self._files.makedirs(self._root, exist_ok=True)
    sign = f"{self._who}, {self._token}, {self._beat}"
    self._files.pipe_file(self._path(LOCK), sign.encode())

  def _path(self, name: str) -> str:
    return f"{self._root}/{name}"

  @contextlib.contextmanager
  def _told(self, what: str) -> Iterator[None]:
    try:
      yield
    except ValueError:
      raise
    except Exception as error:  # whatever the store raises
      raise ValueError(
        f"--workdir={self.url} cannot be {what}: {error}"
      ) from error


@contextlib.contextmanager
def _deaf_to_sigterm() -> Iterator[None]:
  """SIGTERM changes nothing; who sent it kills in the end."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
