"""Runs many configs one after another in one process (--mode=sweep).

Each run has an ordinary folder, which also records its progress, so the same
command resumes at the first unfinished run. Data is loaded once, and runs that
differ only in numeric settings share compiled programs (training/step.py,
`Settings`).
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from ram_jax import experiment, parallel, plugins
from ram_jax.contracts import Source
from ram_jax.runs import folder as run_folder
from ram_jax.runs import metrics, results, signals

FILE = "sweep.json"  # longest durations so far, in seconds
RESERVE = 10.0  # seconds for the report, until it is measured
# Fields that may differ between runs that share a program, in addition to a
# method's floats.
NUMBERS = ("name", "seed", "optimizer.learning_rate")
# Groups of fields that determine the evaluation programs.
EVALUATED = ("dataset", "model", "normalization", "evaluate", "evaluators")
UNFINISHED = ("waiting", "running", "stopped")
# Errors that only end the run in which they occur; the other runs continue.
FAILURES = (
  ValueError,
  OSError,
  FloatingPointError,
  MemoryError,
  jax.errors.JaxRuntimeError,
)


class FailedError(Exception):
  """Some runs of a sweep failed."""


@dataclasses.dataclass
class Job:
  """One run of a sweep.

  Attributes:
    config: the config from the sweep's file.
    resolved: the config with all fields, see `resolution.resolve`.
    folder: the run's folder.
    state: `waiting`, `running`, `finished`, `failed` or `stopped`.
    reason: why it failed, or where it stopped.
    run: the results; None unless finished.
  """

  config: ConfigDict
  resolved: ConfigDict
  folder: pathlib.Path
  state: str = "waiting"
  reason: str = ""
  run: results.Run | None = None

  @property
  def seconds(self) -> float | None:
    """Time of training and evaluation; None unless finished."""
    return sum(self.run.head.get("timing", {}).values()) if self.run else None


class Clock:
  """The remaining time, and the longest compilation and report times so far.

  Attributes:
    budget: seconds from the start to the end of the program; may be infinite.
  """

  def __init__(self, path: pathlib.Path, minutes: float | None) -> None:
    """Starts the clock.

    Args:
      path: file in which the longest durations are stored.
      minutes: time until the program ends; None: no limit.
    """
    self._path = path
    self.budget = 60 * minutes if minutes else math.inf
    self._end = time.monotonic() + self.budget
    self._compiled = 0.0
    self._longest = {"report": RESERVE}
    with contextlib.suppress(OSError, ValueError):  # missing or damaged
      self._longest |= json.loads(path.read_bytes())
    jax.monitoring.register_event_duration_secs_listener(self._listen)

  def _listen(self, event: str, seconds: float, **_: Any) -> None:
    main = threading.current_thread() is threading.main_thread()
    if main and event.startswith("/jax/core/compile/"):
      self._compiled += seconds

  def left(self) -> float:
    """Seconds until the runs must stop, to leave time for the report."""
    # Reserve twice the longest time, because the state is saved first, and the
    # report takes longer with more runs.
    reserve = min(2 * self._longest["report"], 0.3 * self.budget)
    return self._end - time.monotonic() - reserve

  def fits(self, what: str) -> bool:
    """Whether a compilation fits if it takes as long as the longest so far.

    Args:
      what: `training` or `evaluation`.

    Returns:
      True if it fits, or if none was measured and any time is left. A duration
      counts as at most 0.6 times the budget, because otherwise a sweep with a
      small budget would never continue.
    """
    longest = self._longest.get(what, 0)
    return self.left() > min(longest, 0.6 * self.budget)

  def compiled(self, what: str) -> None:
    """Records the time spent compiling since the last call."""
    self.measured(what, self._compiled)
    self._compiled = 0.0

  def measured(self, what: str, seconds: float) -> None:
    """Records a duration, if it is the longest.

    Args:
      what: `training`, `evaluation` or `report`.
      seconds: the duration.
    """
    # The initial reserve is not a measured duration.
    first = what == "report" and self._longest[what] == RESERVE
    if first or seconds > self._longest.get(what, 0):
      self._longest[what] = seconds
      if parallel.is_first_process():
        run_folder.write_json(self._longest, self._path)

  def close(self) -> None:
    """Stops listening to JAX."""
    jax.monitoring.unregister_event_duration_listener(self._listen)


def run(
  configs: Sequence[ConfigDict],
  folder: pathlib.Path,
  minutes: float | None,
  show: Callable[[Sequence[Job]], None],
  report: Callable[[Sequence[Job]], None],
) -> None:
  """Runs the configs that are not finished.

  Args:
    configs: complete configs with different names or seeds.
    folder: the sweep's folder; each run has a folder in it.
    minutes: stop before this time has passed; None: no limit.
    show: called whenever a run starts.
    report: called at the end, even if some runs are missing.

  Raises:
    FailedError: at the end, if any run failed.
    ValueError: for an invalid config, or a folder that contains another run or
      is in use.
    signals.Stopped: after SIGTERM or Ctrl-C, with everything saved.
  """
  run_folder.check_writable(folder, "--workdir")
  if (folder / "config.json").exists():
    raise ValueError(
      f"--workdir={folder} is the folder of a run: choose another folder for "
      "the sweep"
    )
  clock = Clock(folder / FILE, minutes)
  with run_folder.lock(folder), deadline(clock.budget):
    try:
      jobs = [_job(config, folder) for config in configs]
      with signals.alarm(clock.left()):
        _run_all(jobs, clock, show)
      started = time.monotonic()
      report(jobs)
      clock.measured("report", time.monotonic() - started)
    finally:
      clock.close()
  failed = [job.folder.name for job in jobs if job.state == "failed"]
  if failed:
    raise FailedError(
      f"{len(failed)} of {len(jobs)} runs failed: {', '.join(failed)}; run "
      "the same command to try them again"
    )


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
  """Ends the program after a given time, whatever it is doing.

  Python does not handle signals during a compilation. As after SIGKILL, every
  file that was saved is complete.

  Args:
    seconds: the time, which may be infinite.
  """

  def end() -> None:
    metrics.announce(
      "out of time during a compilation or the report: everything that was "
      "saved is kept, but the report is not up to date; run the same "
      "command to continue"
    )
    sys.stdout.flush()
    os._exit(0)

  timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), end)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def _job(config: ConfigDict, folder: pathlib.Path) -> Job:
  """Checks a config and its folder, and looks for results."""
  resolved, _ = experiment.with_weights(config)
  own = folder / f"{config.name}-{config.seed}"
  run_folder.check_owner(resolved, own)
  found = run_folder.finished(resolved, own)
  state = "finished" if found else "waiting"
  return Job(config, resolved, own, state, run=found)


def _run_all(
  jobs: Sequence[Job], clock: Clock, show: Callable[[Sequence[Job]], None]
) -> None:
  """Runs one job after another, until time runs out."""
  sources: dict[str, Source] = {}
  compiled: set[str] = set()
  for job in jobs:
    if job.run:
      continue
    new = _program(job.resolved) not in compiled
    fits = clock.left() > 0 and not (new and not clock.fits("training"))
    if parallel.any_process(not fits):
      return
    compiled.add(_program(job.resolved))
    job.state = "running"
    show(jobs)
    try:
      _run_one(job, clock, compiled, sources)
    except signals.Stopped as error:
      if error.code != 128 + signal.SIGALRM:
        raise
      job.state, job.reason = "stopped", str(error)
      return
    except FAILURES as error:
      logging.info("%s", job.folder, exc_info=True)
      job.state, job.reason = "failed", " ".join(str(error).split())[:500]
      metrics.announce(f"{job.folder} failed: {job.reason}")


def _run_one(
  job: Job, clock: Clock, compiled: set[str], sources: dict[str, Source]
) -> None:
  """Trains and evaluates one job, like a single run."""

  def before_evaluation() -> None:
    clock.compiled("training")
    program = _evaluation(job.resolved)
    fits = program in compiled or clock.fits("evaluation")
    if parallel.any_process(not fits):
      raise signals.Stopped(signal.SIGALRM, "the last step is saved")
    compiled.add(program)

  spec = json.dumps(job.resolved.dataset.to_dict())
  if spec not in sources:
    source = plugins.build("dataset", job.resolved.dataset)
    sources[spec] = _Loaded(source)
  job.run = experiment.train_and_evaluate(
    job.config,
    job.folder,
    source=sources[spec],
    before_evaluation=before_evaluation,
  )
  clock.compiled("evaluation")
  job.state = "finished"


class _Loaded:
  """A data set whose arrays are loaded once."""

  def __init__(self, source: Source) -> None:
    self._source, self.load = source, functools.cache(source.load)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._source, name)


def _program(config: ConfigDict) -> str:
  """A key that is equal for runs whose training steps share a program."""
  fields = {
    name: value
    for name, value in run_folder.flat(config.to_dict()).items()
    if name not in NUMBERS
    and not name.startswith(run_folder.EVALUATION_FIELDS)
    and not (name.startswith("method.") and isinstance(value, float))
  }
  return json.dumps(fields, sort_keys=True)


def _evaluation(config: ConfigDict) -> str:
  """A key that is equal for runs whose evaluations share programs."""
  fields = config.to_dict()
  return json.dumps([fields[name] for name in EVALUATED], sort_keys=True)


def minutes_left(jobs: Sequence[Job]) -> float | None:
  """Estimates the time that the unfinished runs will take.

  Args:
    jobs: the sweep.

  Returns:
    Minutes, from the mean time of finished runs with the same method, or else
    of all finished runs; None if there are none.
  """
  known = [(job.config.method.name, job.seconds) for job in jobs if job.run]
  if not known:
    return None
  left = 0.0
  for job in jobs:
    if job.state in UNFINISHED:
      same = [time for name, time in known if name == job.config.method.name]
      left += statistics.mean(same or [time for _, time in known])
  return left / 60


def missing(jobs: Sequence[Job]) -> list[str]:
  """Says which runs have no results, and why.

  Args:
    jobs: the sweep.

  Returns:
    A sentence for all unfinished runs, and one for each failed run.
  """
  names = [job.folder.name for job in jobs if job.state in UNFINISHED]
  found = [f"not finished: {', '.join(names)}"] if names else []
  failed = [job for job in jobs if job.state == "failed"]
  return found + [f"{job.folder.name} failed: {job.reason}" for job in failed]


def write_table(jobs: Sequence[Job], folder: pathlib.Path) -> pathlib.Path:
  """Writes the rows of all finished runs as CSV, without times.

  Args:
    jobs: the sweep, with at least one finished run.
    folder: the sweep's folder.

  Returns:
    Path of results.csv, with the columns of `results.frame`.
  """
  runs = [job.run for job in jobs if job.run]
  table = results.frame(runs)
  table["folder"] = [runs[i].folder.name for i in table["run"]]
  metrics.replace(folder / "results.csv", table.to_csv(index=False))
  return folder / "results.csv"
