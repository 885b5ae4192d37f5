"""Finds the cause of a NaN or an infinity by repeating the step.

A step itself only returns a few scalars. If one is not finite, the steps since
the last line of metrics.jsonl are repeated one at a time from a copy of the
state, and every part of the bad step is examined.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import parallel
from ram_jax.data import feed, pipeline
from ram_jax.models.classifier import Classifier
from ram_jax.runs import folder as run_folder
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.training import step
from ram_jax.training.log import ADVICE, NotFiniteError
from ram_jax.training.split import MAIN
from ram_jax.training.state import TrainState

SHOWN = 8  # names and numbers in a message; the file has all of them


def diagnose(
  program: step.Program,
  state: TrainState,
  data: step.Data,
  settings: step.Settings,
  indices: jax.Array,
) -> dict[str, Any]:
  """Recomputes the parts of a step; must run in a pmapped function.

  Args:
    program: the step.
    state: state before the step.
    data: see `step.Program.differentiate`.
    settings: see `step.Program.differentiate`.
    indices: see `step.Program.differentiate`.

  Returns:
    Arrays, equal on all devices: `gradient`, `views` (images and logits by
    name), and `alone` [B,...], the loss and the logits of each example on its
    own. `alone` uses running statistics, because batch statistics would spread
    one image's NaN over its batch.
  """
  found, names = program.differentiate(state, data, settings, indices)
  variables = state.params, state.batch_stats
  if program.split:
    variables = program.split.select(*variables, MAIN)
  model = Classifier(*variables, program.module)
  logits = tuple(model(images) for images in found.images)
  loss, _ = settings.method.loss(logits, found.targets)
  views = zip(found.images, found.logits, strict=True)
  rows = {
    "views": dict(zip(names, views, strict=True)),
    "alone": (loss, logits),
  }
  return parallel.gather(rows) | {"gradient": parallel.mean(found.gradient)}


@dataclasses.dataclass
class Watch:
  """Keeps the last good state, to explain a NaN or an infinity.

  Attributes:
    training: a `training.loop.Training`.
    data: `images` and `labels`, on the host.
    settings: the run's settings, on the devices.
    folder: folder of the post-mortem.
  """

  training: Any
  data: dict[str, np.ndarray]
  settings: step.Settings
  folder: pathlib.Path

  def keep(self, state: TrainState) -> None:
    """Copies a state on the devices, before it is donated to the next step."""
    self._state = _copy(state)

  @contextlib.contextmanager
  def explaining(self) -> Iterator[None]:
    """Replaces the error for a bad step with one that explains it.

    Raises:
      FloatingPointError: with the parts, the images and the folder of the
        files; or the reason why there are none, such as a full disk or too
        little memory.
    """
    try:
      yield
    except NotFiniteError as error:
      try:
        found, batch, state = self._replay(error.step)
        self._write(found, batch, state)
      except (jax.errors.JaxRuntimeError, MemoryError, OSError) as reason:
        first = (str(reason).splitlines() or [""])[0]
        text = f"{error} (no post-mortem: {first[:120]})"
      else:
        text = describe(found)
        text += f". {ADVICE}. The batch is in {self.folder}"
      raise FloatingPointError(text) from error

  def _replay(
    self, last: int
  ) -> tuple[dict[str, Any], dict[str, Any], TrainState]:
    """Repeats steps up to the first bad one, or `last`, and examines it."""
    training, state = self.training, self._state
    seed, batch_size = training.seed, training.batch_size
    start, now = state, int(state.step)
    single = dataclasses.replace(training, per_dispatch=1)
    fed = feed.dispatches(single, self.data, now)
    for rows, shards in fed:
      if now % training.per_dispatch == 0:
        start = state  # a run can resume from here
      # A dispatch donates its input.
      after, metrics = training.dispatch(
        _copy(state), rows, self.settings, shards
      )
      metrics = {name: float(x[0]) for name, x in metrics.items()}
      if now + 1 >= last or not np.isfinite(list(metrics.values())).all():
        break
      state, now = after, now + 1
    fed.close()
    parts = training.diagnose(state, rows, self.settings, shards[:, 0])
    size = len(self.data["labels"])
    (indices,) = pipeline.batch_indices(seed, now, 1, size, batch_size)
    alone = [
      np.isfinite(x).reshape(batch_size, -1).all(axis=1)
      for x in jax.tree.leaves(parts["alone"])
    ]
    found = {
      "step": now + 1,
      "seed": seed,
      "metrics": {n: repr(x) for n, x in metrics.items() if not np.isfinite(x)},
      "views": [name for name, x in parts["views"].items() if not_finite(x)],
      "examples": indices[~np.all(alone, axis=0)].tolist(),
      "gradients": not_finite(parts["gradient"]),
      "parameters": not_finite(after.params),
      "statistics": not_finite(after.batch_stats),
      "replay": f"copy checkpoints/{int(start.step)} from this folder to the "
      "run's checkpoints, remove later ones there, and run the same command",
    }
    batch = {"step": np.int64(now + 1), "indices": indices}
    batch |= {n: np.asarray(x)[indices] for n, x in self.data.items()}
    return found, batch, start

  def _write(
    self, found: dict[str, Any], batch: dict[str, Any], state: TrainState
  ) -> None:
    if parallel.is_first_process():
      run_folder.write_json(found, self.folder / "report.json")
      np.savez(self.folder / "batch.npz", **batch)
    checkpoints = Checkpoints(self.folder / "checkpoints")
    with contextlib.closing(checkpoints):
      checkpoints.save(int(state.step), state)


def describe(found: dict[str, Any]) -> str:
  """Describes the non-finite parts of a step in one line.

  Args:
    found: content of report.json.

  Returns:
    Step, parts, views and images, a few of each.
  """
  parts = [f"{name} {value}" for name, value in found["metrics"].items()]
  text = f"step {found['step']}: {', '.join(parts) or 'finite when repeated'}"
  for name, rows in found.items():
    if isinstance(rows, list) and rows:
      more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
      text += f"; {name} {', '.join(map(str, rows[:SHOWN]))}{more}"
  return text


def not_finite(tree: Any) -> list[str]:
  """Names of a pytree's arrays that contain a NaN or an infinity."""
  return [
    jax.tree_util.keystr(path, simple=True, separator=".")
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if not np.isfinite(leaf).all()
  ]


@jax.jit
def _copy(tree: Any) -> Any:
  return jax.tree.map(jnp.copy, tree)
