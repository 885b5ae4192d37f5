"""Trains, measures and reports: python main.py --config=configs/digits.py."""

import os
import pathlib
import sys
from collections.abc import Sequence

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from ram_jax import evaluate, metrics, parallel, train
from ram_jax.report import page, runs, tables

MODES = ("train", "evaluate", "report")

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  help_string="configs/NAME.py or configs/NAME.py:model=…,dataset=…,smoke; "
  "--config.FIELD=VALUE overrides a field of configs/default.py.",
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run; default: runs/<config's name>-<seed>."
)
_MODE = flags.DEFINE_string(
  "mode",
  "train",
  "train: train (or go on) and measure; evaluate: measure a trained run "
  "again; report: draw several runs into one set of figures and one table.",
)
_RUNS = flags.DEFINE_list(
  "runs", [], "--mode=report: folders of runs, with commas between."
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show tracebacks of errors.")


def main(argv: Sequence[str]) -> None:
  """Runs the chosen mode; an error of the user's is one line, exit code 2."""
  # Libraries tell every detail at INFO.
  logging.set_verbosity(logging.INFO if _DEBUG.value else logging.WARNING)
  if len(argv) > 1:
    fail(f"cannot use {argv[1]!r}: arguments are flags, see --help")
  try:
    run_mode(_MODE.value)
  except (ValueError, OSError, FloatingPointError) as error:
    if _DEBUG.value:
      raise
    fail(str(error))
  except KeyboardInterrupt:
    fail("interrupted: the same command goes on from the last checkpoint")


def run_mode(mode: str) -> None:
  """Dispatches to training, evaluation or report.

  Args:
    mode: one of `MODES`.

  Raises:
    ValueError: for another mode or a missing flag.
  """
  if mode not in MODES:
    raise ValueError(f"unknown --mode={mode}: choose {', '.join(MODES)}")
  if mode == "report":
    report(_RUNS.value, pathlib.Path(_WORKDIR.value or "report"))
    return
  if _RUNS.value:
    raise ValueError(f"--runs is for --mode=report, not --mode={mode}")
  config = _CONFIG.value
  if config is None:
    raise ValueError(
      "--config is missing: for example --config=configs/digits.py"
    )
  default_workdir = pathlib.Path("runs") / f"{config.name}-{config.seed}"
  folder = pathlib.Path(_WORKDIR.value or default_workdir)
  parallel.initialize()
  kind = jax.devices()[0].device_kind
  metrics.announce(f"{folder}: {mode} on {jax.device_count()} x {kind}")
  if mode == "train":
    train.train_and_evaluate(config, folder)
  else:
    evaluate.evaluate_run(config, folder)
  if parallel.is_first_process():
    show(config, folder)


def report(folders: list[str], out: pathlib.Path) -> None:
  """Writes the report of several runs and prints its table.

  Args:
    folders: the runs' folders.
    out: where to write.
  """
  if not folders:
    raise ValueError("--mode=report needs --runs=FOLDER,FOLDER,…")
  shown = [runs.load(folder) for folder in folders]
  paths = page.write_report(shown, out)
  console = Console()
  console.print(tables.summary(shown))
  print("Written:", *paths, sep="\n  ")


def show(config: ConfigDict, folder: pathlib.Path) -> None:
  """Prints a measured run's table, its floors, and where everything lies.

  Args:
    config: the run's.
    folder: the run's folder.
  """
  run = runs.load(folder)
  console = Console()
  console.print(tables.summary([run]))
  if config.floors:
    checks = tables.floors(run.results, config.floors)
    console.print(tables.floors_table(checks))
  print(f"Results: {folder / 'results.json'}")
  print(f"Figures: {folder / 'figures'}")


def fail(message: str) -> None:
  """Ends the program with one line on stderr.

  Args:
    message: what was given, what is possible and what to do.
  """
  print(f"error: {message}", file=sys.stderr)
  sys.exit(2)


if __name__ == "__main__":
  # Compiled programs are kept from run to run; JAX's own variable overrides.
  cache = pathlib.Path.home() / ".cache" / "ram_jax"
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
  jax.config.update(
    "jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"]
  )
  app.run(main)
