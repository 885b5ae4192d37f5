"""Logs training: means of metrics, checked for NaNs."""

import pathlib
import time
from typing import Any

import jax
import numpy as np

from ram_jax import parallel
from ram_jax.runs.metrics import MetricWriter, Progress

ADVICE = (
  "The last checkpoint before this step is kept; a lower "
  "config.optimizer.learning_rate (in a new --workdir) usually helps"
)


class NotFiniteError(FloatingPointError):
  """A NaN or an infinity occurred in step number `step`."""

  def __init__(self, message: str, step: int) -> None:
    """Stores the message and the step, counted from 1."""
    super().__init__(message)
    self.step = step


class Log:
  """Collects metrics per dispatch, checks them and writes their means."""

  def __init__(
    self,
    training: Any,
    folder: pathlib.Path,
    now: int,
    open_line: dict[str, Any] | None = None,
  ) -> None:
    """Opens the files and drops rows after step `now`.

    Args:
      training: a `training.loop.Training`.
      folder: the run's folder.
      now: number of updates so far.
      open_line: what `open_line` returned at that step.
    """
    self._training = training
    self._pending, self._since, self._clock = [], now, time.monotonic()
    if open_line:
      self._pending = [open_line["rows"]]
      self._since = open_line["since"]
      self._clock -= open_line["seconds"]
    first = parallel.is_first_process()
    self._writer = MetricWriter(folder, now) if first else None
    self._progress = Progress(training.total_steps) if first else None
    self._block = jax.default_backend() == "cpu"

  def add(self, metrics: dict[str, jax.Array]) -> None:
    """Adds the metrics [K] of a dispatch."""
    # XLA aborts the process if dispatches with collectives pile up on simulated
    # devices, so wait for each dispatch on CPUs, where this costs nothing.
    # Elsewhere, wait for the previous one, because every queued dispatch keeps
    # its rows on the devices.
    jax.block_until_ready(metrics if self._block else self._pending[-1:])
    self._pending.append(metrics)

  def write(self, now: int) -> None:
    """Writes the means since the last line; stops the run on NaN."""
    if not self._pending:
      return
    rows = self._rows()
    clock = time.monotonic()
    seconds, steps = clock - self._clock, now - self._since
    row = {"step": now, "epoch": now / self._training.steps_per_epoch}
    row |= {name: float(values.mean()) for name, values in rows.items()}
    row["learning_rate"] = float(self._training.schedule(now - 1))
    row["timing"] = {
      "seconds": seconds,
      "images_per_second": steps * self._training.batch_size / seconds,
    }
    if self._writer:
      self._writer.write(row)
      self._progress.show(row)
    self._pending, self._since, self._clock = [], now, clock

  def open_line(self) -> dict[str, Any] | None:
    """The values for the next line, to be stored in a checkpoint.

    Returns:
      Values of each step since the last line, which JSON stores exactly; None
      if there are none.
    """
    if not self._pending:
      return None
    return {
      "since": self._since,
      "seconds": time.monotonic() - self._clock,
      "rows": {name: row.tolist() for name, row in self._rows().items()},
    }

  def _rows(self) -> dict[str, np.ndarray]:
    """Values [steps] by name since the last line; stops the run on NaN."""
    rows = {
      name: np.concatenate([np.asarray(m[name], "f8") for m in self._pending])
      for name in self._pending[0]
    }
    check_finite(rows, self._since)
    return rows

  def close(self) -> None:
    """Closes the files."""
    if self._writer:
      self._writer.close()


def check_finite(rows: dict[str, np.ndarray], since: int) -> None:
  """Rejects metrics with a NaN or an infinity.

  Args:
    rows: values [steps] by name.
    since: number of updates before the first of them.

  Raises:
    NotFiniteError: with the first such step and the metrics.
  """
  bad = {name: ~np.isfinite(values) for name, values in rows.items()}
  steps = np.flatnonzero(np.any(list(bad.values()), axis=0))
  if len(steps):
    first = steps[0]
    parts = [f"{n} is {rows[n][first]}" for n in rows if bad[n][first]]
    raise NotFiniteError(
      f"step {since + first + 1}: {', '.join(parts)}. {ADVICE}",
      since + int(first) + 1,
    )
