"""Checks a config's fields, and fills in those that depend on the device."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from ram_jax.attacks import sizes
from ram_jax.augment import mixing
from ram_jax.evaluation import loop as evaluation_loop
from ram_jax.interop import normalization
from ram_jax.interop.weights import PRODUCER, Weights
from ram_jax.models.classifier import check_values
from ram_jax.runs import folder as run_folder
from ram_jax.runs import results as results_lib
from ram_jax.training import averaging
from ram_jax.training import split as split_lib


def _one_of(*allowed: str) -> tuple[str, Callable[[Any], bool]]:
  return " or ".join(allowed), lambda value: value in allowed


def _is_schedule(value: Any) -> bool:
  """Whether pairs are (epoch, count), with ascending epochs."""
  pairs = [x for x in value if isinstance(x, tuple | list) and len(x) == 2]
  whole = all(type(number) is int for pair in pairs for number in pair)
  if len(pairs) < len(value) or not whole:
    return False
  epochs = [epoch for epoch, _ in pairs]
  possible = all(epoch >= 0 and count >= 1 for epoch, count in pairs)
  return possible and epochs == sorted(set(epochs))


# Allowed values, in words and as a predicate; NaN fails every comparison.
_COUNT = ("an integer, at least 1", lambda v: v >= 1)
_LIMIT = ("a number of images, or 0 for all", lambda v: v >= 0)
_SHARE = ("a number in [0, 1)", lambda v: 0 <= v < 1)
_SIZE = ("a finite number, at least 0", lambda v: 0 <= v < math.inf)
_POSITIVE = ("a finite number above 0", lambda v: 0 < v < math.inf)
_RULES = {
  # It is part of a path: runs/<name>-<seed>.
  "name": (
    "a name of letters, digits and . _ + -, as it is part of the folder's name",
    lambda v: re.fullmatch(r"\w[\w.+-]*", v),
  ),
  # numpy and JAX treat seeds of more than 32 bits differently.
  "seed": ("an integer from 0 to 2^32 - 1", lambda v: 0 <= v < 2**32),
  "train.epochs": _COUNT,
  "train.batch_size": _COUNT,
  "train.images": _LIMIT,
  "train.log_every": _COUNT,
  "train.checkpoint_every": _COUNT,
  "train.steps_per_dispatch": _COUNT,
  "train.device_data_gib": _SIZE,
  "train.dtype": _one_of("float32", "bfloat16"),
  "optimizer.learning_rate": _POSITIVE,
  "optimizer.momentum": _SHARE,
  "optimizer.weight_decay": _SIZE,
  "average.name": _one_of(*averaging.NAMES),
  "average.decay": _SHARE,
  "average.start": _SHARE,
  "average.batch_norm": _one_of(*averaging.BATCH_NORM),
  "awp.gamma": _SIZE,
  "awp.first_epoch": ("an integer, at least 0", lambda v: v >= 0),
  "mix.name": _one_of("none", *mixing.NAMES),
  "mix.alpha": _POSITIVE,
  "mix.probability": ("a number above 0, at most 1", lambda v: 0 < v <= 1),
  "batch_norm.views": _one_of("separate", "joint"),
  "batch_norm.attack": _one_of("running", "batch"),
  "batch_norm.split": _one_of(*split_lib.SPLITS),
  "batch_norm.affine": _one_of(*split_lib.AFFINE),
  "evaluate.batch_norm": _one_of(*split_lib.NAMES),
  "train.label_smoothing": _SHARE,
  "train.attack_steps": (
    "pairs (epoch, steps) of integers, such as ((0,1),(10,7)): epochs from 0 "
    "in ascending order, and steps of at least 1",
    _is_schedule,
  ),
  "train.epsilon_ramp": ("a number from 0 to 1", lambda v: 0 <= v <= 1),
  "optimizer.warmup_epochs": _SIZE,
  "evaluate.batch_size": _COUNT,
  "evaluate.images": _LIMIT,
}


# Methods whose views do not allow every split of BatchNorm.
SPLITS = {
  "standard": ("none",),
  "adversarial": ("none",),
  "augmix": ("none", "augmented"),
}
# Methods that compare the predictions for views of one image, which has one
# class.
UNMIXED = ("augmix", "augmax", "robust_augmix")
AUTOATTACK_IMAGES = 1000  # evaluated on a CPU by default


def resolve(
  config: ConfigDict,
  trained: dict[str, Any] | None = None,
  weights: Weights | None = None,
) -> ConfigDict:
  """Checks plain fields and fills in those that depend on device or weights.

  Args:
    config: a complete config from `configs/`.
    trained: config.json of the run to be evaluated. Its choices are kept, even
      if this device is of a different kind than the one it was trained on.
    weights: the file that `config.weights` names, if any.

  Returns:
    A locked copy without placeholders or references.

  Raises:
    ValueError: for a value out of range; the message names the field.
  """
  try:
    return _resolved(config, trained, weights)
  # An edited config.json, or the user's own config file.
  except (TypeError, AttributeError, KeyError) as error:
    raise ValueError(
      f"the config lacks a field, or has one with the wrong type ({error!r}): "
      "compare it with configs/default.py"
    ) from error


def _resolved(
  config: ConfigDict, trained: dict[str, Any] | None, weights: Weights | None
) -> ConfigDict:
  config = config.copy_and_resolve_references()
  cpu = jax.default_backend() == "cpu"
  chosen = {
    "steps_per_dispatch": 1 if cpu else 10,
    "unroll": cpu,
    "dtype": "float32" if cpu else "bfloat16",
  }
  for name, value in chosen.items():
    if config.train[name] is None:
      config.train[name] = trained["train"][name] if trained else value
  evaluation_loop.resolve(config.evaluate)
  autoattack = config.evaluators.to_dict().get("autoattack", {})
  if autoattack.get("images", 0) is None:
    config.evaluators.autoattack.images = AUTOATTACK_IMAGES if cpu else 0
  if trained:
    _inherit(config, trained)
  _check_weights(config, trained is not None)
  if not trained:
    _take(config, weights)
  _check(config)
  return config


def _inherit(config: ConfigDict, trained: dict[str, Any]) -> None:
  """Copies a run's fields about its weights, unless the config sets them."""
  weights, constants = config.weights, config.normalization
  weights.fingerprint = trained["weights"]["fingerprint"]
  weights.notes = tuple(trained["weights"]["notes"])
  weights.entry = weights.entry or trained["weights"]["entry"]
  if not (constants.mean or constants.std or constants.preset):
    for name in ("mean", "std"):
      constants[name] = tuple(trained["normalization"][name])
    constants.preset = trained["normalization"]["preset"]


