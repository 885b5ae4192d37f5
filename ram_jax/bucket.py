"""Runs in object stores (gs://…): a local copy that is kept there.

Such stores can neither append nor rename. So a run works in a folder of its
own on this machine, and what changes there is copied, every few seconds and at
the end. A machine that is lost costs what came after the last copy.
"""

import contextlib
import os
import pathlib
import posixpath
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import fsspec

from ram_jax import metrics, parallel

SECONDS = 10  # between copies
LOCK = "in_use"  # an object that changes as long as a program works there
IGNORED = ("lock", "*.part", "*.orbax-checkpoint-tmp*")


def is_url(workdir: str) -> bool:
  """Whether a --workdir names an object store and no folder."""
  return "://" in workdir


@contextlib.contextmanager
def opened(workdir: str) -> Iterator[pathlib.Path]:
  """The folder in which a run works.

  Args:
    workdir: a folder, which is given as it is, or the URL of one in an object
      store: anything that fsspec knows.

  Yields:
    The folder. That of a URL holds what lies there, and is copied back by the
    first process; other processes have copies of their own.

  Raises:
    ValueError: if the store cannot be reached, or another program works there.
    OSError: if the last copy fails; then the folder is left as it is.
  """
  if not is_url(workdir):
    yield pathlib.Path(workdir)
    return
  store = _Store(workdir)
  parallel.first_process(store.claim)
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ram_jax-"))
    if parallel.is_first_process():
      stack.callback(store.release)
      stack.enter_context(_every(SECONDS, store.mark, workdir))
    else:
      stack.callback(shutil.rmtree, folder)
    metrics.announce(f"{workdir}: worked on in {folder}, copied as it goes")
    store.pull(folder)
    # Nobody's copy may hold already what the first process does next.
    parallel.any_process(False)
    if parallel.is_first_process():
      stack.enter_context(store.kept(folder))
    yield folder


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
      self._files, self._root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
      raise ValueError(
        f"--workdir={url} cannot be used: {error} (gs:// needs the package "
        "gcsfs, s3:// s3fs)"
      ) from error
    self._root = self._root.rstrip("/")
    self._copied: dict[str, tuple[int, int]] = {}  # name -> size, time
    self._beat = 0

  def claim(self) -> None:
    """Refuses a folder in which another program works; begins to work there.

    A program that was killed leaves its sign, which then changes no more.
    """
    with self._told("read or written"):
      before = self._sign()
      if before is not None:
        metrics.announce(
          f"{self.url} was in use by {before.rpartition(',')[0]}: looking for "
          f"{2 * SECONDS} s whether it still is"
        )
        time.sleep(2 * SECONDS)
        if self._sign() not in (None, before):
          raise ValueError(
            f"--workdir={self.url} is in use by {before.rpartition(',')[0]}: "
            "wait for it or stop it, or choose another --workdir"
          )
      self.mark()

  def release(self) -> None:
    """Ends the work there."""
    with contextlib.suppress(Exception):  # the sign then goes stale by itself
      self._files.rm_file(self._path(LOCK))

  def pull(self, folder: pathlib.Path) -> None:
    """Copies what lies there into an empty folder."""
    with self._told("read"):
      self._files.invalidate_cache()
      for path in self._files.find(self._root):
        name = posixpath.relpath(path, self._root)
        if name == LOCK or ".." in name.split("/"):
          continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._files.get_file(path, str(target))
        self._copied[name] = _stamp(target)

  @contextlib.contextmanager
  def kept(self, folder: pathlib.Path) -> Iterator[None]:
    """Copies what changes, and in the end removes the folder."""
    try:
      with _every(SECONDS, lambda: self.push(folder), self.url):
        yield
    finally:
      try:
        self.push(folder)
      except Exception as error:  # whatever the store raises
        raise OSError(
          f"{self.url} cannot be written ({error}); everything is in {folder}: "
          "copy it there, and the same command goes on"
        ) from error
      shutil.rmtree(folder)

  def push(self, folder: pathlib.Path) -> None:
    """Copies what has changed, in an order that can be gone on from any time.

    Checkpoints come late, so that none lacks its lines of metrics.jsonl: one
    that was complete when this began had them. What is gone here goes last.
    """
    here = {
      path.relative_to(folder).as_posix(): path
      for path in folder.rglob("*")
      if path.is_file() and not _ignored(path.relative_to(folder))
    }
    for name in sorted(here, key=lambda n: (n.startswith("checkpoints/"), n)):
      try:
        stamp = _stamp(here[name])
        if self._copied.get(name) != stamp:
          self._put(here[name], name)
          self._copied[name] = stamp
      except FileNotFoundError:
        if here[name].exists():
          raise
        # An old checkpoint, removed meanwhile.
    for name in [n for n in self._copied if not (folder / n).exists()]:
      self._files.rm_file(self._path(name))
      del self._copied[name]

  def _put(self, path: pathlib.Path, name: str) -> None:
    self._files.makedirs(posixpath.dirname(self._path(name)), exist_ok=True)
    self._files.put_file(str(path), self._path(name))

  def mark(self) -> None:
    """Says that a program works there."""
    self._beat += 1
    self._files.makedirs(self._root, exist_ok=True)
    who = f"process {os.getpid()} on {socket.gethostname()}, {self._beat}"
    self._files.pipe_file(self._path(LOCK), who.encode())

  def _sign(self) -> str | None:
    self._files.invalidate_cache()
    try:
      return self._files.cat_file(self._path(LOCK)).decode(errors="replace")
    except FileNotFoundError:
      return None

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


def _stamp(path: pathlib.Path) -> tuple[int, int]:
  found = path.stat()
  return found.st_size, found.st_mtime_ns


def _ignored(path: pathlib.Path) -> bool:
  """What is not finished, and what is this machine's alone."""
  return any(
    pathlib.PurePath(part).match(pattern)
    for part in path.parts
    for pattern in IGNORED
  )
