"""The flags of main.py, which mode takes which, and what --help shows."""

import argparse
import ast
import collections
import itertools
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from ml_collections import ConfigDict

from ram_jax import command_line

# Flag -> (what its value is, what it does).
FLAGS = {
  "config": (
    "FILE",
    "what to run: FILE.py, perhaps with choices behind it "
    "(FILE.py:model=NAME,dataset=NAME,smoke), or the config.json of a run; "
    "--config.FIELD=VALUE sets one of the fields below",
  ),
  "workdir": (
    "FOLDER|URL",
    "folder of the run, also in a bucket: gs://BUCKET/FOLDER (default: "
    "runs/NAME-SEED, with --weights runs/weights-FILE), or of the report "
    "(default: report)",
  ),
  "mode": (
    "MODE",
    "train: train (or resume) and evaluate; evaluate: evaluate a trained "
    "run again, or --weights; profile: show which part of a training step "
    "takes how long; corrupt: write the corrupted test set, as "
    "CIFAR-10-C is of CIFAR-10; export: write a run's weights for PyTorch; "
    "compare: a run beside a reference; report: several runs on one page",
  ),
  "init_from": ("FILE", "weights to start from: .safetensors, PyTorch's .pt"),
  "weights": ("FILE", "weights to evaluate in place of a run"),
  "out": ("PATH", "folder of the corrupted set, or .safetensors to export to"),
  "reference": ("NAME|PATH", "a published result, or a file or folder of one"),
  "runs": ("FOLDER,FOLDER", "the runs of a report"),
  "baseline": ("FOLDER", "the one of --runs that others are compared to"),
}
PATHS = ("workdir", "init_from", "weights", "out", "reference")
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
# What a mode cannot do without, beside --config.
NEEDED = {
  "corrupt": "--out=FOLDER",
  "export": "--workdir=FOLDER and --out=FILE",
  "compare": "--workdir=FOLDER and --reference=NAME or PATH",
  "report": "--runs=FOLDER,FOLDER",
}
WIDTH, COLUMN = 80, 30  # of the listed fields, and where comments start


class Parser(argparse.ArgumentParser):
  """argparse, but its errors are ours."""

  def error(self, message: str) -> NoReturn:
    """Raises what argparse would print below a summary of all flags."""
    raise ValueError(f"{message} (see --help)")


def parser() -> Parser:
  """Returns the parser of all flags but `--config.FIELD=VALUE`."""
  flags = Parser(
    prog="main.py",
    description="Trains, evaluates and reports, such as: python main.py "
    "--config=configs/digits.py",
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
  for name, (value, text) in FLAGS.items():
    flags.add_argument(f"--{name}", metavar=value, help=text)
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
    The flags; `overrides` holds every `--config.FIELD=VALUE`, also of those
    that were given as `--config.FIELD VALUE`.

  Raises:
    ValueError: for anything unknown.
    SystemExit: after --help was shown.
  """
  for text in (*argv, os.getcwd()):
    _check_encoding(text)
  overrides, others = _separated(argv)
  flags = parser().parse_args(others)
  if flags.help:
    print(f"{parser().format_help()}\n{_fields(flags.config, overrides)}")
    raise SystemExit(0)
  del flags.help
  for name in PATHS:
    if value := getattr(flags, name):
      setattr(flags, name, os.path.expanduser(value))
  flags.overrides = overrides
  return flags


def check(flags: argparse.Namespace) -> None:
  """Rejects flags that the mode does not take, and misses those it needs.

  Args:
    flags: from `parse`.

  Raises:
    ValueError: for an unknown mode, or a flag that is of another one, empty
      or missing.
  """
  mode = flags.mode
  if mode not in MODES:
    raise ValueError(f"unknown --mode={mode}: choose {', '.join(MODES)}")
  if empty := [name for name, value in vars(flags).items() if value == ""]:
    raise ValueError(f"--{empty[0]} is empty: give a value, or leave it out")
  for name in (name for name in FLAGS if name != "mode"):
    value = getattr(flags, name)
    given = value or (name == "config" and flags.overrides)
    if given and name not in MODES[mode]:
      takers = [mode for mode, names in MODES.items() if name in names]
      raise ValueError(
        f"--{name} is for --mode={' or '.join(takers)}, not --mode={mode}"
      )
    a_run = name == "workdir" and mode != "report"
    if value and "://" in value and not a_run:
      raise ValueError(
        f"--{name}={value} is a URL, as only a run's --workdir may be: give a "
        "path"
      )
  needed = NEEDED.get(mode, "")
  if not all(getattr(flags, n) for n in re.findall(r"--(\w+)=", needed)):
    raise ValueError(f"--mode={mode} needs {needed}")
  if "config" in MODES[mode] and not flags.config:
    raise ValueError(
      "--config is missing: for example --config=configs/digits.py"
    )


def folders(text: str) -> list[str]:
  """Splits folders at commas, but for those that are in a folder's name.

  Args:
    text: of `--runs`; spaces around names and empty names are ignored.

  Returns:
    The folders. What exists as a path is one, the longest first.
  """
  parts, found = text.split(","), []
  while parts:
    names = [",".join(parts[:end]) for end in range(len(parts), 0, -1)]
    # os.path: pathlib raises where a name is too long to exist.
    name = next(filter(os.path.exists, names), parts[0].strip())
    found += [name] if name else []
    del parts[: 1 + name.count(",")]
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


def _check_encoding(text: str) -> None:
  """Rejects bytes that are no text: checkpoints are written under UTF-8 names.

  Python stands for them with lone surrogates, in a path as in an argument.
  """
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f"cannot use {ascii(text)}: it is no text in "
      f"{sys.getfilesystemencoding()}, the encoding of this locale: set "
      "LC_ALL=C.UTF-8 or PYTHONUTF8=1, or rename it to ASCII"
    ) from error


def _fields(text: str | None, overrides: Sequence[str]) -> str:
  """The fields of a config, or of the default one, for --help.

  Lines `FIELD=VALUE  comment`: after `--config.` the value is read as it is.
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
  """A group's own fields first, and `name` before them; then its groups."""
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
  """That of the block which has the most keys in common with the group."""

  def likeness(block: dict[str, str]) -> int:
    return len(block.keys() & keys) - len(block.keys() - keys)

  known = [block for block in blocks if block.get(key)]
  best = max(known, key=likeness, default={})
  return best[key] if best and likeness(best) > 0 else ""


def _blocks(path: pathlib.Path) -> list[dict[str, str]]:
  """The comment, or "", of each key of each group of fields in a file.

  A group is a dict, `{"epochs": 4, ...}`, or assignments to attributes of the
  same object, `train.epochs = 4`.
  """
  text = path.read_text(encoding="utf-8")
  lines = text.split("\n")

  def comment(node: ast.expr | ast.stmt) -> str:
    """Beside or above what begins its line."""
    line, above = lines[node.lineno - 1], reversed(lines[: node.lineno - 1])
    if line[: node.col_offset].strip():
      return ""
    if beside := re.search("  # (.*)", line):
      return beside[1]
    found = itertools.takewhile(lambda x: x.strip().startswith("#"), above)
    return " ".join(x.strip("# ") for x in reversed(list(found)))

  blocks, objects = [], collections.defaultdict(dict)
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Dict):
      named = [k for k in node.keys if isinstance(k, ast.Constant)]
      blocks.append({k.value: comment(k) for k in named})
    for target in node.targets if isinstance(node, ast.Assign) else ():
      if isinstance(target, ast.Attribute):
        group = objects[ast.unparse(target.value)]
        group[target.attr] = comment(node)
  return [*blocks, *objects.values()]
