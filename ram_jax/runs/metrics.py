"""Writes training metrics: metrics.jsonl, TensorBoard, the progress line."""

import datetime
import json
import os
import pathlib
import sys
import time
from typing import Any, TextIO

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ram_jax import parallel


def announce(text: str) -> None:
  """Prints a message to stderr, only in the first process."""
  if parallel.is_first_process():
    print(text, file=sys.stderr, flush=True)


def replace(path: pathlib.Path, content: str | bytes) -> None:
  """Writes a file atomically: readers see the old or the new content.

  Args:
    path: the file.
    content: its new content.
  """
  part = path.with_suffix(".part")
  if isinstance(content, str):  # it may contain lone surrogates
    content = content.encode(errors="backslashreplace")
  with open(part, "wb") as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())  # for atomicity in case of a power failure
  part.replace(path)


class MetricWriter:
  """Writes a line per log interval; resuming causes no gaps or duplicates."""

  def __init__(self, folder: pathlib.Path, step: int) -> None:
    """Opens the files and drops lines after the step to resume from.

    Args:
      folder: the run's folder.
      step: number of updates so far.
    """
    self._path = folder / "metrics.jsonl"
    kept = [row for row in read(self._path) if row["step"] <= step]
    replace(self._path, "".join(json.dumps(row) + "\n" for row in kept))
    self._file = self._path.open("a", encoding="utf-8")
    # Not SummaryWriter: its thread dies if the disk is full, and then its
    # callers wait forever.
    (folder / "tensorboard").mkdir(exist_ok=True)
    prefix = str(folder / "tensorboard" / "events")
    self._board = EventsWriter(prefix, f".{os.getpid()}")
    begins = SessionLog(status=SessionLog.START)
    self._board.write_event(Event(step=step + 1, session_log=begins))

  def write(self, row: dict[str, Any]) -> None:
    """Appends one line.

    Args:
      row: `step`, scalars by name, and `timing` with the machine-dependent
        ones.
    """
    self._file.write(json.dumps(row, allow_nan=False) + "\n")
    self._file.flush()
    # Lines that precede a checkpoint must survive a power failure, too.
    os.fsync(self._file.fileno())
    when = {"step": row["step"], "wall_time": time.time()}
    for name, value in (row | row["timing"]).items():
      if name not in ("step", "timing"):
        point = summary.scalar(name, value)
        self._board.write_event(Event(summary=point, **when))
    self._board.flush()

  def close(self) -> None:
    """Closes both files."""
    self._file.close()
    self._board.close()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads metrics.jsonl; drops an incomplete last line of a killed run.

  Args:
    path: the file; it may be absent.

  Returns:
    Its rows, in order.

  Raises:
    ValueError: if a line other than the last is damaged.
  """
  lines = path.read_bytes().splitlines() if path.exists() else []
  rows = []
  for number, line in enumerate(lines, 1):
    try:
      rows.append(_parsed(line))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      if number == len(lines):
        break
      raise ValueError(
        f"{path} is damaged in line {number} ({error!r:.200}): delete that "
        "line, or start in a new --workdir"
      ) from error
  return rows


def _parsed(line: bytes) -> dict[str, Any]:
  """A row in which all entries, and those of `timing`, are numbers."""
  row = json.loads(line)
  timing = row["timing"]
  single = row | {"timing": timing["seconds"]}
  known = type(row["step"]) is int and "epoch" in row
  if not known or not all(map(is_finite, (*single.values(), *timing.values()))):
    raise ValueError("an entry is missing, or not a finite number")
  return row


def is_finite(value: Any) -> bool:
  """Whether a value from a JSON file is a number, not too large for a float."""
  return type(value) in (int, float) and abs(value) <= sys.float_info.max


class Progress:
  """One updated line on a terminal, occasional lines otherwise."""

  SECONDS = 15  # between lines without a terminal

  def __init__(self, total_steps: int, stream: TextIO | None = None) -> None:
    """Starts the clock.

    Args:
      total_steps: steps of the whole run.
      stream: where to write the line; default: stderr.
    """
    self._total, self._stream = total_steps, stream or sys.stderr
    self._first: tuple[int, float] | None = None
    self._shown = -float("inf")

  def show(self, row: dict[str, Any]) -> None:
    """Shows the newest numbers.

    Args:
      row: `step`, `epoch`, `loss`, accuracies and `timing`.
    """
    now, last = time.monotonic(), row["step"] >= self._total
    terminal = self._stream.isatty()
    if not (terminal or last or now - self._shown >= self.SECONDS):
      return
    self._shown = now
    line = progress_line(row, self._total, self._seconds_left(row["step"], now))
    start, end = ("\r", "\n" if last else "\x1b[K") if terminal else ("", "\n")
    self._stream.write(start + line + end)
    self._stream.flush()

  def _seconds_left(self, step: int, now: float) -> float | None:
    # Starts at the first line, to exclude compilation.
    first_step, first = self._first = self._first or (step, now)
    if step == first_step:
      return None
    return (now - first) / (step - first_step) * (self._total - step)


def progress_line(row: dict[str, Any], total: int, seconds_left: float) -> str:
  """Formats the progress line.

  Args:
    row: `step`, `epoch`, `loss`, accuracies and `timing`.
    total: steps of the whole run.
    seconds_left: estimated remaining time; None if there is no estimate yet.

  Returns:
    One line without a line break.
  """
  parts = [
    f"step {row['step']}/{total}",
    f"epoch {row['epoch']:.2f}",
    f"loss {row['loss']:.3f}",
  ]
  names = {"accuracy": "accuracy", "adversarial_accuracy": "adversarial"}
  parts += [f"{names[n]} {row[n]:.1%}" for n in names if n in row]
  parts.append(f"{row['timing']['images_per_second']:,.0f} images/s")
  if seconds_left is not None:
    parts.append(f"{datetime.timedelta(seconds=round(seconds_left))} left")
  return " | ".join(parts)
