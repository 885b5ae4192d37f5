"""The flags of main.py, the flags of each mode, and the output of --help."""

import argparse
import collections
import math
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from ml_collections import ConfigDict

from ram_jax import checks, command_line

# Flag -> (placeholder of its value, help text).
FLAGS = {
  "config": (
    "FILE",
    "what to run: FILE.py, optionally followed by choices "
    "(FILE.py:model=NAME,dataset=NAME,smoke), or the config.json of a run; "
    "--config.FIELD=VALUE sets one of the fields below",
  ),
  "workdir": (
    "FOLDER|URL",
    "folder of the run, which may be in a bucket: gs://BUCKET/FOLDER (default: "
    "runs/NAME-SEED; with --weights, runs/weights-FILE; with --runs, "
    "runs/ensemble), of the report (default: report), or of all runs of a "
    "sweep (default: runs/FILE)",
  ),
  "mode": (
    "MODE",
    "train: train (or resume) and evaluate; evaluate: evaluate a trained "
    "run again, or --weights, or the ensemble of --runs; profile: show the "
    "time of each part of a training step; corrupt: write a corrupted test set "
    "in the layout of CIFAR-10-C; export: write a run's weights for PyTorch; "
    "compare: compare a run with a reference; report: show several runs on one "
    "page; sweep: train and evaluate all runs of a file, with a report",
  ),
  "init_from": ("FILE", "weights to start from (.safetensors or PyTorch)"),
  "weights": ("FILE", "weights to evaluate instead of a run"),
  "save_adversarial": (
    "FOLDER",
    "where to write the adversarial images of AutoAttack as .npy files",
  ),
  "out": (
    "PATH",
    "folder for the corrupted set, or .safetensors file to export to",
  ),
  "reference": (
    "NAME|PATH",
    "name of a set of published numbers, or path of a file or folder",
  ),
  "runs": (
    "FOLDER,FOLDER",
    "the runs of a report, or of an ensemble to evaluate",
  ),
  "minutes": ("N", "time limit of a sweep, including its report"),
  "baseline": ("FOLDER", "one of --runs, with which the others are compared"),
}
_CONFIG = "--config=FILE, such as configs/digits.py"
# Mode -> (the flags that it requires, all its flags besides --debug).
MODES = {
  "train": (_CONFIG, "config workdir init_from save_adversarial"),
  "evaluate": (
    _CONFIG,
    "config workdir init_from weights runs save_adversarial",
  ),
  "profile": (_CONFIG, "config workdir init_from"),
  "corrupt": ("--config=FILE and --out=FOLDER", "config out"),
  "export": ("--workdir=FOLDER and --out=FILE", "workdir out"),
  "compare": (
    "--workdir=FOLDER and --reference=NAME or PATH",
    "workdir reference",
  ),
  "report": ("--runs=FOLDER,FOLDER", "workdir runs baseline"),
  "sweep": (
    "--config=FILE, such as configs/sweeps/paper.py",
    "config workdir minutes",
  ),
}
_MINUTES = ("a finite number above 0", lambda v: 0 < float(v) < math.inf)
# A key of a dict, or an object and its attribute.
_KEY = re.compile(r"""^(?:\w+ = )?(?:(\w+)\.|["'])(\w+)(?: = |["']: )""")
# Width of the list of fields, and the column in which comments start.
WIDTH, COLUMN = 80, 30


class Parser(argparse.ArgumentParser):
  """An ArgumentParser whose errors are exceptions."""

  def error(self, message: str) -> NoReturn:
    """Raises the error that argparse would print below the usage."""
    raise ValueError(f"{message} (see --help)")


