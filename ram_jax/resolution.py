"""Checks a config's fields, and fills in those that depend on the device."""

import json
import re
from typing import Any

import jax
from ml_collections import ConfigDict

from ram_jax import checks, plugins
from ram_jax.attacks import sizes
from ram_jax.augment import mixing
from ram_jax.evaluation import loop as evaluation_loop
from ram_jax.interop import normalization
from ram_jax.interop.weights import PRODUCER, Weights
from ram_jax.methods.consistency import Consistency
from ram_jax.models.classifier import check_values
from ram_jax.runs import folder as run_folder
from ram_jax.runs import results as results_lib
from ram_jax.training import averaging
from ram_jax.training import split as split_lib


def _is_schedule(value: Any) -> bool:
  """Whether pairs are (epoch, count), with ascending epochs."""
  epochs = [
    epoch
    for epoch, count in value
    if type(epoch) is type(count) is int and epoch >= 0 and count >= 1
  ]
  return len(epochs) == len(value) and epochs == sorted(set(epochs))


_COUNT = checks.integer(1)
_LIMIT = ("a number of images, or 0 for all", lambda v: v >= 0)
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
  "train.device_data_gib": checks.SIZE,
  "train.dtype": checks.one_of("float32", "bfloat16"),
  "optimizer.learning_rate": checks.POSITIVE,
  "optimizer.momentum": checks.BELOW_1,
  "optimizer.weight_decay": checks.SIZE,
  "average.name": checks.one_of(*averaging.NAMES),
  "average.decay": checks.BELOW_1,
  "average.start": checks.BELOW_1,
  "average.batch_norm": checks.one_of(*averaging.BATCH_NORM),
  "awp.gamma": checks.SIZE,
  "awp.first_epoch": checks.integer(0),
  "mix.name": checks.one_of("none", *mixing.NAMES),
  "mix.alpha": checks.POSITIVE,
  "mix.probability": ("a number above 0, at most 1", lambda v: 0 < v <= 1),
  "batch_norm.views": checks.one_of("separate", "joint"),
  "batch_norm.attack": checks.one_of("running", "batch"),
  "batch_norm.split": checks.one_of(*split_lib.SPLITS),
  "batch_norm.affine": checks.one_of(*split_lib.AFFINE),
  "evaluate.batch_norm": checks.one_of(*split_lib.NAMES),
  "train.label_smoothing": checks.BELOW_1,
  "train.attack_steps": (
    "pairs (epoch, steps) of integers, such as ((0,1),(10,7)): epochs of at "
    "least 0 in ascending order, and steps of at least 1",
    _is_schedule,
  ),
  "train.epsilon_ramp": checks.FRACTION,
  "optimizer.warmup_epochs": checks.SIZE,
  "evaluate.batch_size": _COUNT,
  "evaluate.images": _LIMIT,
}


# Methods whose views do not allow every split of BatchNorm.
SPLITS = {
  "standard": ("none",),
  "adversarial": ("none",),
  "augmix": ("none", "augmented"),
}
AUTOATTACK_IMAGES = 1000  # evaluated on a CPU by default


