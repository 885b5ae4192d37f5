"""Loads a config from the command line: file, argument, individual fields.

`ml_collections.config_flags` reads the same syntax, but reports mistakes as
tracebacks; here, each one is reported in one line that says what is valid.
"""

import ast
import difflib
import importlib.util
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from ram_jax.runs import folder as run_folder

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
DEFAULT = str(CONFIGS / "default.py")
NOT_CONFIGS = ("__init__", "common", "default")
_RETURNED = {
  "get_config": "a ConfigDict",
  "get_runs": "a non-empty list of ConfigDicts",
}
# Groups of fields that belong to a plug-in.
_OF_PLUG_INS = ("dataset", "model", "method", "augment", "evaluators")


def load(text: str, overrides: Sequence[str] = ()) -> ConfigDict:
  """Loads a config.

  Args:
    text: `FILE.py`, or `FILE.py:ARGUMENT` with the argument of `get_config`, or
      the `config.json` of a run. A colon is part of the path if a file with
      that name exists.
    overrides: see `override`.

  Returns:
    The config that the file's `get_config` returns, or that of the run, with
    the overrides applied.

  Raises:
    FileNotFoundError: for a missing file; the message lists what exists.
    ValueError: for an argument or an override that is rejected, or a broken
      file.
  """
  path, argument = split(text)
  if path.name == "config.json" and path.is_file():
    config = _recorded(path, argument)
  else:
    config = _called(text, "get_config")
  override(config, overrides)
  return config


def load_runs(text: str, overrides: Sequence[str] = ()) -> list[ConfigDict]:
  """Loads the configs of a sweep.

  Args:
    text: `FILE.py` or `FILE.py:ARGUMENT`, with the argument of `get_runs`.
    overrides: applied to every config; see `override`.

  Returns:
    The configs that the file's `get_runs` returns, with the overrides applied.

  Raises:
    FileNotFoundError: for a missing file; the message lists what exists.
    ValueError: if an argument or an override is rejected, the file is broken,
      or two configs have the same name and seed.
  """
  found = _called(text, "get_runs")
  for config in found:
    override(config, overrides)
  names = [f"{config.name}-{config.seed}" for config in found]
  for name in names:
    if names.count(name) > 1:
      raise ValueError(
        f"{text} has two runs called {name}: each needs its own config.name or "
        "config.seed"
      )
  return found


def split(text: str) -> tuple[pathlib.Path, str]:
  """Splits `PATH:ARGUMENT` into the path of a config and its argument.

  Args:
    text: see `load`.

  Returns:
    The path and the argument. The path is the longest part before a colon, or
    the whole text, that is a file; otherwise the part before the first colon.
  """
  colons = [i for i, letter in enumerate(text) if letter == ":"]
  for end in (len(text), *reversed(colons), *colons[:1]):
    path = pathlib.Path(os.path.expanduser(text[:end]))
    if path.is_file():
      break
  return path, text[end + 1 :]


def _called(text: str, function: str) -> Any:
  """The result of a file's `get_config` or `get_runs`."""
  path, argument = split(text)
  if not (path.suffix == ".py" and path.is_file()):
    is_sweep = function == "get_runs"
    names = available("sweeps/[!_]*.py" if is_sweep else "*.py")
    known = ", ".join(f"configs/{name}.py" for name in names)
    other = "" if is_sweep else ", or the config.json of a run"
    raise FileNotFoundError(
      f"--config={text} is not a config file: choose {known}, or your own .py "
      f"file with a function {function}{other}"
    )
  try:
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, function):
      raise ValueError(f"{path} has no function {function}{_other(module)}")
    found = getattr(module, function)(*[argument] if argument else [])
  except ValueError:
    raise
  except Exception as error:  # any error in the user's own file
    # ml_collections lists all fields after a misspelled one.
    fields_present = r" Other fields present: .*?(?=Did you mean|$)"
    text = re.sub(fields_present, " ", str(error), flags=re.S)
    raise ValueError(
      f"the config file {path} raises {type(error).__name__}: {text} "
      "(--debug shows where)"
    ) from error
  rows = [found] if function == "get_config" else found
  listed = isinstance(rows, list | tuple) and len(rows) > 0
  if not listed or not all(isinstance(x, ConfigDict) for x in rows):
    raise ValueError(
      f"{function} of {path} returned {found!r:.60}: it must return "
      f"{_RETURNED[function]}"
    )
  return found


def _other(module: Any) -> str:
  """What to do with a file that lacks the wanted function."""
  if hasattr(module, "get_runs"):
    return ": it defines a sweep, so add --mode=sweep"
  if hasattr(module, "get_config"):
    return ": it defines a single run, so leave out --mode=sweep"
  return ""


def _recorded(path: pathlib.Path, argument: str) -> ConfigDict:
  """A run's config.json, applied to the default config for its field types."""
  if argument:
    raise ValueError(
      f"cannot use {argument!r}: {path} already contains all choices; use "
      "--config.FIELD=VALUE to change individual fields"
    )
  found, config = run_folder.read(path.parent), load(DEFAULT)
  relative = config.evaluators.adversarial.relative_step_size
  try:
    for name, value in _given(found).items():
      if name in _OF_PLUG_INS:
        config[name] = ConfigDict(value)
      else:
        config.update({name: value})
    if differ := run_folder.differences(found, config.to_dict()):
      raise ValueError(differ[0])
    _follow(config, relative)
  except (ValueError, TypeError, AttributeError) as error:
    raise ValueError(
      f"{path} is damaged: compare it with configs/default.py ({error})"
    ) from error
  return config.lock()