def parser() -> Parser:
  """Returns the parser of all flags except `--config.FIELD=VALUE`."""
  flags = Parser(
    prog="main.py",
    description="Trains, evaluates and reports. Example: python main.py "
    "--config=configs/digits.py",
    epilog=f"Configs: {', '.join(command_line.available())}. If a flag or "
    "field is given twice, the last one wins.",
    allow_abbrev=False,
    add_help=False,
  )
  flags.add_argument(
    "-h",
    "--help",
    action="store_true",
    help="show this help, then the fields of --config (default: "
    "configs/default.py) with their values",
  )
  for name, (value, text) in FLAGS.items():
    expand = os.path.expanduser
    flags.add_argument(f"--{name}", metavar=value, help=text, type=expand)
  flags.add_argument(
    "--debug", action="store_true", help="show tracebacks of errors"
  )
  flags.set_defaults(mode="train")
  return flags


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Reads the command line.

  Args:
    argv: the command line without the program's name.

  Returns:
    The flags; `overrides` lists every `--config.FIELD=VALUE`, including those
    that were given as `--config.FIELD VALUE`.

  Raises:
    ValueError: for an unknown flag, text that cannot be encoded, or, with
      --help, a config that cannot be loaded.
    FileNotFoundError: with --help, for a missing config file.
    SystemExit: after --help.
  """
  for text in (*argv, os.getcwd()):
    _check_encoding(text)
  overrides, others = _separated(argv)
  flags = parser().parse_args(others)
  if flags.help:
    print(f"{parser().format_help()}\n{_fields(flags.config, overrides)}")
    raise SystemExit(0)
  del flags.help
  flags.overrides = overrides
  return flags


def check(flags: argparse.Namespace) -> None:
  """Checks the given flags against those that the mode supports and requires.

  Args:
    flags: from `parse`.

  Raises:
    ValueError: for an unknown mode, or a flag that is missing, invalid (such as
      empty), or meant for another mode.
  """
  mode = flags.mode
  if mode not in MODES:
    raise ValueError(f"unknown --mode={mode}: choose {', '.join(MODES)}")
  if empty := [name for name, value in vars(flags).items() if value == ""]:
    raise ValueError(f"--{empty[0]} is empty: give a value, or leave it out")
  known = {name: row[1].split() for name, row in MODES.items()}
  for name in (name for name in FLAGS if name != "mode"):
    value = getattr(flags, name)
    given = value or (name == "config" and flags.overrides)
    if given and name not in known[mode]:
      supported = [mode for mode, names in known.items() if name in names]
      raise ValueError(
        f"--{name} is for --mode={' or '.join(supported)}, not --mode={mode}"
      )
    a_run = name == "workdir" and mode != "report"
    if value and "://" in value and not a_run:
      raise ValueError(
        f"--{name}={value} is a URL, which is only supported as the --workdir "
        "of a run or a sweep: give a path"
      )
  needed = MODES[mode][0]
  if not all(getattr(flags, n) for n in re.findall(r"--(\w+)=", needed)):
    raise ValueError(f"--mode={mode} needs {needed}")
  if flags.minutes:
    checks.check(vars(flags), "--", minutes=_MINUTES)


def folders(text: str) -> list[str]:
  """Splits a list of folders at commas, except those in a folder's name.

  Args:
    text: value of `--runs`; empty names, and spaces around names, are ignored.

  Returns:
    The folders. If parts joined by commas exist as a path, the longest is used.
  """
  parts, found = text.split(","), []
  while parts:
    names = [",".join(parts[:end]) for end in range(len(parts), 0, -1)]
    # Not pathlib, which raises for names that are too long to exist.
    name = next(filter(os.path.exists, names), parts[0].strip())
    found += [name] if name else []
    del parts[: 1 + name.count(",")]
  return found


def _separated(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Separates fields, written `--config.FIELD=VALUE`, from everything else."""
  overrides, others, rest = [], [], collections.deque(argv)
  while rest:
    text = rest.popleft()
    if not text.startswith("--config."):
      others.append(text)
      continue
    # "-1" and "-x" are values: except for -h, all flags have two dashes.
    alone = "=" not in text and rest
    if alone and rest[0] != "-h" and not rest[0].startswith("--"):
      text = f"{text}={rest.popleft()}"
    overrides.append(text)
  return overrides, others


