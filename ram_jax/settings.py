"""A config made definite for this machine."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ram_jax import plugins, run_folder
from ram_jax.attacks import sizes
from ram_jax.interop import normalization
from ram_jax.interop.weights import PRODUCER, Weights
from ram_jax.models.classifier import check_values
from ram_jax.report import tables


def _one_of(*allowed: str) -> tuple[str, Callable[[Any], bool]]:
  return " or ".join(allowed), lambda value: value in allowed


# What is allowed, in words and as a test; NaN fails every comparison.
_COUNT = ("a whole number, at least 1", lambda v: v >= 1)
_LIMIT = ("how many, or 0 for all", lambda v: v >= 0)
_SIZE = ("a finite number, at least 0", lambda v: 0 <= v < math.inf)
_POSITIVE = ("a finite number above 0", lambda v: 0 < v < math.inf)
_RULES = {
  # It is part of a path: runs/<name>-<seed>.
  "name": (
    "a name of letters, digits and . _ + -, it names the folder of the run",
    lambda v: re.fullmatch(r"\w[\w.+-]*", v),
  ),
  # numpy's and JAX's seeds differ beyond 32 bits.
  "seed": ("a whole number from 0 to 2^32 - 1", lambda v: 0 <= v < 2**32),
  "train.epochs": _COUNT,
  "train.batch_size": _COUNT,
  "train.images": _LIMIT,
  "train.log_every": _COUNT,
  "train.checkpoint_every": _COUNT,
  "train.steps_per_dispatch": _COUNT,
  "train.device_data_gib": _SIZE,
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
  config: ConfigDict,
  trained: dict[str, Any] | None = None,
  weights: Weights | None = None,
) -> ConfigDict:
  """Checks plain fields and fills in what depends on device or weights.

  Args:
    config: complete, as from `configs/`.
    trained: config.json of the run to be measured, perhaps on another device
      than it was trained on: what was chosen then is kept.
    weights: the file that `config.weights` names, if any.

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
  if trained:
    _inherit(config, trained)
  _check_weights(config, trained is not None)
  if not trained:
    _take(config, weights)
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
    dtype: of the convolutions and the activations between them. The head, and
      a normalisation after the last block, stay float32.
    axis_name: device axis that BatchNorm's statistics span, if any.

  Returns:
    The Linen module.
  """
  return plugins.build(
    "model",
    config.model,
    num_classes=source.num_classes,
    mean=tuple(config.normalization.mean or source.mean),
    std=tuple(config.normalization.std or source.std),
    axis_name=axis_name,
    # float32 is what parameters are; under x64 that is float64.
    dtype=None if dtype == "float32" else jnp.dtype(dtype),
  )


def _inherit(config: ConfigDict, trained: dict[str, Any]) -> None:
  """Takes what a run says of its weights, where nothing else was asked for."""
  weights, constants = config.weights, config.normalization
  weights.fingerprint = trained["weights"]["fingerprint"]
  weights.notes = tuple(trained["weights"]["notes"])
  weights.entry = weights.entry or trained["weights"]["entry"]
  if not (constants.mean or constants.std or constants.preset):
    for name in ("mean", "std"):
      constants[name] = tuple(trained["normalization"][name])
    constants.preset = trained["normalization"]["preset"]


def _take(config: ConfigDict, weights: Weights | None) -> None:
  """Takes what a file states, where nothing else was asked for."""
  config.weights.notes = ()
  if not weights:
    return
  check_values("the file of weights", weights.tensors)
  _check_export(config, weights)
  config.weights.fingerprint = weights.fingerprint
  constants, stated = config.normalization, weights.normalization
  if not constants.mean:
    if not stated:
      path = config.weights.initial or config.weights.measured
      raise ValueError(f"{path} {weights.stated}: {normalization.choices()}")
    constants.mean, constants.std = stated
  given = (tuple(constants.mean), tuple(constants.std))
  said = f"the file {weights.stated}"
  if constants.preset or given != stated:
    preset = constants.preset and f".preset={constants.preset}"
    who = f"given by config.normalization{preset}"
    said = f"{normalization.shown(*given)}, {who}; {said}"
  config.weights.notes = (*weights.notes, f"normalization: {said}")


def _check_export(config: ConfigDict, weights: Weights) -> None:
  """Rejects another network than was exported; the tensors may fit both."""
  said = weights.metadata.get("model")
  if weights.metadata.get("producer") != PRODUCER or not said:
    return
  try:
    exported = json.loads(said)
  except ValueError:
    exported = said
  if exported != config.model.to_dict():
    raise ValueError(
      f"the weights are an export of the network {exported}, and config.model "
      f"is {config.model.to_dict()}: choose the network that was exported"
    )


def _check(config: ConfigDict) -> None:
  values = run_folder.flat(config.to_dict())
  rules = dict(_RULES)
  for name in values:
    group, _, field = name.rpartition(".")
    if group.endswith("attack"):
      if field == "steps":
        rules[name] = _COUNT
      elif field == "epsilon":
        rules[name] = _SIZE
      # Without an epsilon there is nothing to step through.
      elif field == "step_size" and values[f"{group}.epsilon"] > 0:
        rules[name] = _POSITIVE
  for name, (allowed, rule) in rules.items():
    if not rule(values[name]):
      raise ValueError(f"config.{name} is {values[name]!r}: give {allowed}")
  for name, value in values.items():
    if not name.startswith("normalization.") and _repeats(value):
      raise ValueError(f"config.{name} is {value!r}: give each value once")
  sizes.check(values)
  _check_corruption(config)
  if not config.evaluators:
    raise ValueError("config.evaluators is empty: nothing would be measured")
  # Fails now where a row is malformed, and not after the training.
  try:
    tables.floors({}, config.floors)
  except ValueError as error:
    raise ValueError(f"config.floors: {error}") from error


def _repeats(value: Any) -> bool:
  """Whether a tuple has a value twice, numbers as tables write them."""
  if not isinstance(value, tuple | list):
    return False
  shown = [round(v, 5) if isinstance(v, float) else v for v in value]
  return any(v in shown[:i] for i, v in enumerate(shown))


def _check_weights(config: ConfigDict, is_run: bool) -> None:
  """Checks what was given, and fills in the normalization of a name."""
  weights = config.weights
  if weights.initial and weights.measured:
    raise ValueError(
      f"config.weights names two files, initial {weights.initial!r} to train "
      f"from and measured {weights.measured!r} to measure: give one of them"
    )
  if weights.entry and not (weights.initial or weights.measured or is_run):
    raise ValueError(
      f"config.weights.entry is {weights.entry!r}, but there is no file of "
      "weights: give --weights or --init_from, or leave it empty"
    )
  constants, presets = config.normalization, normalization.PRESETS
  given = (tuple(constants.mean), tuple(constants.std))
  if name := constants.preset:
    if name not in presets:
      raise ValueError(
        f"config.normalization.preset is {name!r}: {normalization.choices()}"
      )
    if given not in (((), ()), presets[name]):
      raise ValueError(
        f"config.normalization has both preset {name!r} and mean {given[0]!r} "
        f"with std {given[1]!r}: leave one of them empty"
      )
    constants.mean, constants.std = presets[name]
  elif any(given) and not normalization.allowed(*given):
    raise ValueError(
      f"config.normalization has mean {given[0]!r} and std {given[1]!r}: give "
      f"both, three numbers each, {normalization.ALLOWED}"
    )


def _check_corruption(config: ConfigDict) -> None:
  """A prepared set is of CIFAR-10."""
  for name, spec in config.evaluators.items():
    if spec.name != "corruption" or spec.folder or not spec.tfds_dir:
      continue
    dataset = config.dataset
    if dataset.name != "cifar" or dataset.classes != spec.classes:
      raise ValueError(
        f"config.evaluators.{name} measures CIFAR-{spec.classes}-C, but the "
        f"data set is {dataset.to_dict()}: leave its tfds_dir empty, "
        "or choose the data set that it was made from"
      )
