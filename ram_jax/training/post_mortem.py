"""What made a step's numbers infinite or NaN: found by taking it once more.

A step itself only returns a few norms. Where one is not finite, training
resumes from the state that was kept at the last line of metrics.jsonl, one step
at a time, and every part of the bad step is examined.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ram_jax import parallel
from ram_jax.data import feed, pipeline
from ram_jax.models.classifier import Classifier
from ram_jax.runs import folder as run_folder
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.training import step
from ram_jax.training.log import ADVICE, NotFiniteError
from ram_jax.training.state import TrainState

SHOWN = 8  # names and numbers in a message; the file has all


def diagnose(
  state: TrainState,
  data: dict[str, jax.Array],
  key: jax.Array,
  indices: jax.Array,
  *,
  module: Any,
  method: Any,
  **static: Any,
) -> dict[str, Any]:
  """Which parts of a step are finite; runs inside the device axis.

  Args:
    state: before the step.
    data: see `step.differentiate`.
    key: see `step.differentiate`.
    indices: see `step.differentiate`.
    module: see `step.differentiate`.
    method: see `step.differentiate`.
    **static: see `step.differentiate`.

  Returns:
    Flags, equal on all devices: `gradient` of each parameter, `images` and
    `logits` [B] of each view, and `alone` [B], of the loss and the logits of
    each example by itself. Batch normalisation spreads one image's NaN over its
    batch; running statistics, which the latter take, do not.
  """
  found, names = step.differentiate(
    state, data, key, indices, module=module, method=method, **static
  )
  model = Classifier(state.params, state.batch_stats, module)
  logits = tuple(model(images) for images in found.images)
  loss, _ = method.loss(logits, found.targets)
  rows = {
    "images": dict(zip(names, map(_rows, found.images), strict=True)),
    "logits": dict(zip(names, map(_rows, found.logits), strict=True)),
    "alone": jnp.stack([_rows(x) for x in (loss, *logits)]).all(axis=0),
  }
  gradient = parallel.mean(found.gradient)
  return parallel.gather(rows) | {
    "gradient": jax.tree.map(lambda x: jnp.isfinite(x).all(), gradient)
  }


def _rows(x: jax.Array) -> jax.Array:
  return jnp.isfinite(x).reshape(len(x), -1).all(axis=-1)


class Watch:
  """Keeps the last good state of a training, to find out what ends it."""

  def __init__(
    self,
    config: ConfigDict,
    training: Any,
    data: dict[str, np.ndarray],
    key: jax.Array,
    folder: pathlib.Path,
  ) -> None:
    """Remembers what a step is made of.

    Args:
      config: resolved.
      training: a `train.Training`.
      data: `images` and `labels`, on the host.
      key: the run's, on the devices.
      folder: the run's.
    """
    self._config, self._training = config, training
    self._data, self._key = data, key
    self._folder = folder / "post_mortem"

  def keep(self, state: TrainState) -> None:
    """Copies a state on the devices, before it is donated to the next step."""
    self._state = _copy(state)

  @contextlib.contextmanager
  def explaining(self) -> Iterator[None]:
    """Turns the word of a bad step into what is known of it."""
    try:
      yield
    except NotFiniteError as error:
      raise self.explain(error) from error

  def explain(self, error: NotFiniteError) -> FloatingPointError:
    """Repeats the steps since the kept state, and writes what is found.

    Args:
      error: names the bad step.

    Returns:
      The error with the parts, the images and the place of the files. The
      error itself where the device's memory or the disk is too small.
    """
    try:
      found, batch, state = self._replay(error.step)
      self._write(found, batch, state)
    except (jax.errors.JaxRuntimeError, OSError) as reason:
      first = (str(reason).splitlines() or [""])[0]
      return FloatingPointError(f"{error} (no post-mortem: {first[:120]})")
    return FloatingPointError(
      f"{describe(found)}. {ADVICE}. The batch is in {self._folder}"
    )

  def _replay(
    self, last: int
  ) -> tuple[dict[str, Any], dict[str, np.ndarray], TrainState]:
    """Goes to the first bad step, or to `last`, and looks at it."""
    training, state = self._training, self._state
    seed, batch_size = self._config.seed, self._config.train.batch_size
    start, now = state, int(state.step)
    single = dataclasses.replace(training, per_dispatch=1)
    fed = feed.dispatches(single, self._data, seed, batch_size, now)
    for rows, shards in fed:
      if now % training.per_dispatch == 0:
        start = state  # a run can resume from here
      # What is dispatched is donated.
      after, metrics = training.dispatch(_copy(state), rows, self._key, shards)
      metrics = {name: float(x[0]) for name, x in metrics.items()}
      if now + 1 >= last or not np.isfinite(list(metrics.values())).all():
        break
      state, now = after, now + 1
    fed.close()
    flags = training.diagnose(state, rows, self._key, shards[:, 0])
    flags = jax.tree.map(np.asarray, flags)
    size = len(self._data["labels"])
    (indices,) = pipeline.batch_indices(seed, now, 1, size, batch_size)
    found = {
      "step": now + 1,
      "seed": seed,
      "metrics": {n: repr(x) for n, x in metrics.items() if not np.isfinite(x)},
      "views": [
        name
        for name, rows in flags["logits"].items()
        if not (rows.all() and flags["images"][name].all())
      ],
      "examples": indices[~flags["alone"]].tolist(),
      "gradients": _bad(flags["gradient"], np.all),
      "parameters": _bad(after.params, _is_finite),
      "statistics": _bad(after.batch_stats, _is_finite),
      "replay": f"copy checkpoints/{int(start.step)} beside this file into the "
      "run's checkpoints, remove later ones there, and give the run's command",
    }
    batch = {"step": np.int64(now + 1), "indices": indices}
    batch |= {n: np.asarray(x)[indices] for n, x in self._data.items()}
    return found, batch, start

  def _write(
    self,
    found: dict[str, Any],
    batch: dict[str, np.ndarray],
    state: TrainState,
  ) -> None:
    if parallel.is_first_process():
      run_folder.write_json(found, self._folder / "report.json")
      np.savez(self._folder / "batch.npz", **batch)
    checkpoints = Checkpoints(self._folder / "checkpoints")
    checkpoints.save(int(state.step), state, None)
    checkpoints.close()


def describe(found: dict[str, Any]) -> str:
  """A step's bad parts in one line.

  Args:
    found: content of report.json.

  Returns:
    Step, parts, views and images, a few of each.
  """
  parts = [f"{name} {value}" for name, value in found["metrics"].items()]
  text = f"step {found['step']}: {', '.join(parts) or 'now finite'}"
  for what, name in (
    ("views", "views"),
    ("gradients", "gradient of"),
    ("parameters", "new parameters"),
    ("statistics", "running statistics of"),
    (
      "examples",
      "training images (index) with a loss of their own that is not",
    ),
  ):
    if rest := found[what]:
      more = f" and {len(rest) - SHOWN} more" if len(rest) > SHOWN else ""
      text += f"; {name} {', '.join(map(str, rest[:SHOWN]))}{more}"
  return text


def _bad(tree: Any, good: Any) -> list[str]:
  """Names of the leaves that are not good."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [
    jax.tree_util.keystr(path, simple=True, separator=".")
    for path, leaf in leaves
    if not good(np.asarray(leaf))
  ]


def _is_finite(x: np.ndarray) -> bool:
  return bool(np.isfinite(x).all())


@jax.jit
def _copy(tree: Any) -> Any:
  return jax.tree.map(jnp.copy, tree)
