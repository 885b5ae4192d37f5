"""Entry point; for example: python main.py --config=configs/digits.py."""

import argparse
import errno
import functools
import os
import pathlib
import sys
from collections.abc import Sequence

import jax
from absl import logging
from ml_collections import ConfigDict
from rich.console import Console

from ram_jax import (
  command_line,
  corrupt,
  experiment,
  parallel,
  profiling,
  sweep,
)
from ram_jax import flags as flags_lib
from ram_jax.contracts import Note
from ram_jax.report import compare as comparison
from ram_jax.report import page, references, tables
from ram_jax.runs import bucket, metrics, signals
from ram_jax.runs import results as runs

OUT_OF_MEMORY = (
  "is out of memory: lower config.evaluate.batch_size or "
  "config.train.batch_size (in a new --workdir), or use a smaller model"
)
# Error numbers of a full or failing disk, and of missing permissions.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
ROOM = ": free some space or repair the disk, and the same command resumes"
PERMISSION = ": change its permissions, or use another path or a copy"
HINTS = dict.fromkeys(FULL, ROOM) | dict.fromkeys(FORBIDDEN, PERMISSION)
INTERRUPTED = "interrupted: the same command resumes from the last saved state"
# Errors caused by the user's input or environment. Anything else is a bug.
USER_ERRORS = (ValueError, OSError, FloatingPointError, ModuleNotFoundError)


def main(argv: Sequence[str]) -> int:
  """Runs the program and reports user errors as one line on stderr.

  Args:
    argv: the command line without the program's name.

  Returns:
    The exit code: 0, 1 if runs of a sweep failed, 2 for a user error or if
    memory runs out, 143 after SIGTERM, 130 after Ctrl-C, 141 if stdout was
    closed.
  """
  debug = "--debug" in argv
  # Libraries log many details at INFO, and tracebacks at ERROR.
  logging.set_verbosity(logging.INFO if debug else logging.FATAL)
  try:
    run(flags_lib.parse(argv))
  except BrokenPipeError:  # such as `main.py --help | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  except sweep.FailedError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except USER_ERRORS as error:
    if debug:
      raise
    hint = HINTS.get(getattr(error, "errno", None), "")
    print(f"error: {' '.join(str(error).split())}{hint}", file=sys.stderr)
    return 2
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    host = isinstance(error, MemoryError)
    if debug or not (host or "RESOURCE_EXHAUSTED" in str(error)):
      raise
    owner = "this machine" if host else "the device"
    print(f"error: {owner} {OUT_OF_MEMORY}", file=sys.stderr)
    return 2
  except (signals.Stopped, KeyboardInterrupt) as error:
    line = "\n" if sys.stderr.isatty() else ""  # below the progress line
    print(f"{line}{str(error) or INTERRUPTED}", file=sys.stderr)
    return getattr(error, "code", 130)
  return 0


def run(flags: argparse.Namespace) -> None:
  """Calls the function for the selected mode.

  Args:
    flags: from `flags.parse`.

  Raises:
    ValueError: for an unknown mode, or a missing or unsupported flag.
  """
  flags_lib.check(flags)
  modes = {
    "corrupt": write_corrupted,
    "export": export,
    "compare": compare,
    "report": report,
    "sweep": run_sweep,
  }
  modes.get(flags.mode, compute)(flags)


def compute(flags: argparse.Namespace) -> None:
  """Trains, evaluates or profiles a model, and shows the result.

  Args:
    flags: from `flags.parse`.

  Raises:
    ValueError: for an invalid config or folder.
  """
  config = command_line.load(flags.config, flags.overrides)
  config.weights.initial = flags.init_from or config.weights.initial
  config.weights.measured = flags.weights or config.weights.measured
  name = f"{config.name}-{config.seed}"
  if config.weights.measured:
    name = f"weights-{pathlib.Path(config.weights.measured).stem}"
  if flags.runs:
    name = "ensemble"
    check_ensemble(config, flags_lib.folders(flags.runs))
  workdir = flags.workdir or str(pathlib.Path("runs") / name)
  saved = pathlib.Path(flags.save_adversarial or os.devnull).resolve()
  if saved.is_relative_to(pathlib.Path(workdir).resolve()):
    raise ValueError(
      f"--save_adversarial={flags.save_adversarial} is in --workdir={workdir}: "
      "choose another folder"
    )
  find_devices(f"{workdir}: {flags.mode}")
  with bucket.opened(workdir) as folder:
    work(config, folder, flags, workdir)


def check_ensemble(config: ConfigDict, folders: Sequence[str]) -> None:
  """Rejects --runs that cannot be evaluated.

  Args:
    config: the complete config.
    folders: the folders in --runs.

  Raises:
    ValueError: if there is no folder, one is given twice, or weights are given.
  """
  if not folders or len(set(folders)) < len(folders):
    raise ValueError("--runs must name different folders: --runs=FOLDER,FOLDER")
  if config.weights.measured or config.weights.initial:
    raise ValueError("--runs cannot be used with --weights or --init_from")