def _take(config: ConfigDict, weights: Weights | None) -> None:
  """Copies the normalization of a weights file, unless the config sets it."""
  config.weights.notes = ()
  if not weights:
    return
  check_values("the weights file", weights.tensors)
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
  notes = [*weights.notes, f"normalization: {said}"]
  chosen = config.model.to_dict().get("activation")
  if chosen and weights.metadata.get("producer") != PRODUCER:
    notes.append(f"activation: {chosen}, as given; the file does not state it")
  config.weights.notes = tuple(notes)


def _check_export(config: ConfigDict, weights: Weights) -> None:
  """Rejects a network other than the exported one, even if the tensors fit."""
  said = weights.metadata.get("model")
  if weights.metadata.get("producer") != PRODUCER or not said:
    return
  try:
    exported = json.loads(said)
  except ValueError:
    exported = said
  # Exports of earlier versions have no activation, which was ReLU.
  if isinstance(exported, dict):
    exported = {"activation": "relu"} | exported
  if exported != config.model.to_dict():
    raise ValueError(
      f"the weights were exported from the network {exported}, but "
      f"config.model is {config.model.to_dict()}: choose the network that was "
      "exported"
    )


def _check(config: ConfigDict) -> None:
  values = run_folder.flat(config.to_dict())
  rules = dict(_RULES)
  for name in values:
    if name.endswith("attack.steps"):
      group = name.removesuffix(".steps")
      # With epsilon 0, the step size may also be 0.
      step = _POSITIVE if values[f"{group}.epsilon"] > 0 else _SIZE
      rules |= {name: _COUNT, f"{group}.epsilon": _SIZE}
      rules[f"{group}.step_size"] = step
  for name, (allowed, rule) in rules.items():
    if not rule(values[name]):
      raise ValueError(f"config.{name} is {values[name]!r}: give {allowed}")
  for name, value in values.items():
    if not name.startswith("normalization.") and _repeats(value):
      raise ValueError(f"config.{name} is {value!r}: give each value once")
  sizes.check(values)
  _check_corruption(config)
  _check_options(config)
  if not config.evaluators:
    raise ValueError("config.evaluators is empty: nothing would be evaluated")
  # Report malformed rows now, not after training.
  try:
    results_lib.check_floors(config.floors)
  except ValueError as error:
    raise ValueError(f"config.floors: {error}") from error