def resolve(
  config: ConfigDict,
  trained: dict[str, Any] | None = None,
  weights: Weights | None = None,
) -> ConfigDict:
  """Checks fields, and fills in those that depend on device or weights.

  Args:
    config: a complete config from `configs/`.
    trained: config.json of the run to be evaluated. Its choices are kept, even
      if the run was trained on a different kind of device.
    weights: the file that `config.weights` names, if any.

  Returns:
    A locked copy without placeholders or references.

  Raises:
    ValueError: for a value out of range; the message names the field.
  """
  try:
    return _resolved(config, trained, weights)
  # The cause is an edited config.json, or the user's own config file.
  except (TypeError, AttributeError, KeyError) as error:
    raise ValueError(
      f"the config lacks a field, or has one of the wrong type ({error!r}): "
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
  """Copies what a run records about its weights.

  The config's own entry and normalization take precedence.
  """
  weights, constants = config.weights, config.normalization
  weights.fingerprint = trained["weights"]["fingerprint"]
  weights.notes = tuple(trained["weights"]["notes"])
  weights.entry = weights.entry or trained["weights"]["entry"]
  if not (constants.mean or constants.std or constants.preset):
    for name in ("mean", "std"):
      constants[name] = tuple(trained["normalization"][name])
    constants.preset = trained["normalization"]["preset"]


def _take(config: ConfigDict, weights: Weights | None) -> None:
  """Checks a weights file; takes its fingerprint, notes and normalization."""
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
  description = f"the file {weights.stated}"
  if constants.preset or given != stated:
    preset = constants.preset and f".preset={constants.preset}"
    origin = f"given by config.normalization{preset}"
    description = f"{normalization.shown(*given)}, {origin}; {description}"
  notes = [*weights.notes, f"normalization: {description}"]
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
  # Exports of earlier versions do not state the activation, which was ReLU.
  if isinstance(exported, dict):
    exported = {"activation": "relu"} | exported
  if exported != config.model.to_dict():
    raise ValueError(
      f"the weights were exported from the network {exported}, but "
      f"config.model is {config.model.to_dict()}: choose the network that was "
      "exported, for example with FILE.py:model=NAME"
    )


def _check(config: ConfigDict) -> None:
  values = run_folder.flat(config.to_dict())
  rules = dict(_RULES)
  for name in values:
    if name.endswith("attack.steps"):
      group = name.removesuffix(".steps")
      # With epsilon 0, the step size may also be 0.
      step = checks.POSITIVE if values[f"{group}.epsilon"] > 0 else checks.SIZE
      rules |= {name: _COUNT, f"{group}.epsilon": checks.SIZE}
      rules[f"{group}.step_size"] = step
  checks.check(values, "config.", **rules)
  checks.check(values, "config.", **_combinations(config))
  for name, value in values.items():
    if not name.startswith("normalization.") and _repeats(value):
      raise ValueError(f"config.{name} is {value!r}: give each value once")
  sizes.check(values)
  _check_corruption(config)
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
  return len(set(shown)) < len(shown)


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
        f"set is {dataset.to_dict()}: leave the evaluator's tfds_dir empty, or "
        f"choose CIFAR-{spec.classes}"
      )


def _combinations(config: ConfigDict) -> dict[str, checks.Rule]:
  """Rules for fields whose allowed values depend on other fields."""
  epochs, method, gamma = config.train.epochs, config.method, config.awp.gamma
  splits = SPLITS.get(method.name, split_lib.SPLITS)
  is_split = config.batch_norm.split != "none"
  # Mixed images have soft labels, which only cross-entropy supports.
  # Methods with a consistency loss are not combined with mixing.
  objective = method.to_dict().get("attack", {}).get("objective")
  mixable = objective in (None, "cross_entropy") and not issubclass(
    plugins.load("method", method.name), Consistency
  )
  return {
    "batch_norm.split": (
      f"{' or '.join(splits)}, as supported by the method {method.name}",
      lambda v: v in splits,
    ),
    "batch_norm.affine": (
      "shared if config.batch_norm.split is none",
      lambda v: is_split or v == "shared",
    ),
    "average.batch_norm": (
      "copied or averaged if config.batch_norm.split is not none",
      lambda v: not is_split or v != "reestimated",
    ),
    "evaluate.batch_norm": (
      "main if config.batch_norm.split is none",
      lambda v: is_split or v == "main",
    ),
    "awp.first_epoch": (
      f"less than config.train.epochs, {epochs}",
      lambda v: v < epochs or not gamma,
    ),
    "mix.name": (
      f"none, as {method.name} or its attack's objective needs one class per "
      "image; or use standard, adversarial or trades with cross_entropy",
      lambda v: v == "none" or mixable,
    ),
    "train.attack_steps": (
      f"epochs below config.train.epochs, {epochs}",
      lambda v: not v or v[-1][0] < epochs,
    ),
    "optimizer.warmup_epochs": (
      f"at most config.train.epochs, {epochs}",
      lambda v: v <= epochs,
    ),
  }
