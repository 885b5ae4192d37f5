"""Builds what a config names: one file per plug-in, one class name per folder.

There is no registry to edit. A file in `ram_jax/<folder>/` that defines the
folder's class is a plug-in, and its file name is the name a config uses.
"""

import ast
import dataclasses
import importlib
import pathlib
from collections.abc import Mapping
from typing import Any

# Kind as it is called in a config -> (folder, class that its files expose).
KINDS = {
  "method": ("methods", "Method"),
  "augment": ("augment", "Augment"),
  "attack": ("attacks", "Attack"),
  "model": ("models", "Model"),
  "dataset": ("data", "Source"),
  "evaluator": ("evaluators", "Evaluator"),
}


def available(kind: str) -> tuple[str, ...]:
  """Names of the plug-ins of a kind, by listing its folder.

  Args:
    kind: a key of `KINDS`.

  Returns:
    Sorted file names without their ending.
  """
  folder, class_name = KINDS[kind]
  paths = (pathlib.Path(__file__).parent / folder).glob("*.py")
  return tuple(
    sorted(p.stem for p in paths if class_name in _classes(p.read_text()))
  )


def load(kind: str, name: str | None) -> type:
  """Imports one plug-in's class.

  Args:
    kind: a key of `KINDS`.
    name: its file's name.

  Returns:
    The class.

  Raises:
    ValueError: for an unknown name; the message lists what exists.
  """
  names = available(kind)
  if name not in names:
    raise ValueError(
      f"unknown {kind} {name!r}: there are {', '.join(names)} "
      f"(config.{kind}.name)"
    )
  folder, class_name = KINDS[kind]
  module = importlib.import_module(f"ram_jax.{folder}.{name}")
  return getattr(module, class_name)


def build(kind: str, spec: Mapping[str, Any], **given: Any) -> Any:
  """Builds one plug-in from its part of the config.

  Values that are themselves specs (mappings with a `name`) are built first;
  their key says their kind.

  Args:
    kind: a key of `KINDS`.
    spec: `name` and the constructor's fields.
    **given: further fields that no config holds (an axis name, statistics).

  Returns:
    The plug-in's instance.

  Raises:
    ValueError: for an unknown name or field; the message lists what exists.
  """
  fields = dict(spec)
  name = fields.pop("name", None)
  cls = load(kind, name)
  built = {key: _value(key, value) for key, value in fields.items()} | given
  hidden = ("parent", "name")  # fields that every Linen module has
  known = [f.name for f in dataclasses.fields(cls) if f.init]
  known = [name for name in known if name not in hidden]
  unknown = sorted(set(built) - set(known))
  if unknown:
    raise ValueError(
      f"{kind} {name!r} has no field {', '.join(unknown)}: "
      f"its fields are {', '.join(known)}"
    )
  return cls(**built)


def _value(key: str, value: Any) -> Any:
  if isinstance(value, Mapping) and "name" in value:
    return build(key, value)
  return tuple(value) if isinstance(value, list) else value


def _classes(text: str) -> set[str]:
  nodes = ast.parse(text).body
  return {node.name for node in nodes if isinstance(node, ast.ClassDef)}