def work(
  config: ConfigDict,
  folder: pathlib.Path,
  flags: argparse.Namespace,
  workdir: str,
) -> None:
  """Trains, evaluates or profiles a model in a folder, and shows the result.

  Args:
    config: the complete config.
    folder: the run's folder.
    flags: `mode` (`train`, `evaluate` or `profile`) and `save_adversarial`.
    workdir: the folder as given by the user.
  """
  if flags.mode == "profile":
    found = profiling.profile(config, folder)
    if parallel.is_first_process():
      Console().print(tables.profile(found))
      print(f"Trace: {workdir}/{profiling.FOLDER}")
    return
  if flags.runs:
    run = functools.partial(
      experiment.evaluate_ensemble, runs=flags_lib.folders(flags.runs)
    )
  elif flags.mode == "train":
    run = experiment.train_and_evaluate
  elif config.weights.measured:
    run = experiment.evaluate_weights
  else:
    run = experiment.evaluate_run
  run(config, folder, flags.save_adversarial)
  if parallel.is_first_process():
    show(config, folder, workdir)


def find_devices(what: str) -> None:
  """Connects to the other hosts and announces the devices of this run.

  Args:
    what: what runs on them, for the message.

  Raises:
    ValueError: if there is no device, or if the environment variables that
      connect the hosts are invalid.
  """
  parallel.initialize()
  kind = jax.devices()[0].device_kind
  metrics.announce(f"{what} on {jax.device_count()} x {kind}")


def write_corrupted(flags: argparse.Namespace) -> None:
  """Writes the corrupted test set of a config and prints a summary.

  Args:
    flags: from `flags.parse`.
  """
  config = command_line.load(flags.config, flags.overrides)
  find_devices(f"{flags.out}: {flags.mode}")
  found = corrupt.write(config, flags.out)
  if parallel.is_first_process():
    print(f"{flags.out}: {corrupt.describe(found)}")


def export(flags: argparse.Namespace) -> None:
  """Writes a run's weights for PyTorch and prints the file's metadata.

  Args:
    flags: from `flags.parse`.
  """
  with bucket.opened(flags.workdir) as folder:
    metadata = experiment.export(folder, pathlib.Path(flags.out))
  print(f"Written: {flags.out}", *map(": ".join, metadata.items()), sep="\n  ")


def compare(flags: argparse.Namespace) -> None:
  """Prints and writes a comparison of a run with a reference.

  Args:
    flags: from `flags.parse`.
  """
  with bucket.opened(flags.workdir) as folder:
    run, reference = runs.load(folder), references.read(flags.reference)
    found = comparison.match(run, reference)
    # Print first, because the folder may be read-only.
    Console().print(comparison.table(found))
    paths = comparison.write(found, folder)
  names = [f"{flags.workdir}/{path.relative_to(folder)}" for path in paths]
  print("Written:", *names, sep="\n  ")


def report(flags: argparse.Namespace) -> None:
  """Prints the table of several runs and writes their report.

  Args:
    flags: from `flags.parse`.

  Raises:
    ValueError: if no runs are given.
  """
  folders = flags_lib.folders(flags.runs)
  if not folders:
    raise ValueError("--mode=report needs --runs=FOLDER,FOLDER")
  shown = [runs.load(folder) for folder in folders]
  # Print first, because the folder may be read-only.
  Console().print(tables.summary(shown))
  folder = pathlib.Path(flags.workdir or "report")
  paths = page.write_report(shown, folder, flags.baseline)
  print("Written:", *paths, sep="\n  ")


def run_sweep(flags: argparse.Namespace) -> None:
  """Trains and evaluates all runs in a file, and writes their report.

  Args:
    flags: from `flags.parse`.
  """
  configs = command_line.load_runs(flags.config, flags.overrides)
  name = command_line.split(flags.config)[0].stem
  workdir = flags.workdir or str(pathlib.Path("runs") / name)
  minutes = float(flags.minutes) if flags.minutes else None
  find_devices(f"{workdir}: {len(configs)} runs")

  def progress(jobs: Sequence[sweep.Job]) -> None:
    if not parallel.is_first_process():
      return
    rows = [(x.folder.name, x.state, x.run, x.seconds) for x in jobs]
    Console().print(tables.sweep(rows, sweep.minutes_left(jobs)))
    for job in jobs:
      if job.run:
        page.draw(job.folder)

  def conclude(jobs: Sequence[sweep.Job]) -> None:
    progress(jobs)
    runs_found = [job.run for job in jobs if job.run]
    lacking = sweep.missing(jobs)
    print(*lacking, sep="\n", file=sys.stderr)
    if runs_found and parallel.is_first_process():
      notes = [Note(text, "warning") for text in lacking]
      # The others are compared with the first run that has results.
      base = runs_found[0].folder
      Console().print(tables.summary(runs_found))
      paths = page.write_report(runs_found, folder, base, notes)
      print("Written:", sweep.write_table(jobs, folder), *paths, sep="\n  ")

  with bucket.opened(workdir) as folder:
    sweep.run(configs, folder, minutes, progress, conclude)


def show(config: ConfigDict, folder: pathlib.Path, workdir: str) -> None:
  """Draws a run's figures; prints its tables and the paths of its files.

  Args:
    config: the run's config.
    folder: the run's folder.
    workdir: the folder as given by the user.
  """
  page.draw(folder)
  run = runs.load(folder)
  console = Console()
  console.print(tables.summary([run]))
  if config.floors:
    console.print(tables.floors(run, config.floors))
  print(f"Results: {workdir}/results.json")
  if (folder / "figures").is_dir():
    print(f"Figures: {workdir}/figures")


if __name__ == "__main__":
  # Compiled programs are cached across runs; JAX's own variable overrides this.
  cache = pathlib.Path.home() / ".cache" / "ram_jax"
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
  jax.config.update(
    "jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"]
  )
  for stream in (sys.stdout, sys.stderr):  # the encoding may be ASCII
    stream.reconfigure(errors="backslashreplace")
  with parallel.ending_together():
    sys.exit(main(sys.argv[1:]))
