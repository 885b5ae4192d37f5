"""Builds plug-ins from a config: one file each, one class name per kind.

There is no registry. A file that defines the class of a kind, in the folder of
the kind, is a plug-in, and its file name is its name in a config (see `KINDS`).
"""

import dataclasses
import functools
import importlib
import inspect
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

# Kind, as named in a config -> (folder, class that its files define).
KINDS = {
  "method": ("methods", "Method"),
  "augment": ("augment", "Augment"),
  "attack": ("attacks", "Attack"),
  "model": ("models", "Model"),
  "dataset": ("data", "Source"),
  "pictures": ("data", "Pictures"),
  "evaluator": ("evaluation", "Evaluator"),
}

# Attributes that are used only after training has started, so that a missing
# one would be noticed late.
NEEDED = {"method": ("label", "views", "loss")}
# Kinds whose numbers are arguments of compiled programs, see `make_pytree`.
TRACED = ("method", "attack")

# Changing only the name keeps the fields of the previous plug-in.
_START = (
  "start from a config that uses it (configs/), or choose model and dataset "
  "with FILE.py:model=NAME,dataset=NAME"
)


def available(kind: str) -> tuple[str, ...]:
  """Names of the plug-ins of a kind, from listing its folder.

  Args:
    kind: a key of `KINDS`.

  Returns:
    Sorted file names without suffixes.
  """
  folder, class_name = KINDS[kind]
  paths = sorted((pathlib.Path(__file__).parent / folder).glob("*.py"))
  return tuple(
    path.stem
    for path in paths
    if re.search(
      rf"^class {class_name}\b", path.read_text(encoding="utf-8"), re.M
    )
  )


def load(kind: str, name: str | None, where: str | None = None) -> type:
  """Imports one plug-in's class.

  Args:
    kind: a key of `KINDS`.
    name: its file name without the suffix.
    where: the part of the config that names it; default: `config.<kind>`.

  Returns:
    The class.

  Raises:
    ValueError: for an unknown name (the message lists what exists), or a class
      without the attributes in `NEEDED`.
  """
  names = available(kind)
  folder, class_name = KINDS[kind]
  path = pathlib.Path(__file__).parent / folder / f"{name}.py"
  if name not in names:
    lacks = f" ({path} has no class {class_name})" if path.is_file() else ""
    raise ValueError(
      f"{where or f'config.{kind}'}.name is {name!r}, an unknown {kind}{lacks}"
      f": choose one of {', '.join(names)}"
    )
  module = importlib.import_module(f"ram_jax.{folder}.{name}")
  found = getattr(module, class_name)
  if missing := [x for x in NEEDED.get(kind, ()) if not hasattr(found, x)]:
    raise ValueError(
      f"class {class_name} in {path} has no {', '.join(missing)}: see "
      "CONTRIBUTING.md"
    )
  if kind in TRACED and not hasattr(found, "_flax_dataclass"):
    make_pytree(found)
  return found


@functools.cache
def make_pytree(cls: type) -> type:
  """Registers a frozen dataclass as a pytree whose leaves are its numbers.

  Its fields of type float, and its attack, are arguments of the compiled
  program, so runs that differ only in them share the program. Everything else
  is part of the program and must be hashable.

  Args:
    cls: class of a method or an attack. Instances are copied without calling
      `__init__` or `__post_init__`, which may check numbers.

  Returns:
    The class.
  """
  names = [
    field.name
    for field in dataclasses.fields(cls)
    if field.type in (float, "float") or field.name in TRACED
  ]

  def flatten(instance: Any) -> tuple[list[Any], tuple[Any, ...]]:
    static = dict(vars(instance))
    return [static.pop(name) for name in names], tuple(static.items())

  def unflatten(static: tuple[Any, ...], leaves: list[Any]) -> Any:
    instance = object.__new__(cls)
    vars(instance).update(static)
    vars(instance).update(zip(names, leaves, strict=True))
    return instance

  jax.tree_util.register_pytree_node(cls, flatten, unflatten)
  return cls


def build(
  kind: str, spec: Mapping[str, Any], where: str | None = None, **given: Any
) -> Any:
  """Builds one plug-in from its part of the config.

  Values whose key is a kind are specs themselves and are built first.

  Args:
    kind: a key of `KINDS`.
    spec: `name` and the constructor's fields.
    where: path of `spec` in the config; default: `config.<kind>`.
    **given: further fields that are not in a config (axis name, statistics,
      `unroll`). A model must accept all of them; any other plug-in receives
      those that its class accepts, and nested plug-ins only `unroll`.

  Returns:
    The plug-in's instance.

  Raises:
    ValueError: for an unknown name, an unknown or missing field, or a value
      that the plug-in rejects; the message says where, and what is allowed.
  """
  where = where or f"config.{kind}"
  if not hasattr(spec, "keys"):
    raise ValueError(f"{where} is {spec!r:.60}: give a group with a name")
  built = spec.to_dict() if isinstance(spec, ConfigDict) else dict(spec)
  name = built.pop("name", None)
  cls = load(kind, name, where)
  known = inspect.signature(cls).parameters
  for key, value in built.items():
    if key in KINDS:
      inner = {k: v for k, v in given.items() if k == "unroll"}
      built[key] = build(key, value, f"{where}.{key}", **inner)
    elif isinstance(value, list):  # from JSON
      built[key] = tuple(value)
  for key, value in given.items():
    if key in known or kind == "model":
      built[key] = value
  what = f"{where} ({kind} {name!r})"
  _check_fields(known, built, what)
  try:
    return cls(**built)
  except (ValueError, TypeError) as error:
    raise ValueError(f"{what}: {error}") from error


def build_model(
  config: Any, source: Any, dtype: str, axis_name: str | None
) -> Any:
  """Builds a config's model for a data set.

  Args:
    config: the resolved config.
    source: the data set, for its classes and normalization.
    dtype: type of the convolutions and the activations between them. The head,
      and a normalization after the last block, stay float32.
    axis_name: device axis over which BatchNorm's statistics are computed, if
      any.

  Returns:
    The Linen module.
  """
  return build(
    "model",
    config.model,
    num_classes=source.num_classes,
    mean=tuple(config.normalization.mean or source.mean),
    std=tuple(config.normalization.std or source.std),
    axis_name=axis_name,
    # None selects the type of the parameters: float32, or float64 under x64.
    dtype=None if dtype == "float32" else jnp.dtype(dtype),
  )


def _check_fields(
  parameters: Mapping[str, inspect.Parameter],
  built: Mapping[str, Any],
  what: str,
) -> None:
  # `parent` and `name` are fields of every Linen module, not of the config.
  known = {k: v for k, v in parameters.items() if k not in ("parent", "name")}
  if unknown := sorted(built.keys() - known.keys()):
    raise ValueError(
      f"{what} has no field {', '.join(unknown)}: it has "
      f"{', '.join(known) or 'none'}; {_START}"
    )
  needed = [name for name, row in known.items() if row.default is row.empty]
  if missing := [name for name in needed if name not in built]:
    raise ValueError(f"{what} is missing {', '.join(missing)}; {_START}")
