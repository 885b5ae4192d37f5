"""The flags of main.py, and which mode takes which."""

import argparse
import difflib
import os
from collections.abc import Sequence
from typing import NoReturn

from ram_jax import command_line

DESCRIPTION = (
  "Trains, measures and reports: python main.py --config=configs/digits.py."
)
# Which flags each mode takes, beside --debug.
MODES = {
  "train": ("config", "workdir", "init_from"),
  "evaluate": ("config", "workdir", "init_from", "weights"),
  "profile": ("config", "workdir", "init_from"),
  "corrupt": ("config", "out"),
  "export": ("workdir", "out"),
  "compare": ("workdir", "reference"),
  "report": ("workdir", "runs", "baseline"),
}


class Parser(argparse.ArgumentParser):
  """argparse, but its errors are ours."""

  def error(self, message: str) -> NoReturn:
    """Raises what argparse would print below a summary of all flags."""
    raise ValueError(f"{message} (see --help)")


def parser() -> Parser:
  """Returns the parser of all flags but `--config.FIELD=VALUE`."""
  flags = Parser(
    prog="main.py",
    description=DESCRIPTION,
    epilog=f"Configs: {', '.join(command_line.available())}.",
    allow_abbrev=False,
  )
  flags.add_argument(
    "--config",
    metavar="FILE.py[:model=NAME,dataset=NAME,smoke]|FOLDER/config.json",
    help="what to run; --config.FIELD=VALUE overrides a field of "
    "configs/default.py",
  )
  flags.add_argument(
    "--workdir",
    metavar="FOLDER|URL",
    help="folder of the run, also in a bucket: gs://… (default: "
    "runs/NAME-SEED, with --weights runs/weights-FILE), or of the report "
    "(default: report)",
  )
  flags.add_argument(
    "--mode",
    default="train",
    help="train: train (or go on) and measure; evaluate: measure a trained "
    "run again, or --weights; profile: show which part of a training step "
    "takes how long; corrupt: write the corrupted test set, as "
    "CIFAR-10-C is of CIFAR-10; export: write a run's weights for PyTorch; "
    "compare: a run beside a reference; report: several runs on one page",
  )
  flags.add_argument(
    "--init_from",
    metavar="FILE",
    help="training starts from these weights: .safetensors, or PyTorch's .pt",
  )
  flags.add_argument(
    "--weights",
    metavar="FILE",
    help="with --mode=evaluate: what is measured, in place of a run",
  )
  flags.add_argument(
    "--out",
    metavar="FOLDER|FILE.safetensors",
    help="with --mode=corrupt the folder, with --mode=export the file",
  )
  flags.add_argument(
    "--reference",
    metavar="NAME|PATH",
    help="with --mode=compare: a published result, or a file or folder of one",
  )
  flags.add_argument(
    "--runs",
    metavar="FOLDER,FOLDER",
    help="with --mode=report: the runs' folders",
  )
  flags.add_argument(
    "--baseline",
    metavar="FOLDER",
    help="with --mode=report: the one of the runs that others are compared to",
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


def folders(text: str) -> list[str]:
  """Splits folders at commas, but for those that are in a folder's name.

  Args:
    text: of `--runs`; spaces around names and empty names are ignored.

  Returns:
    The folders. What exists as a path is one, the longest first.
  """
  parts, found = text.split(","), []
  while parts:
    ends = range(len(parts), 0, -1)
    names = (",".join(parts[:end]) for end in ends)
    whole = zip(names, ends, strict=True)
    # os.path: pathlib raises where a name is too long to exist.
    whole = (pair for pair in whole if os.path.exists(pair[0]))
    name, end = next(whole, (parts[0].strip(), 1))
    found += [name] if name else []
    del parts[:end]
  return found


def check(flags: argparse.Namespace) -> None:
  """Refuses flags that the mode does not take.

  Args:
    flags: from `parse`.

  Raises:
    ValueError: for an unknown mode, or a flag that is of another one.
  """
  if flags.mode not in MODES:
    raise ValueError(f"unknown --mode={flags.mode}: choose {', '.join(MODES)}")
  for name in {name for names in MODES.values() for name in names}:
    given = getattr(flags, name) or (name == "config" and flags.overrides)
    if given and name not in MODES[flags.mode]:
      takers = [mode for mode, names in MODES.items() if name in names]
      raise ValueError(
        f"--{name} is for --mode={' or '.join(takers)}, not --mode={flags.mode}"
      )
    a_run = name == "workdir" and flags.mode != "report"
    if isinstance(given, str) and "://" in given and not a_run:
      raise ValueError(
        f"--{name}={given} is a URL, as only a run's --workdir may be: give a "
        "path"
      )