def _follow(config: ConfigDict, relative: float) -> None:
  """Makes default step sizes follow epsilon again, as in the config files."""
  for part in config.values():
    if not isinstance(part, ConfigDict):
      continue
    is_attack = {"epsilon", "step_size"} <= set(part.keys())
    if is_attack and part.step_size == part.epsilon * relative:
      part.step_size = part.get_oneway_ref("epsilon") * relative
    _follow(part, relative)


def _given(value: Any) -> Any:
  """Drops unresolved fields (None) and turns JSON's lists into tuples."""
  if isinstance(value, dict):
    return {k: _given(part) for k, part in value.items() if part is not None}
  return tuple(map(_given, value)) if isinstance(value, list) else value


def available(pattern: str = "*.py") -> list[str]:
  """Names of the config files in `configs/` that match a pattern."""
  paths = [path.relative_to(CONFIGS) for path in CONFIGS.glob(pattern)]
  names = sorted(str(path.with_suffix("")) for path in paths)
  return [name for name in names if name not in NOT_CONFIGS]


def override(config: ConfigDict, arguments: Sequence[str]) -> None:
  """Sets individual fields, in order.

  Args:
    config: changed in place; no field is added.
    arguments: strings `--config.FIELD=VALUE`, with a VALUE of the field's type.

  Raises:
    ValueError: for an unknown field or a value of the wrong type.
  """
  for argument in arguments:
    flag, equals, text = argument.partition("=")
    name = flag.removeprefix("--config.")
    if not equals:
      raise ValueError(f"{flag} has no value: write {flag}=VALUE")
    holder, key = _find(config, name)
    holder[key] = _value(name, text, holder.get_type(key), holder[key])


def fields(config: ConfigDict, prefix: str = "") -> list[str]:
  """Dotted names of a config's fields, with a prefix prepended."""
  return list(run_folder.flat(config.to_dict(), prefix))


def _find(config: ConfigDict, name: str) -> tuple[ConfigDict, str]:
  """The group that contains a field, and the field's key in it."""
  holder, where = config, "config"
  for part in name.split("."):
    if not isinstance(holder, ConfigDict):
      raise ValueError(f"there is no config.{name}: {where} is not a group")
    if part not in holder:
      raise ValueError(
        f"there is no config.{name}{_suggestion(_near(name, config))}: "
        f"{where} has {', '.join(holder.keys())}"
      )
    parent, holder, where = holder, holder[part], f"{where}.{part}"
  if isinstance(holder, ConfigDict):
    raise ValueError(
      f"config.{name} is a group of fields: set one of "
      f"{', '.join(fields(holder, f'config.{name}.'))}"
    )
  return parent, part


def _near(name: str, config: ConfigDict) -> list[str]:
  """Fields whose last part is the same, or else the most similar one."""
  known, last = fields(config, "config."), name.split(".")[-1]
  ends = {field: field.split(".")[-1] for field in known}
  same = difflib.get_close_matches(last, ends.values(), 1, 0.7)
  return [field for field in known if ends[field] in same]


def _suggestion(near: Sequence[str]) -> str:
  return f" (did you mean {' or '.join(near[:3])}?)" if near else ""


def _boolean(text: str) -> bool:
  return {"true": True, "false": False}[text.lower()]


def _number(text: str) -> float:
  """A number, or a fraction of two numbers."""
  over, slash, under = text.partition("/")
  return float(over) / float(under) if slash else float(text)


def _tuple(text: str) -> tuple:
  words = [word.strip() for word in text.split(",")]
  if all(word.isidentifier() for word in words):
    return tuple(words)  # shells remove quotes
  divided = re.sub(r"[\w.]+/[\w.]+", lambda x: repr(_number(x[0])), text)
  value = ast.literal_eval(divided.strip())
  return tuple(value) if isinstance(value, tuple | list) else (value,)


# Type of a field -> (function that parses its text, valid values in words).
_READERS: dict[type, tuple[Callable[[str], Any], str]] = {
  bool: (_boolean, "true or false"),
  int: (int, "an integer"),
  float: (_number, "a number, or a fraction such as 8/255"),
  str: (str, "text"),
  tuple: (
    _tuple,
    "values separated by commas, such as 0.5,1.0 or 4/255,8/255 or fog,snow, "
    "or () for none",
  ),
}


def _value(name: str, text: str, kind: type, now: Any) -> Any:
  if now is None and text.lower() == "none":
    return None
  if kind not in _READERS:
    raise ValueError(
      f"config.{name} is a {kind.__name__}, which cannot be set on the command "
      "line: set it in a config file"
    )
  read, expected = _READERS[kind]
  try:
    return read(text)
  except (ArithmeticError, ValueError, KeyError, SyntaxError) as error:
    raise ValueError(
      f"config.{name} cannot be {text!r}: give {expected} (it is {now!r})"
    ) from error
