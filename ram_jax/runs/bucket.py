"""Runs in object stores (gs://…): a local folder that is copied to the store.

Such stores support neither appending nor renaming. A run therefore uses a local
folder, whose changes are copied every few seconds and at the end. If a machine
is lost, the changes since the last copy are lost.
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
TRIES = 3  # attempts to make the last copy
LOCK = "in_use"  # object that changes as long as a program uses the folder
# Protocols of stores without folders; makedirs could create a bucket there.
FLAT = {"gs", "gcs", "s3", "s3a", "abfs", "abfss", "az", "adl", "oci", "oss"}
# Unfinished and machine-specific files.
IGNORED = ("lock", "*.part", "*.orbax-checkpoint-tmp*")


@contextlib.contextmanager
def opened(workdir: str) -> Iterator[pathlib.Path]:
  """Opens the folder of a run.

  Args:
    workdir: a local folder, or the URL of a folder in an object store that
      fsspec supports.

  Yields:
    The local folder. For a URL, it starts as a copy of the store, and the first
    process copies changes back; the other processes have their own copies.

  Raises:
    ValueError: if the store cannot be reached, or another program uses it.
    OSError: if the last copy fails; the local folder is then kept.
  """
  if "://" not in workdir:
    yield pathlib.Path(workdir)
    return
  store = _Store(workdir)
  parallel.any_process(False)  # wait until all processes have started
  parallel.first_process(store.claim)
  with contextlib.ExitStack() as stack:
    if parallel.is_first_process():
      stack.callback(store.release)
      stack.enter_context(_every(store.mark, workdir))
    folder = _local_folder(workdir)
    metrics.announce(
      f"{workdir}: using the local folder {folder}, which is copied regularly"
    )
    store.pull(folder)
    # All copies must be complete before the first process changes the store.
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


def _local_folder(workdir: str) -> pathlib.Path:
  """An empty folder for a run; a killed run gets the same path again."""
  owner = f"{workdir} {os.getuid()} {jax.process_index()}"
  digest = hashlib.sha256(owner.encode()).hexdigest()[:16]
  folder = pathlib.Path(tempfile.gettempdir()) / f"ram_jax-{digest}"
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(mode=0o700)
  return folder


@contextlib.contextmanager
def _every(function: Callable[[], None], url: str) -> Iterator[None]:
  """Calls a function every `SECONDS`, even after it has failed."""
  ended = threading.Event()

  def repeat() -> None:
    failed = False
    while not ended.wait(SECONDS):
      try:
        function()
        failed = False
      except Exception as error:  # any error of the store
        if not failed:
          metrics.announce(f"{url} cannot be written to at the moment: {error}")
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
    self._who = f"process {os.getpid()} on {socket.gethostname()}"
    self._token, self._lost = uuid.uuid4().hex, ""

  def claim(self) -> None:
    """Marks the folder as in use; rejects it if another program uses it.

    The marker of a killed program remains, but no longer changes.
    """
    with self._errors("read or written"):
      if before := self._marker():
        who = before.partition(",")[0]
        metrics.announce(
          f"{self.url} was in use by {who}: checking for {2 * SECONDS} s "
          "whether it still is"
        )
        time.sleep(2 * SECONDS)
        if self._marker() not in ("", before):
          raise ValueError(
            f"--workdir={self.url} is in use by {who}: wait for it or stop it, "
            "or choose another --workdir"
          )
      self._write_marker()

  def mark(self) -> None:
    """Updates the marker to show that this program still uses the folder."""
    marker = self._marker()
    if marker and self._token not in marker:
      # This can happen if this program was disconnected for a long time.
      self._lost = f"{marker.partition(',')[0]} has taken it over"
    if not self._lost:
      self._write_marker()

  def release(self) -> None:
    """Removes the marker."""
    if not self._lost:
      with contextlib.suppress(Exception):  # a stale marker is harmless
        self._files.rm_file(f"{self._root}/{LOCK}")

  def pull(self, folder: pathlib.Path) -> None:
    """Copies the store into an empty folder."""
    with self._errors("read"):
      self._files.invalidate_cache()
      for path in self._files.find(self._root):
        name = posixpath.relpath(path, self._root)
        # Some stores also have objects for folders.
        if path.endswith("/") or name == LOCK or ".." in name.split("/"):
          continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._files.get_file(path, str(target))
        self._copied[name] = _stamp(target)

  def push_last(self, folder: pathlib.Path, failing: bool) -> None:
    """Copies and removes the folder, or renames it if it cannot be copied."""
    # Ignore SIGTERM: SIGKILL follows if this takes too long.
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
        except Exception as error:  # any error of the store
          problem = str(error)
          time.sleep(SECONDS / 2 if left else 0)
    finally:
      signal.signal(signal.SIGTERM, before)
    kept = folder.rename(f"{folder}-{time.time():.0f}")
    text = (
      f"{self.url} cannot be written to ({problem}); everything is in {kept}: "
      "copy it to the store, then run the same command to resume"
    )
    if not failing:
      raise OSError(text)
    metrics.announce(text)  # the original error is raised

  def push(self, folder: pathlib.Path) -> None:
    """Copies changes in an order that allows resuming from any point.

    Files are listed before copying, and checkpoints are copied last, so that
    the lines of metrics.jsonl that they need are never missing. Files are
    deleted at the end, so that at least one checkpoint is complete at any time.
    If the oldest checkpoint disappears before it is copied, there is a newer
    one.

    Args:
      folder: the run's folder.

    Raises:
      OSError: if another program has taken over the store.
    """
    if self._lost:  # even if there is nothing to copy
      raise OSError(self._lost)
    while (names := self._put_all(folder)) is None:
      pass
    for name in self._copied.keys() - names:
      # It may already be gone if the response to an earlier try was lost.
      with contextlib.suppress(FileNotFoundError):
        self._files.rm_file(f"{self._root}/{name}")
      del self._copied[name]

  def _put_all(self, folder: pathlib.Path) -> set[str] | None:
    """Copies changes; returns all names, or None if a file disappeared."""
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
      if path != folder and path.exists():  # the error is from the store
        raise
      return None
    return names

  def _put(self, path: pathlib.Path, name: str) -> None:
    if self._lost:
      raise OSError(self._lost)
    target = f"{self._root}/{name}"
    if not self._flat:
      self._files.makedirs(posixpath.dirname(target), exist_ok=True)
    if "checkpoints/" in name:  # large, and never changes
      self._files.put_file(str(path), target)
    else:  # read in one piece, because it may grow meanwhile
      self._files.pipe_file(target, path.read_bytes())

  def _marker(self) -> str:
    self._files.invalidate_cache()
    try:
      marker = self._files.cat_file(f"{self._root}/{LOCK}")
    except FileNotFoundError:
      return ""
    return marker.decode(errors="replace")

  def _write_marker(self) -> None:
    if not self._flat:
      self._files.makedirs(self._root, exist_ok=True)
    marker = f"{self._who}, {self._token}, {time.time_ns()}"
    self._files.pipe_file(f"{self._root}/{LOCK}", marker.encode())

  @contextlib.contextmanager
  def _errors(self, what: str) -> Iterator[None]:
    try:
      yield
    except ValueError:
      raise
    except Exception as error:  # any error of the store
      raise ValueError(
        f"--workdir={self.url} cannot be {what}: {error}"
      ) from error


def _stamp(path: pathlib.Path) -> tuple[int, int]:
  """Size and modification time of a file, which show whether it changed."""
  found = path.stat()
  return found.st_size, found.st_mtime_ns
