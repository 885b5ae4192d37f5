"""A config made definite for this machine, and the workdir that it owns."""

import json
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ram_jax import plugins
from ram_jax.checkpoint import Checkpoints
from ram_jax.data import pipeline
from ram_jax.report import runs, tables

# What may differ between a training run and a later evaluation of it.
EVALUATION_FIELDS = ("name", "evaluate", "evaluators", "floors")


def _one_of(*allowed: str) -> tuple[str, Callable[[Any], bool]]:
  return " or ".join(allowed), lambda value: value in allowed


# What is allowed, in words and as a test; NaN fails every comparison.
_COUNT = ("a whole number, at least 1", lambda v: v >= 1)
_LIMIT = ("how many, or 0 for all", lambda v: v >= 0)
_SIZE = ("a finite number, at least 0", lambda v: 0 <= v < math.inf)
_POSITIVE = ("a finite number above 0", lambda v: 0 < v < math.inf)
_RULES = {
  "name": ("a name, it names the folder of the run", bool),
  # numpy's and JAX's seeds differ beyond 32 bits.
  "seed": ("a whole number from 0 to 2^32 - 1", lambda v: 0 <= v < 2**32),
  "train.epochs": _COUNT,
  "train.batch_size": _COUNT,
  "train.images": _LIMIT,
  "train.log_every": _COUNT,
  "train.checkpoint_every": _COUNT,
  "train.steps_per_dispatch": _COUNT,
  "train.dtype": _one_of("float32", "bfloat16"),
  "optimizer.learning_rate": _POSITIVE,
  "optimizer.momentum": ("a number from 0 to below 1", lambda v: 0 <= v < 1),
  "optimizer.weight_decay": _SIZE,
  "batch_norm.views": _one_of("separate", "joint"),
  "batch_norm.attack": _one_of("running", "batch"),
  "evaluate.batch_size": _COUNT,
  "evaluate.images": _LIMIT,
}


def resolve(
  config: ConfigDict, trained: dict[str, Any] | None = None
) -> ConfigDict:
  """Checks plain fields and fills in what depends on the device.

  Args:
    config: complete, as from `configs/`.
    trained: config.json of the run to be measured, perhaps on another device
      than it was trained on: what was chosen then is kept.

  Returns:
    A locked copy without placeholders or references.

  Raises:
    ValueError: for a value out of range; the message names the field.
  """
  config = config.copy_and_resolve_references()
  cpu = jax.default_backend() == "cpu"
  chosen = {
    "steps_per_dispatch": 1 if cpu else 10,
    "unroll": cpu,
    "dtype": "float32" if cpu else "bfloat16",
  }
  if trained:
    chosen |= {name: trained["train"][name] for name in chosen}
  for name, value in chosen.items():
    if config.train[name] is None:
      config.train[name] = value
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
  """Refuses a folder that cannot be written or holds another training run.

  Args:
    config: resolved.
    folder: the run's folder; it may be missing.

  Raises:
    ValueError: naming the fields that differ.
  """
  place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
  if not place.is_dir():
    raise ValueError(f"--workdir={folder}: {place} is a file, name a folder")
  if not os.access(place, os.W_OK | os.X_OK):
    raise ValueError(
      f"--workdir={folder}: you may not write in {place}, name another folder"
    )
  if not (folder / "config.json").exists():
    if (folder / "checkpoints").exists():
      raise ValueError(
        f"--workdir={folder} holds checkpoints without the config.json that "
        "says what they are: restore it, or choose another --workdir"
      )
    return
  if differ := differences(read(folder), config, EVALUATION_FIELDS):
    shown = "; ".join(differ[:3])
    more = f"; and {len(differ) - 3} more" if len(differ) > 3 else ""
    raise ValueError(
      f"--workdir={folder} holds another run: {shown}{more}. Choose "
      "another --workdir, or give the same configuration to go on"
    )


def differences(
  saved: dict[str, Any], config: ConfigDict, ignored: Sequence[str] = ()
) -> list[str]:
  """How a configuration differs from one that was saved.

  Args:
    saved: as read from JSON.
    config: resolved.
    ignored: fields of the top level that may differ.

  Returns:
    One phrase for each field that differs, in alphabetical order.
  """
  # Through JSON, as tuples come back from it as lists.
  theirs, ours = _flat(saved), _flat(json.loads(json.dumps(config.to_dict())))
  return [
    f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} now"
    for name in sorted(theirs.keys() | ours.keys())
    if name.split(".")[0] not in ignored and theirs.get(name) != ours.get(name)
  ]


def finished(config: ConfigDict, folder: pathlib.Path) -> dict[str, Any] | None:
  """The results of a run that has nothing left to do.

  Args:
    config: resolved.
    folder: the run's folder; it may be missing.

  Returns:
    What results.json holds, if it measures the last step as `config` asks.
  """
  try:
    results = runs.load(folder).results
    size, step = results["data"]["train"]["size"], results["run"]["step"]
    measured = results["config"]
  except (FileNotFoundError, ValueError, KeyError):
    return None  # missing or damaged results are measured again
  train = config.train
  last = pipeline.steps_per_epoch(size, train.batch_size) * train.epochs
  if step != last or differences(measured, config):
    return None
  checkpoints = Checkpoints(folder / "checkpoints")
  latest = checkpoints.latest_step()
  checkpoints.close()
  return results if latest == last else None


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
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or "train" not in found:
      raise ValueError("it holds no configuration")
  except ValueError as error:
    raise ValueError(
      f"{path} is damaged ({error}): restore it, or start in a new --workdir"
    ) from error
  return found


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
      rows[prefix + name] = value
  return rows


def _check(config: ConfigDict) -> None:
  values = _flat(config.to_dict())
  rules = dict(_RULES)
  for name in values:
    group, _, field = name.rpartition(".")
    if group.endswith("attack"):
      if field == "steps":
        rules[name] = _COUNT
      # Without an epsilon there is nothing to step through.
      elif field == "step_size" and values[f"{group}.epsilon"] > 0:
        rules[name] = _POSITIVE
  for name, (allowed, rule) in rules.items():
    if not rule(values[name]):
      raise ValueError(f"config.{name} is {values[name]!r}: give {allowed}")
  if not config.evaluators:
    raise ValueError("config.evaluators is empty: nothing would be measured")
  # Fails now where a row is malformed, and not after the training.
  tables.floors({}, config.floors)
