"""Checkpoints with orbax: atomic, asynchronous, exact."""

import contextlib
import functools
import os
import pathlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import linen as nn


class Checkpoints:
  """The checkpoints of one run, by step."""

  def __init__(self, folder: str | os.PathLike, keep: int = 2) -> None:
    """Opens or creates the folder.

    Args:
      folder: where the checkpoints lie.
      keep: how many of the newest stay.
    """
    self._folder = pathlib.Path(folder).absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep)
    self._manager = ocp.CheckpointManager(self._folder, options=options)

  def save(self, step: int, state: Any) -> None:
    """Starts saving; returns before the files are complete.

    Args:
      step: updates made; saving a step again changes nothing.
      state: a pytree of arrays, equal in every process.
    """
    # numpy: orbax refuses single-host jax arrays when there are more hosts.
    host = jax.tree.map(np.asarray, state)
    if step not in self._manager.all_steps():
      self._manager.save(step, args=ocp.args.StandardSave(host))

  def latest_step(self) -> int | None:
    """Returns the step of the newest complete checkpoint, if any."""
    return self._manager.latest_step()

  def restore(self, template: Any) -> Any:
    """Reads the newest checkpoint.

    Args:
      template: a state of the same structure, shapes and types.

    Returns:
      The saved state as numpy arrays, in the template's structure.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if it is damaged or of another model.
    """
    host = jax.tree.map(np.asarray, template)
    state, path = self._restore(host)
    _check_shapes(host, state, path)
    return state

  def restore_variables(
    self, module: nn.Module, image_shape: tuple[int, int, int]
  ) -> Any:
    """Reads the newest checkpoint without its optimizer.

    Args:
      module: the model that was trained.
      image_shape: (H, W, C) of its images.

    Returns:
      An object with `step`, `params` and `batch_stats`.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if it is damaged or of another model.
    """
    saved, path = self._restore(None)
    images = jnp.zeros((1, *image_shape))
    init = functools.partial(module.init, train=False)
    wanted = jax.eval_shape(init, jax.random.key(0), images)
    _check_shapes(wanted, {name: saved[name] for name in wanted}, path)
    return types.SimpleNamespace(**saved)

  def _restore(self, template: Any) -> tuple[Any, pathlib.Path]:
    step = self.latest_step()
    if step is None:
      raise FileNotFoundError(
        f"no checkpoint in {self._folder}: train this run first (--mode=train)"
      )
    path = self._folder / str(step)
    args = ocp.args.StandardRestore(template)
    try:
      with _without_echoes():
        return self._manager.restore(step, args=args), path
    except Exception as error:  # orbax raises whatever its layers raise
      raise ValueError(
        f"the checkpoint {path} cannot be read ({_first_line(error)}): if it "
        "is damaged, move it out of the --workdir, and the same command goes "
        "on from the checkpoint before it"
      ) from error

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()


def _check_shapes(template: Any, state: Any, path: pathlib.Path) -> None:
  def check(keys: Any, wanted: np.ndarray, got: np.ndarray) -> None:
    if np.shape(got) != np.shape(wanted):
      raise ValueError(
        f"the checkpoint {path} holds {jax.tree_util.keystr(keys)} of shape "
        f"{np.shape(got)}, this configuration needs {np.shape(wanted)}: "
        "choose another --workdir"
      )

  jax.tree_util.tree_map_with_path(check, template, state)


@contextlib.contextmanager
def _without_echoes() -> Iterator[None]:
  """Silences the other readers after one reader of tensorstore failed.

  They find the event loop closed and print tracebacks, from their own threads
  and after the error itself: so the hook stays, once there was an error.
  """
  before = sys.unraisablehook

  def hook(args: Any) -> None:
    if str(args.exc_value) != "Event loop is closed":
      before(args)

  sys.unraisablehook = hook
  yield
  sys.unraisablehook = before


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:120]
