"""Trains, measures and reports: python main.py --config=configs/digits.py."""

import argparse
import difflib
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import jax
from absl import logging
from ml_collections import ConfigDict
from rich.console import Console

from ram_jax import command_line, evaluate, metrics, parallel, train
from ram_jax.report import page, runs, tables

MODES = ("train", "evaluate", "report")
OUT_OF_MEMORY = (
  "the device has too little memory: lower config.evaluate.batch_size, or "
  "config.train.batch_size (in a new --workdir), or take a smaller model"
)
GOES_ON = "the same command goes on from the last checkpoint"
# What a user's mistake, or a user's data, raises. Anything else is a bug.
USER_ERRORS = (ValueError, OSError, FloatingPointError, ModuleNotFoundError)


def main(argv: Sequence[str]) -> int:
  """Runs the program; an error of the user's is one line on stderr.

  Args:
    argv: the command line without the program's name.

  Returns:
    The exit code: 0, 2 for an error of the user's, 130 after Ctrl-C.
  """
  debug = "--debug" in argv
  # Libraries tell every detail at INFO.
  logging.set_verbosity(logging.INFO if debug else logging.WARNING)
  try:
    run(parse(argv))
  except USER_ERRORS as error:
    if debug:
      raise
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    return 2
  except jax.errors.JaxRuntimeError as error:
    if debug or "RESOURCE_EXHAUSTED" not in str(error):
      raise
    print(f"error: {OUT_OF_MEMORY}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    line = "\n" if sys.stderr.isatty() else ""  # below the progress line
    print(f"{line}interrupted: {GOES_ON}", file=sys.stderr)
    return 130
  return 0


class Parser(argparse.ArgumentParser):
  """argparse, but its errors are ours."""

  def error(self, message: str) -> NoReturn:
    """Raises what argparse would print below a summary of all flags."""
    raise ValueError(f"{message} (see --help)")


def parser() -> Parser:
  """Returns the parser of all flags but `--config.FIELD=VALUE`."""
  flags = Parser(
    prog="main.py",
    description=__doc__,
    epilog=f"Configs: {', '.join(command_line.available())}.",
    allow_abbrev=False,
  )
  flags.add_argument(
    "--config",
    metavar="FILE.py[:model=NAME,dataset=NAME,smoke]",
    help="what to run; --config.FIELD=VALUE overrides a field of "
    "configs/default.py",
  )
  flags.add_argument(
    "--workdir",
    metavar="FOLDER",
    help="folder of the run (default: runs/NAME-SEED), or of the report "
    "(default: report)",
  )
  flags.add_argument(
    "--mode",
    default="train",
    help="train: train (or go on) and measure; evaluate: measure a trained "
    "run again; report: several runs in one table and one set of figures",
  )
  flags.add_argument(
    "--runs",
    metavar="FOLDER,FOLDER",
    help="with --mode=report: the runs' folders",
  )
  flags.add_argument(
    "--debug", action="store_true", help="show tracebacks of errors"
  )
  return flags


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Reads the command line.

  Args:
    argv: the command line without the program's name.

  Returns:
    The flags; `overrides` holds every `--config.FIELD=VALUE`.

  Raises:
    ValueError: for anything unknown.
  """
  overrides = [text for text in argv if text.startswith("--config.")]
  others = [text for text in argv if not text.startswith("--config.")]
  flags, unknown = parser().parse_known_args(others)
  if unknown:
    known = [f"--{name}" for name in vars(flags)]
    name = unknown[0].partition("=")[0]
    near = difflib.get_close_matches(name, known, 1)
    hint = f", did you mean {near[0]}?" if near else ""
    raise ValueError(
      f"cannot use {unknown[0]!r}{hint}: the flags are {', '.join(known)} and "
      "--config.FIELD=VALUE (see --help)"
    )
  flags.overrides = overrides
  return flags


def run(flags: argparse.Namespace) -> None:
  """Dispatches to training, evaluation or report.

  Args:
    flags: from `parse`.

  Raises:
    ValueError: for an unknown mode, or a flag that is missing or too many.
  """
  if flags.mode not in MODES:
    raise ValueError(f"unknown --mode={flags.mode}: choose {', '.join(MODES)}")
  if flags.mode == "report":
    report(flags)
    return
  if flags.runs is not None:
    raise ValueError(f"--runs is for --mode=report, not --mode={flags.mode}")
  if flags.config is None:
    raise ValueError(
      "--config is missing: for example --config=configs/digits.py"
    )
  config = command_line.load(flags.config)
  command_line.override(config, flags.overrides)
  if "://" in (flags.workdir or ""):
    raise ValueError(
      f"--workdir={flags.workdir} is not a path: name a folder, on several "
      "hosts one of a mounted file system that they share"
    )
  default_workdir = pathlib.Path("runs") / f"{config.name}-{config.seed}"
  folder = pathlib.Path(flags.workdir or default_workdir)
  parallel.initialize()
  try:
    kind = jax.devices()[0].device_kind
  except RuntimeError as error:
    raise ValueError(f"JAX finds no device: {error}") from error
  metrics.announce(f"{folder}: {flags.mode} on {jax.device_count()} x {kind}")
  if flags.mode == "train":
    train.train_and_evaluate(config, folder)
  else:
    evaluate.evaluate_run(config, folder)
  if parallel.is_first_process():
    show(config, folder)


def report(flags: argparse.Namespace) -> None:
  """Writes the report of several runs and prints its table.

  Args:
    flags: from `parse`.

  Raises:
    ValueError: without runs, or with flags of the other modes.
  """
  if not flags.runs:
    raise ValueError("--mode=report needs --runs=FOLDER,FOLDER")
  if flags.config or flags.overrides:
    raise ValueError("--mode=report takes --runs and --workdir, no --config")
  shown = [runs.load(folder) for folder in flags.runs.split(",")]
  paths = page.write_report(shown, pathlib.Path(flags.workdir or "report"))
  Console().print(tables.summary(shown))
  print("Written:", *paths, sep="\n  ")


def show(config: ConfigDict, folder: pathlib.Path) -> None:
  """Prints a measured run's table, its floors, and where everything lies.

  Args:
    config: the run's.
    folder: the run's folder.
  """
  measured = runs.load(folder)
  console = Console()
  console.print(tables.summary([measured]))
  if config.floors:
    checks = tables.floors(measured.results, config.floors)
    console.print(tables.floors_table(checks))
  print(f"Results: {folder / 'results.json'}")
  print(f"Figures: {folder / 'figures'}")


if __name__ == "__main__":
  # Compiled programs are kept from run to run; JAX's own variable overrides.
  cache = pathlib.Path.home() / ".cache" / "ram_jax"
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
  jax.config.update(
    "jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"]
  )
  sys.exit(main(sys.argv[1:]))
