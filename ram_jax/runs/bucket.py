"""Runs in object stores (gs://…): a local folder that is copied there.

Such stores can neither append nor rename. So a run works in a folder of its
own on this machine, and what changes there is copied, every few seconds and at
the end. A machine that is lost costs what came after the last copy.
"""

import contextlib
import fnmatch
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
from ram_jax.runs import metrics

SECONDS = 10  # between copies
TRIES = 3  # of the last one
LOCK = "in_use"  # an object that changes as long as a program works there
# Stores without folders: asked for one, some make a bucket.
FLAT = {"gs", "gcs", "s3", "s3a", "abfs", "abfss", "az", "adl", "oci", "oss"}
# What is not finished, and what is this machine's alone.
IGNORED = ("lock", "*.part", "*.orbax-checkpoint-tmp*")


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
      stack.enter_context(_every(store.mark, workdir))
    folder = _place(workdir)
    metrics.announce(f"{workdir}: worked on in {folder}, copied as it goes")
    store.pull(folder)
    # Nobody's copy may hold already what the first process does next.
    parallel.any_process(False)
    if parallel.is_first_process():
      stack.push(lambda kind, *_: store.push_last(folder, failing=bool(kind)))
      stack.enter_context(_every(lambda: store.push(folder), workdir))
    else:
      stack.callback(shutil.rmtree, folder)
    try:
      yield folder
    except (ValueError, OSError, FloatingPointError) as error:
      error.args = tuple(
        part.replace(str(folder), workdir) if isinstance(part, str) else part
        for part in error.args
      )
      raise


def _place(workdir: str) -> pathlib.Path:
  """An empty folder for a run, the same again after a kill."""
  whose = f"{workdir} {os.getuid()} {jax.process_index()}"
  digest = hashlib.sha256(whose.encode()).hexdigest()[:16]
  folder = pathlib.Path(tempfile.gettempdir()) / f"ram_jax-{digest}"
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(mode=0o700)
  return folder


@contextlib.contextmanager
def _every(function: Callable[[], None], url: str) -> Iterator[None]:
  """Calls a function every `SECONDS`; one that fails is called again."""
  ended = threading.Event()

  def repeat() -> None:
    failed = False
    while not ended.wait(SECONDS):
      try:
        function()
        failed = False
      except Exception as error:  # whatever the store raises
        if not failed:
          metrics.announce(f"{url} cannot be written now: {error}")
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
      if before := self._sign():
        who = before.partition(",")[0]
        metrics.announce(
          f"{self.url} was in use by {who}: looking for {2 * SECONDS} s "
          "whether it still is"
        )
        time.sleep(2 * SECONDS)
        if self._sign() not in ("", before):
          raise ValueError(
            f"--workdir={self.url} is in use by {who}: wait for it or stop it, "
            "or choose another --workdir"
          )
      self._sign_it()

  def mark(self) -> None:
    """Says that this program still works there."""
    sign = self._sign()
    if sign and self._token not in sign:
      # As it may where this one was cut off for long.
      self._lost = f"{sign.partition(',')[0]} has taken it over"
    if not self._lost:
      self._sign_it()

  def release(self) -> None:
    """Ends the work there."""
    if not self._lost:
      with contextlib.suppress(Exception):  # the sign goes stale by itself
        self._files.rm_file(f"{self._root}/{LOCK}")

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
        self._copied[name] = _stamp(target)

  def push_last(self, folder: pathlib.Path, failing: bool) -> None:
    """Copies and removes a folder; one that cannot be copied is renamed."""
    # Who sends SIGTERM kills in the end.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
      for left in reversed(range(TRIES)):
        try:
          self.push(folder)
          shutil.rmtree(folder)
          return
        except KeyboardInterrupt:
          problem = "interrupted"
          break
        except Exception as error:  # whatever the store raises
          problem = str(error)
          time.sleep(SECONDS / 2 if left else 0)
    finally:
      signal.signal(signal.SIGTERM, before)
    kept = folder.rename(f"{folder}-{time.time():.0f}")
    text = (
      f"{self.url} cannot be written ({problem}); everything is in {kept}: "
      "copy it there, and the same command resumes"
    )
    if not failing:
      raise OSError(text)
    metrics.announce(text)  # and what ends the run is raised

  def push(self, folder: pathlib.Path) -> None:
    """Copies what has changed, in an order that can be resumed from any time.

    Args:
      folder: the run's.

    Checkpoints are listed first and copied late, so that none lacks its lines
    of metrics.jsonl; what is gone goes last, so that one checkpoint is whole at
    any time. The oldest may be gone before it is copied: then there is a newer.
    """
    with self._pushing:
      while (names := self._put_all(folder)) is None:
        pass
      for name in self._copied.keys() - names:
        # It may be gone already, if the answer to an earlier try was lost.
        with contextlib.suppress(FileNotFoundError):
          self._files.rm_file(f"{self._root}/{name}")
        del self._copied[name]

  def _put_all(self, folder: pathlib.Path) -> set[str] | None:
    """Copies what has changed; all names, or None where a file disappears."""
    path = folder
    try:
      found = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
      names = {
        path.as_posix()
        for path in found
        if not any(fnmatch.filter(path.parts, pattern) for pattern in IGNORED)
      }
      for name in sorted(
        names, key=lambda n: (n.startswith("checkpoints/"), n)
      ):
        path = folder / name
        stamp = _stamp(path)
        if self._copied.get(name) != stamp:
          self._put(path, name)
          self._copied[name] = stamp
    except FileNotFoundError:
      if path != folder and path.exists():  # it is the store's answer
        raise
      return None
    return names

  def _put(self, path: pathlib.Path, name: str) -> None:
    if self._lost:
      raise OSError(self._lost)
    target = f"{self._root}/{name}"
    if not self._flat:
      self._files.makedirs(posixpath.dirname(target), exist_ok=True)
    if "checkpoints/" in name:  # large, and changes no more
      self._files.put_file(str(path), target)
    else:  # read at once, as it may grow meanwhile
      self._files.pipe_file(target, path.read_bytes())

  def _sign(self) -> str:
    self._files.invalidate_cache()
    try:
      sign = self._files.cat_file(f"{self._root}/{LOCK}")
    except FileNotFoundError:
      return ""
    return sign.decode(errors="replace")

  def _sign_it(self) -> None:
    self._beat += 1
    if not self._flat:
      self._files.makedirs(self._root, exist_ok=True)
    sign = f"{self._who}, {self._token}, {self._beat}"
    self._files.pipe_file(f"{self._root}/{LOCK}", sign.encode())

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
  """Size and time of a file, which change when it does."""
  found = path.stat()
  return found.st_size, found.st_mtime_ns