def _repeats(value: Any) -> bool:
  """Whether a tuple has duplicates, with numbers rounded as in tables."""
  if not isinstance(value, tuple | list):
    return False
  shown = [round(v, 5) if isinstance(v, float) else v for v in value]
  return any(v in shown[:i] for i, v in enumerate(shown))


def _check_weights(config: ConfigDict, is_run: bool) -> None:
  """Checks weights and normalization, and applies a normalization preset."""
  weights = config.weights
  if weights.initial and weights.measured:
    raise ValueError(
      f"config.weights names two files, initial {weights.initial!r} to train "
      f"from and measured {weights.measured!r} to evaluate: give one of them"
    )
  if weights.entry and not (weights.initial or weights.measured or is_run):
    raise ValueError(
      f"config.weights.entry is {weights.entry!r}, but there is no weights "
      "file: give --weights or --init_from, or leave it empty"
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
  """Checks that tensorflow-datasets' corrupted images match the data set."""
  for name, spec in config.evaluators.items():
    if spec.name != "corruption" or spec.folder or not spec.tfds_dir:
      continue
    dataset = config.dataset
    if dataset.name != "cifar" or dataset.classes != spec.classes:
      raise ValueError(
        f"config.evaluators.{name} uses CIFAR-{spec.classes}-C, but the data "
        f"set is {dataset.to_dict()}: leave its tfds_dir empty, or choose the "
        "data set that it was made from"
      )


def _check_options(config: ConfigDict) -> None:
  """Rejects options that would have no effect, or cannot be combined."""
  train, split = config.train, config.batch_norm.split
  if split not in SPLITS.get(config.method.name, split_lib.SPLITS):
    raise ValueError(
      f"config.batch_norm.split is {split!r}, but {config.method.name} has no "
      "clean views beside such views: choose none"
    )
  affine, chosen = config.batch_norm.affine, config.evaluate.batch_norm
  if split == "none" and (affine, chosen) != ("shared", "main"):
    raise ValueError(
      "config.batch_norm.split is 'none', so config.batch_norm.affine must be "
      "shared, and config.evaluate.batch_norm main"
    )
  if config.awp.gamma and config.awp.first_epoch >= train.epochs:
    raise ValueError(
      f"config.awp.first_epoch is {config.awp.first_epoch}: give less than "
      f"config.train.epochs, {train.epochs}"
    )
  if config.mix.name != "none":
    _check_mix(config)
  if train.attack_steps and train.attack_steps[-1][0] >= train.epochs:
    raise ValueError(
      f"config.train.attack_steps is {train.attack_steps}: give epochs below "
      f"config.train.epochs, {train.epochs}"
    )
  if config.optimizer.warmup_epochs > train.epochs:
    raise ValueError(
      f"config.optimizer.warmup_epochs is {config.optimizer.warmup_epochs}: "
      f"give at most config.train.epochs, {train.epochs}"
    )


def _check_mix(config: ConfigDict) -> None:
  """Rejects methods and objectives that need a single class per image."""
  name, method = config.mix.name, config.method
  if method.name in UNMIXED:
    raise ValueError(
      f"config.mix.name is {name!r}, but {method.name} compares predictions "
      "for views of one image: choose none, or the method standard, "
      "adversarial or trades"
    )
  objective = method.to_dict().get("attack", {}).get("objective")
  if objective not in (None, "cross_entropy"):
    raise ValueError(
      f"config.mix.name is {name!r}, but the attack's objective {objective!r} "
      "needs one class per image: choose cross_entropy"
    )