def _check_encoding(text: str) -> None:
  """Rejects undecodable bytes: checkpoints need UTF-8 file names.

  Python represents such bytes as lone surrogates, in paths and arguments.
  """
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f"cannot use {ascii(text)}: it is not valid text in "
      f"{sys.getfilesystemencoding()}, the encoding of this locale: set "
      "LC_ALL=C.UTF-8 or PYTHONUTF8=1, or use an ASCII name"
    ) from error


def _fields(text: str | None, overrides: Sequence[str]) -> str:
  """The fields of a config, or of the default one, for --help.

  The lines are `FIELD=VALUE  comment`, with VALUE as the command line reads it.
  """
  paths = [command_line.CONFIGS / f"{n}.py" for n in ("default", "common")]
  config = command_line.load(text or str(paths[0]), overrides)
  if text and (path := command_line.split(text)[0]).suffix == ".py":
    paths.append(path)
  blocks = [block for path in paths for block in _blocks(path)]
  title = f"Fields of {text or 'configs/default.py'}, each set by "
  lines = _lines(config, "", blocks)
  return "\n".join([f"{title}--config.FIELD=VALUE:\n", *lines])


def _lines(
  config: ConfigDict, prefix: str, blocks: list[dict[str, str]]
) -> Iterator[str]:
  """A group's `name`, then its other fields, then its subgroups."""
  keys = sorted(config.keys(), key=lambda key: (key != "name", key))
  groups = [key for key in keys if isinstance(config[key], ConfigDict)]
  for key in (key for key in keys if key not in groups):
    field = f"  {prefix}{key}={_text(config[key])}"
    yield _row(field, _comment(key, set(keys), blocks))
  for key in groups:
    yield "\n" + _row(f"{prefix}{key}:", _comment(key, set(keys), blocks))
    yield from _lines(config[key], f"{prefix}{key}.", blocks)


def _row(left: str, comment: str) -> str:
  return textwrap.fill(
    f"{left:{COLUMN - 2}}  {comment}".rstrip(),
    WIDTH,
    subsequent_indent=" " * COLUMN,
    break_long_words=False,
    break_on_hyphens=False,
  )


def _text(value: Any) -> str:
  """A value as `command_line.override` reads it."""
  if isinstance(value, tuple) and value:
    words = [str(x) for x in value]
    plain = all(isinstance(x, int | float) for x in value)
    if plain or all(word.isidentifier() for word in words):
      return ",".join(words)
  small = value is None or isinstance(value, bool)
  return str(value).lower() if small else str(value)


def _comment(key: str, keys: set[str], blocks: list[dict[str, str]]) -> str:
  """The key's comment in the block whose keys best match the group's."""

  def likeness(block: dict[str, str]) -> int:
    return len(block.keys() & keys) - len(block.keys() - keys)

  known = [block for block in blocks if block.get(key)]
  best = max(known, key=likeness, default={})
  return best[key] if best and likeness(best) > 0 else ""


def _blocks(path: pathlib.Path) -> list[dict[str, str]]:
  """The comment, or "", of each key of each group of fields in a file.

  A group is a dict with a key on each line, or assignments to attributes of the
  same object, `train.epochs = 4`.
  """
  objects, dicts, inside = collections.defaultdict(dict), [], [{}]
  above = []
  for line in path.read_text(encoding="utf-8").splitlines():
    line = line.strip()
    if key := _KEY.search(line):
      group = objects[key[1]] if key[1] else inside[-1]
      group[key[2]] = line.partition("  # ")[2] or " ".join(above)
    if line.endswith("{"):
      dicts.append({})
      inside.append(dicts[-1])
    elif line.startswith("}") and inside[1:]:
      inside.pop()
    above = [*above, line.strip("# ")] if line.startswith("#") else []
  return [*dicts, *objects.values()]
