"""Checkpoints with orbax: atomic, asynchronous, exact, and verified."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ram_jax import parallel
from ram_jax.runs import metrics

# Pattern of orbax's unfinished checkpoints, and suffix of damaged ones.
UNFINISHED, DAMAGED = "*.orbax-checkpoint-tmp*", ".damaged"


class Checkpoints:
  """The checkpoints of one run, by step.

  Each contains the state, its SHA-256, and the values for the next line of
  metrics.jsonl.
  """

  def __init__(self, folder: str | os.PathLike, keep: int = 2) -> None:
    """Opens or creates the folder.

    Args:
      folder: where the checkpoints are stored.
      keep: number of newest checkpoints to keep.
    """
    _silence_event_loop_errors()
    self._folder = pathlib.Path(folder).absolute()
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(max_to_keep=keep),
      item_names=("state", "beside"),
    )

  def save(self, step: int, state: Any, open_line: Any = None) -> None:
    """Starts saving; returns before the files are complete.

    Args:
      step: number of updates; saving a step again has no effect.
      state: a pytree of arrays, equal in every process.
      open_line: JSON value to store with the state.

    Raises:
      OSError: if this checkpoint or the previous one cannot be written.
    """
    # numpy: with several hosts, orbax rejects jax arrays of a single host.
    host = jax.tree.map(np.asarray, state)
    beside = {"sha256": fingerprint(host), "open_line": open_line}
    with self._writing():
      self._manager.wait_until_finished()
      if step in self._manager.all_steps():
        return
      if parallel.is_first_process():
        for left in self._folder.glob(UNFINISHED):  # of a run that was killed
          shutil.rmtree(left)
      args = ocp.args.Composite(
        state=ocp.args.StandardSave(host), beside=ocp.args.JsonSave(beside)
      )
      self._manager.save(step, args=args, force=True)

  def latest_step(self) -> int | None:
    """Returns the step of the newest complete checkpoint, if any."""
    return self._manager.latest_step()

  def restore(self, template: Any) -> tuple[Any, Any]:
    """Reads the newest intact checkpoint.

    Newer, damaged ones are reported and renamed.

    Args:
      template: a state of the same structure and shapes.

    Returns:
      The saved state as numpy arrays, in the template's structure, and the
      `open_line` that was saved with it.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if all are damaged, or the newest intact one belongs to
        another model.
    """
    saved, open_line, path = self.newest()
    return fitted(template, saved, path), open_line

  def close(self) -> None:
    """Waits until everything is on disk, then closes the manager.

    Raises:
      OSError: if a checkpoint cannot be written.
    """
    with self._writing():
      self._manager.wait_until_finished()
      self._manager.close()

  def newest(self) -> tuple[Any, Any, pathlib.Path]:
    """Reads the newest intact checkpoint, whatever its structure.

    Returns:
      The state in dicts and lists, its `open_line`, and its folder.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if all are damaged.
    """
    damaged = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      found, reason = self._read(step)
      # All processes agree, even if only one of them cannot read it.
      if not parallel.any_process(bool(reason)):
        self._rename_damaged(damaged, step)
        return *found, self._folder / str(step)
      damaged[step] = reason
    if not damaged:
      raise FileNotFoundError(
        f"no checkpoint in {self._folder}: train this run first (--mode=train)"
      )
    reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
    raise ValueError(
      f"every checkpoint in {self._folder} is damaged ({reasons}): restore an "
      "intact one, or choose another --workdir to start again"
    )

  def _read(self, step: int) -> tuple[Any, str]:
    """(state, open line), and the reason if they are damaged."""
    args = ocp.args.Composite(
      state=ocp.args.StandardRestore(), beside=ocp.args.JsonRestore()
    )
    try:
      found = self._manager.restore(step, args=args)
      if fingerprint(found.state) != found.beside["sha256"]:
        return None, "its contents do not match its checksum"
      return (found.state, found.beside["open_line"]), ""
    except Exception as error:  # orbax raises many types of errors
      return None, _first_line(error)

  def _rename_damaged(self, damaged: dict[int, str], step: int) -> None:
    """Renames damaged checkpoints, so that their steps can be saved again."""
    for bad, reason in damaged.items():
      path = self._folder / str(bad)
      renamed = path.with_name(path.name + DAMAGED)
      metrics.announce(
        f"the checkpoint {path} is damaged ({reason}; kept as {renamed.name}): "
        f"using step {step}"
      )
      if parallel.is_first_process():
        shutil.rmtree(renamed, ignore_errors=True)
        path.rename(renamed)
    if not damaged:
      return
    parallel.any_process(False)  # wait for the first process
    for bad in damaged:
      # It still exists if this process has its own copy (`bucket.py`).
      shutil.rmtree(self._folder / str(bad), ignore_errors=True)
    self._manager.reload()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # orbax raises many types of errors
      raise OSError(
        f"a checkpoint cannot be written to {self._folder} "
        f"({_first_line(error)}): free some space or repair the folder, and "
        f"the same command resumes from step {self.latest_step() or 0}"
      ) from error


def fingerprint(tree: Any) -> str:
  """SHA-256 over names, types, shapes and bytes of a pytree's arrays.

  Args:
    tree: arrays in dicts, dataclasses, tuples or lists; the type of container
      does not matter, because orbax may change it.

  Returns:
    64 hexadecimal digits.
  """
  digest = hashlib.sha256()
  for name, array in sorted(_by_name(tree).items()):
    digest.update(f"{name} {array.dtype} {array.shape};".encode())
    digest.update(np.ascontiguousarray(array).view(np.uint8).data)
  return digest.hexdigest()


def _by_name(tree: Any) -> dict[str, np.ndarray]:
  return {
    _name(keys): np.asarray(leaf)
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _name(keys: Any) -> str:
  return jax.tree_util.keystr(keys, simple=True, separator="/")


def fitted(template: Any, tree: Any, path: pathlib.Path) -> Any:
  """The arrays of a checkpoint, in a template's structure.

  Args:
    template: pytree of arrays or their shapes.
    tree: the saved arrays, in dicts and lists.
    path: the checkpoint, for the message.

  Returns:
    numpy arrays.

  Raises:
    ValueError: if an array is missing or has another shape.
  """
  saved = _by_name(tree)

  def fit(keys: Any, expected: Any) -> np.ndarray:
    name, shape = _name(keys), np.shape(expected)
    if name not in saved or saved[name].shape != shape:
      found = saved[name].shape if name in saved else "none"
      raise ValueError(
        f"the checkpoint {path} has {name} of shape {found}, but this "
        f"configuration needs {shape}: choose another --workdir"
      )
    return saved[name]

  return jax.tree_util.tree_map_with_path(fit, template)


def _silence_event_loop_errors() -> None:
  """Silences tensorstore's other threads after one of them failed.

  They find the event loop closed and print tracebacks, before or after the
  error itself, so the hook is never removed.
  """
  before = sys.unraisablehook

  def hook(args: Any) -> None:
    if str(args.exc_value) != "Event loop is closed":
      before(args)

  if getattr(before, "__qualname__", "") != hook.__qualname__:
    sys.unraisablehook = hook


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:120]
