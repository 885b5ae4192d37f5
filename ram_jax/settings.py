"""A config made definite for this machine, and the workdir that it owns."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ram_jax import plugins

# What may differ between a training run and a later evaluation of it.
EVALUATION_FIELDS = ("name", "evaluate", "evaluators", "floors")

DTYPES = ("float32", "bfloat16")


def resolve(config: ConfigDict) -> ConfigDict:
  """Checks plain fields and fills in what depends on the device.

  Args:
    config: complete, as from `configs/`.

  Returns:
    A locked copy without placeholders or references.

  Raises:
    ValueError: for a value out of range; the message names the field.
  """
  config = config.copy_and_resolve_references()
  cpu = jax.default_backend() == "cpu"
  train = config.train
  with config.unlocked():
    if train.steps_per_dispatch is None:
      train.steps_per_dispatch = 1 if cpu else 10
    if train.unroll is None:
      train.unroll = cpu
    if train.dtype is None:
      train.dtype = "float32" if cpu else "bfloat16"
  _check(config)
  return config


def attack_spec(spec: ConfigDict, unroll: bool) -> dict[str, Any]:
  """A method's or evaluator's spec with its attack's loop chosen.

  Args:
    spec: the spec; it may hold an `attack`.
    unroll: see config.train.unroll.

  Returns:
    The spec as a dict.
  """
  fields = spec.to_dict()
  if "attack" in fields:
    fields["attack"]["unroll"] = unroll
  return fields


def build_model(
  config: ConfigDict, source: Any, dtype: str, axis_name: str | None
) -> Any:
  """Builds a config's model for a data set.

  Args:
    config: resolved.
    source: the data set: its classes and normalisation.
    dtype: of convolutions and the head.
    axis_name: device axis that BatchNorm's statistics span, if any.

  Returns:
    The Linen module.
  """
  return plugins.build(
    "model",
    config.model,
    num_classes=source.num_classes,
    mean=source.mean,
    std=source.std,
    axis_name=axis_name,
    # float32 is what parameters are; under x64 that is float64.
    dtype=None if dtype == "float32" else jnp.dtype(dtype),
  )


def check_workdir(config: ConfigDict, folder: pathlib.Path) -> None:
  """Refuses a folder that holds another training run.

  Args:
    config: resolved.
    folder: the run's folder; it may be missing.

  Raises:
    ValueError: naming the fields that differ.
  """
  path = folder / "config.json"
  if folder.exists() and not folder.is_dir():
    raise ValueError(f"--workdir={folder} is a file: name a folder")
  if not path.exists():
    return
  theirs, ours = _flat(read(folder)), _flat(config.to_dict())
  differ = [
    f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} now"
    for name in sorted(theirs.keys() | ours.keys())
    if name.split(".")[0] not in EVALUATION_FIELDS
    and theirs.get(name) != ours.get(name)
  ]
  if differ:
    raise ValueError(
      f"--workdir={folder} holds another run: {'; '.join(differ)}. Choose "
      "another --workdir, or give the same configuration to go on"
    )


def read(folder: pathlib.Path) -> dict[str, Any]:
  """Reads a run's config.json.

  Args:
    folder: the run's folder.

  Returns:
    The resolved configuration.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it is damaged.
  """
  path = folder / "config.json"
  if not path.exists():
    raise FileNotFoundError(
      f"{path} does not exist: --workdir must name the folder of a run"
    )
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(
      f"{path} is damaged ({error}): restore it, or start in a new --workdir"
    ) from error


def write(config: ConfigDict, folder: pathlib.Path) -> None:
  """Writes config.json; from then on the folder belongs to this run.

  Args:
    config: resolved.
    folder: the run's folder; made if missing.
  """
  write_json(config.to_dict(), folder / "config.json")


def write_json(tree: Any, path: pathlib.Path) -> None:
  """Writes JSON so that a reader finds the old or the new file, never half.

  Args:
    tree: dicts, lists, numbers and strings.
    path: the file; its folder is made if missing.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_suffix(".part")
  part.write_text(json.dumps(tree, indent=2) + "\n")
  part.replace(path)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  rows = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      rows |= _flat(value, f"{prefix}{name}.")
    else:
      rows[prefix + name] = list(value) if isinstance(value, tuple) else value
  return rows


def _check(config: ConfigDict) -> None:
  at_least = {
    "seed": 0,
    "train.epochs": 1,
    "train.batch_size": 1,
    "train.images": 0,
    "train.log_every": 1,
    "train.checkpoint_every": 1,
    "train.steps_per_dispatch": 1,
    "evaluate.batch_size": 1,
    "evaluate.images": 0,
    "optimizer.learning_rate": 0,
    "optimizer.momentum": 0,
    "optimizer.weight_decay": 0,
  }
  values = _flat(config.to_dict())
  for name, low in at_least.items():
    # NaN fails every comparison, so ask for what is right.
    if not low <= values[name] < float("inf"):
      raise ValueError(
        f"config.{name} is {values[name]}: it must be at least {low} and finite"
      )
  choices = {
    "batch_norm.views": ("separate", "joint"),
    "batch_norm.attack": ("running", "batch"),
    "train.dtype": DTYPES,
  }
  for name, allowed in choices.items():
    if values[name] not in allowed:
      raise ValueError(
        f"config.{name} is {values[name]!r}: choose {' or '.join(allowed)}"
      )
