"""The flags of main.py, and which mode takes which."""

import argparse
import collections
import difflib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ram_jax import command_line, field_help

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
    epilog=f"Configs: {', '.join(command_line.available())}. Of a flag or "
    "field that is given twice the last one counts.",
    allow_abbrev=False,
    add_help=False,
  )
  flags.add_argument(
    "-h",
    "--help",
    action="store_true",
    help="show this, then the fields of --config (default: configs/default.py) "
    "with their values",
  )
  flags.add_argument(
    "--config",
    metavar="FILE",
    help="what to run: FILE.py, perhaps with choices behind it "
    "(FILE.py:model=NAME,dataset=NAME,smoke), or the config.json of a run; "
    "--config.FIELD=VALUE sets one of the fields below",
  )
  flags.add_argument(
    "--workdir",
    metavar="FOLDER|URL",
    help="folder of the run, also in a bucket: gs://BUCKET/FOLDER (default: "
    "runs/NAME-SEED, with --weights runs/weights-FILE), or of the report "
    "(default: report)",
  )
  flags.add_argument(
    "--mode",
    default="train",
    help="train: train (or resume) and evaluate; evaluate: evaluate a trained "
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
    The flags; `overrides` holds every `--config.FIELD=VALUE`, also of those
    that were given as `--config.FIELD VALUE`.

  Raises:
    ValueError: for anything unknown.
    SystemExit: after --help was shown.
  """
  for text in argv:
    _check_encoding(text, text)
  overrides, others = _separated(argv)
  flags, unknown = parser().parse_known_args(others)
  if flags.help:
    print(f"{parser().format_help()}\n{_fields(flags.config, overrides)}")
    raise SystemExit(0)
  del flags.help
  if unknown:
    known = [f"--{name}" for name in vars(flags)]
    name = unknown[0].partition("=")[0]
    near = difflib.get_close_matches(name, known, 1)
    hint = f", did you mean {near[0]}?" if near else ""
    raise ValueError(
      f"cannot use {unknown[0]!r}{hint}: the flags are {', '.join(known)} and "
      "--config.FIELD=VALUE (see --help)"
    )
  for name in ("workdir", "init_from", "weights", "out", "reference"):
    if value := getattr(flags, name):
      setattr(flags, name, os.path.expanduser(value))
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


def _separated(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Fields, as `--config.FIELD=VALUE`, and everything else."""
  overrides, others, rest = [], [], collections.deque(argv)
  while rest:
    text = rest.popleft()
    if not text.startswith("--config."):
      others.append(text)
      continue
    # "-1" and "-x" are values: but for -h, all flags have two dashes.
    alone = "=" not in text and rest
    if alone and rest[0] != "-h" and not rest[0].startswith("--"):
      text = f"{text}={rest.popleft()}"
    overrides.append(text)
  return overrides, others


def _fields(text: str | None, overrides: Sequence[str]) -> str:
  """The fields of a config, or of the default one, for --help."""
  described = [command_line.CONFIGS / f"{n}.py" for n in ("default", "common")]
  if text is None:
    name, config = "configs/default.py", command_line.load(str(described[0]))
  else:
    name, config = text, command_line.load(text)
    path, _ = command_line.split(text)
    described += [path] if path.suffix == ".py" else []
  command_line.override(config, overrides)
  return (
    f"Fields of {name}, each set by --config.FIELD=VALUE:\n\n"
    f"{field_help.listing(config, described)}"
  )


def check(flags: argparse.Namespace) -> None:
  """Rejects flags that the mode does not take.

  Args:
    flags: from `parse`.

  Raises:
    ValueError: for an unknown mode, or a flag that is of another one.
  """
  if flags.mode not in MODES:
    raise ValueError(f"unknown --mode={flags.mode}: choose {', '.join(MODES)}")
  if empty := [name for name, value in vars(flags).items() if value == ""]:
    raise ValueError(f"--{empty[0]} is empty: give a value, or leave it out")
  if "workdir" in MODES[flags.mode]:
    where = os.path.abspath(flags.workdir or "")
    _check_encoding(where, f"the folder {where}")
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


def _check_encoding(text: str, what: str) -> None:
  """Rejects bytes that are no text: checkpoints are written under UTF-8 names.

  Python stands for them with lone surrogates, in a path as in an argument.
  """
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f"cannot use {ascii(what)}: it is no text in "
      f"{sys.getfilesystemencoding()}, the encoding of this locale: set "
      "LC_ALL=C.UTF-8 or PYTHONUTF8=1, or rename it to ASCII"
    ) from error
