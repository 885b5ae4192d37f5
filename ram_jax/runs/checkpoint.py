"""Checkpoints with orbax: atomic, asynchronous, exact, damage recognized."""

import contextlib
import functools
import hashlib
import os
import pathlib
import shutil
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import linen as nn

from ram_jax import memory, parallel
from ram_jax.runs import metrics

# What orbax calls what it has not finished, and we what is damaged.
UNFINISHED, DAMAGED = "*.orbax-checkpoint-tmp*", ".damaged"


class Checkpoints:
  """The checkpoints of one run, by step.

  Each holds the state, its SHA-256, and what the open line of metrics.jsonl
  is made of.
  """

  def __init__(self, folder: str | os.PathLike, keep: int = 2) -> None:
    """Opens or creates the folder.

    Args:
      folder: where the checkpoints are stored.
      keep: how many of the newest stay.
    """
    _drop_echoes()
    self._folder = pathlib.Path(folder).absolute()
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(max_to_keep=keep),
      item_names=("state", "beside"),
    )

  def save(self, step: int, state: Any, open_line: Any = None) -> None:
    """Starts saving; returns before the files are complete.

    Args:
      step: updates made; saving a step again changes nothing.
      state: a pytree of arrays, equal in every process.
      open_line: JSON that comes back with it.

    Raises:
      OSError: if this one, or the one before, cannot be written.
    """
    # numpy: orbax rejects single-host jax arrays when there are more hosts.
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
    """Reads the newest checkpoint that is whole.

    Damaged ones before it are said, and put aside.

    Args:
      template: a state of the same structure and shapes.

    Returns:
      The saved state as numpy arrays, in the template's structure, and the
      `open_line` saved with it.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if all are damaged, or it is of another model.
    """
    saved, open_line, path = self.newest()
    return _fitted(template, _by_name(saved), path), open_line

  def restore_variables(
    self, module: nn.Module, image_shape: tuple[int, int, int]
  ) -> Any:
    """Reads the newest checkpoint that is whole, without its optimizer.

    Args:
      module: the model that was trained.
      image_shape: (H, W, C) of its images.

    Returns:
      An object with `step`, `params` and `batch_stats`.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if all are damaged, or it is of another model, or beyond the
        memory.
    """
    key, images = jax.random.key(0), jnp.zeros((1, *image_shape))
    init = functools.partial(module.init, key, images, train=False)
    memory.check(init, 1, 0, "evaluation")
    found, _ = self.restore({"step": 0} | jax.eval_shape(init))
    return types.SimpleNamespace(**found)

  def close(self) -> None:
    """Waits until everything is on disk.

    Raises:
      OSError: if it cannot be written.
    """
    with self._writing():
      self._manager.wait_until_finished()
      self._manager.close()

  def newest(self) -> tuple[Any, Any, pathlib.Path]:
    """Reads the newest checkpoint that is whole, whatever its state looks like.

    Returns:
      The state in dicts and lists, the `open_line` saved with it, its folder.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if all are damaged.
    """
    damaged = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      found, reason = self._read(step)
      # The same answer everywhere, should only one process be unable to read.
      if not parallel.any_process(bool(reason)):
        self._put_aside(damaged, step)
        return *found, self._folder / str(step)
      damaged[step] = reason
    if not damaged:
      raise FileNotFoundError(
        f"no checkpoint in {self._folder}: train this run first (--mode=train)"
      )
    reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
    raise ValueError(
      f"every checkpoint in {self._folder} is damaged ({reasons}): put a whole "
      "one there, or choose another --workdir to start anew"
    )

  def _read(self, step: int) -> tuple[Any, str]:
    """(state, open line), or why they are not what was saved."""
    args = ocp.args.Composite(
      state=ocp.args.StandardRestore(), beside=ocp.args.JsonRestore()
    )
    try:
      found = self._manager.restore(step, args=args)
      if fingerprint(found.state) != found.beside["sha256"]:
        return None, "its contents are not those that were saved"
      return (found.state, found.beside["open_line"]), ""
    except Exception as error:  # orbax raises whatever its layers raise
      return None, _first_line(error)

  def _put_aside(self, damaged: dict[int, str], step: int) -> None:
    """Makes room for the steps to be saved again."""
    for bad, reason in damaged.items():
      path = self._folder / str(bad)
      aside = path.with_name(path.name + DAMAGED)
      metrics.announce(
        f"the checkpoint {path} is damaged ({reason}; kept as {aside.name}): "
        f"step {step} is used"
      )
      if parallel.is_first_process():
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    if not damaged:
      return
    parallel.any_process(False)  # nobody looks before it is done
    for bad in damaged:
      # Still there in a copy of this process's own (`bucket.py`).
      shutil.rmtree(self._folder / str(bad), ignore_errors=True)
    self._manager.reload()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # orbax raises whatever its layers raise
      raise OSError(
        f"a checkpoint cannot be written in {self._folder} "
        f"({_first_line(error)}): free some space or repair the folder, and "
        f"the same command resumes from {self.latest_step() or 'the start'}"
      ) from error


def fingerprint(tree: Any) -> str:
  """SHA-256 over names, types, shapes and bytes of a pytree's arrays.

  Args:
    tree: arrays in dicts, dataclasses, tuples or lists; the kind does not
      matter, as orbax turns the one into the other.

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


def _fitted(
  template: Any, saved: dict[str, np.ndarray], path: pathlib.Path
) -> Any:
  """The saved arrays in the template's structure; other shapes are rejected."""

  def fit(keys: Any, wanted: Any) -> np.ndarray:
    name, shape = _name(keys), np.shape(wanted)
    if name not in saved or saved[name].shape != shape:
      there = saved[name].shape if name in saved else "none"
      raise ValueError(
        f"the checkpoint {path} holds {name} of shape {there}, this "
        f"configuration needs {shape}: choose another --workdir"
      )
    return saved[name]

  return jax.tree_util.tree_map_with_path(fit, template)


def _drop_echoes() -> None:
  """Silences the other readers and writers after one of tensorstore failed.

  They find the event loop closed and print tracebacks, from their own threads
  and before or after the error itself: so the hook stays.
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
