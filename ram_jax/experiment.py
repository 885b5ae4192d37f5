"""Runs a config: checks it, its data and folder, then trains or evaluates.

`resolve` fills in a config's placeholders; `prepare` is the startup sequence
shared by training and by the evaluation of a run or a weights file.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ram_jax import plugins
from ram_jax.attacks import sizes
from ram_jax.contracts import Note, Source
from ram_jax.data import pipeline, sanity
from ram_jax.evaluation import loop as evaluation_loop
from ram_jax.interop import names, normalization, weights
from ram_jax.interop.weights import PRODUCER, Weights
from ram_jax.models.classifier import check_values
from ram_jax.runs import folder as run_folder
from ram_jax.runs import results as results_lib
from ram_jax.runs import signals
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.runs.metrics import announce
from ram_jax.training import loop as training_loop

Split = tuple[np.ndarray, np.ndarray]  # uint8 [N,H,W,C], int32 [N]


def _one_of(*allowed: str) -> tuple[str, Callable[[Any], bool]]:
  return " or ".join(allowed), lambda value: value in allowed


# Allowed values, in words and as a predicate; NaN fails every comparison.
_COUNT = ("an integer, at least 1", lambda v: v >= 1)
_LIMIT = ("a number of images, or 0 for all", lambda v: v >= 0)
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
  "optimizer.momentum": ("a number in [0, 1)", lambda v: 0 <= v < 1),
  "optimizer.weight_decay": _SIZE,
  "batch_norm.views": _one_of("separate", "joint"),
  "batch_norm.attack": _one_of("running", "batch"),
  "evaluate.batch_size": _COUNT,
  "evaluate.images": _LIMIT,
}


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


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The result of `prepare`.

  Attributes:
    config: resolved.
    folder: the run's folder.
    source: the data set.
    train: training images and labels; None if they are not needed.
    test: test images and labels, limited by `config.evaluate.images`.
    data: content of data.json: `train` and `test` with size and fingerprint, if
      known, and `notes`.
    notes: notes on data and attacks.
  """

  config: ConfigDict
  folder: pathlib.Path
  source: Source
  train: Split | None
  test: Split
  data: dict[str, Any]
  notes: tuple[Note, ...]

  @contextlib.contextmanager
  def locked(self, claim: bool = True) -> Iterator[signals.Stop]:
    """Locks the folder against other programs, and handles signals.

    Args:
      claim: record in the folder which run it belongs to.

    Yields:
      The object that knows whether a signal was received.
    """
    with run_folder.lock(self.folder), signals.listen() as stop:
      if claim:
        run_folder.claim(self.config, self.data, self.folder)
      yield stop


def prepare(
  config: ConfigDict, folder: pathlib.Path, train: bool
) -> Experiment:
  """Checks everything that can be checked before anything is computed.

  Nothing is written until `Experiment.locked` is entered.

  Args:
    config: resolved.
    folder: the run's folder; it may be missing.
    train: whether the training data is needed.

  Returns:
    The experiment.

  Raises:
    ValueError: for unusable data, or a folder that belongs to another run.
  """
  run_folder.check(config, folder)
  source = plugins.build("dataset", config.dataset)
  splits = {}
  if train:
    splits["train"] = pipeline.load(source, "train", config.train.images)
  splits["test"] = pipeline.load(source, "test")
  found = {name: pipeline.describe(*split) for name, split in splits.items()}
  saved = run_folder.check_data(found, folder)
  test = pipeline.limit_examples(
    source, "test", splits["test"], config.evaluate.images
  )
  of_test = sanity.warnings(test)
  if train:
    warnings = sanity.warnings(test, splits["train"])
    about_train = [text for text in warnings if text not in of_test]
  else:  # found during training
    about_train = saved.get("notes", [])
  fields = run_folder.flat(config.to_dict())
  warnings = [*about_train, *of_test, *sizes.check(fields, test[0][0].size)]
  noted = tuple(getattr(source, "notes", ()))
  for kind, texts in (("note", noted), ("warning", warnings)):
    for text in texts:
      announce(f"{kind}: {text}")
  return Experiment(
    config,
    folder,
    source,
    splits.get("train"),
    test,
    saved | found | {"notes": about_train},
    (*map(Note, noted), *(Note(text, "warning") for text in warnings)),
  )


def train_and_evaluate(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  save_adversarial: str | None = None,
) -> results_lib.Run:
  """Trains a run to its end and evaluates it.

  If the workdir contains part of the same run, it resumes from the last
  checkpoint with the same draws and data order; on CPUs, the result is
  bit-identical to that of an uninterrupted run. A finished run is not changed,
  unless adversarial images are requested, which evaluates it again.

  Args:
    config: a complete config from `configs/`.
    workdir: the run's folder; created if missing.
    save_adversarial: folder for AutoAttack's adversarial images, if any.

  Returns:
    The evaluated run.

  Raises:
    ValueError: for an invalid config, data or folder, before the first step.
    FloatingPointError: if a step has a NaN or an infinity; the last checkpoint
      before it is kept, and `post_mortem/` contains the step.
    OSError: if the folder cannot be written to, for example because of a full
      disk.
    signals.Stopped: after SIGTERM or Ctrl-C, with everything saved.
  """
  if config.weights.measured:
    raise ValueError(
      "config.weights.measured is for --mode=evaluate: to train from weights, "
      "use config.weights.initial (--init_from)"
    )
  config, file = with_weights(config)
  folder = pathlib.Path(workdir)
  finished = run_folder.finished(config, folder)
  if finished and not save_adversarial:
    # Results in a read-only folder can still be shown.
    if os.access(folder, os.W_OK):
      run_folder.check(config, folder)
    announce(f"{folder} is finished (--mode=evaluate evaluates it again)")
    return finished
  run = prepare(config, folder, train=True)
  evaluation = evaluation_loop.build(
    config, run.source, run.test, run.notes, save_adversarial
  )
  training, data = build_training(config, run.source, run.train, file)
  # A second state is kept for a post-mortem.
  training_loop.check_memory(training, data, 2, "training")
  with run.locked() as stop:
    with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
      state = training_loop.fit(
        config, training, data, folder, checkpoints, stop
      )
    return evaluation_loop.run(
      config, evaluation, state, folder, stop, run.data
    )


def with_weights(config: ConfigDict) -> tuple[ConfigDict, Weights | None]:
  """Resolves the config of a training run, or of a weights file to evaluate.

  Args:
    config: complete.

  Returns:
    The config, and the weights that it names, if any.
  """
  path = config.weights.initial or config.weights.measured
  file = weights.read(path, config.weights.entry) if path else None
  return resolve(config, weights=file), file


def build_training(
  config: ConfigDict, source: Source, train: Split, file: Weights | None
) -> tuple[training_loop.Training, dict[str, np.ndarray]]:
  """Builds a training run that starts from a file's weights or random ones.

  Args:
    config: resolved.
    source: the data set.
    train: training images and labels.
    file: weights to start from, None for random ones.

  Returns:
    The training and its data.
  """
  images, labels = train

  def start(module: Any) -> tuple[Any, Any]:
    return names.from_torch(module, images.shape[1:], file.tensors)

  training = training_loop.build(
    config, source, images.shape, start if file else None
  )
  return training, {"images": images, "labels": labels}


def evaluate_run(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  save_adversarial: str | None = None,
) -> results_lib.Run:
  """Evaluates a trained run (again), without loading its training images.

  They are only needed for the statistics of a user's own arrays, if the config
  has no normalization.

  Args:
    config: the run's config; its evaluation fields may differ.
    workdir: the run's folder.
    save_adversarial: folder for AutoAttack's adversarial images, if any.

  Returns:
    The evaluated run.

  Raises:
    FileNotFoundError: if the folder contains no run or no checkpoint.
    ValueError: if it contains another run, is damaged, or is in use.
    signals.Stopped: after SIGTERM or Ctrl-C.
  """
  folder = pathlib.Path(workdir)
  config = resolve(config, run_folder.read(folder))
  run = prepare(config, folder, train=False)
  evaluation = evaluation_loop.build(
    config, run.source, run.test, run.notes, save_adversarial
  )
  with run.locked(claim=False) as stop:
    with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
      shape = run.test[0].shape[1:]
      state = checkpoints.restore_variables(evaluation.module, shape)
    return evaluation_loop.run(
      config, evaluation, state, folder, stop, run.data
    )


def evaluate_weights(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  save_adversarial: str | None = None,
) -> results_lib.Run:
  """Evaluates the weights in a file in the same way as those of a run.

  Args:
    config: complete; `weights.measured` names the file, `model` its network.
    workdir: folder of the results; created if missing.
    save_adversarial: folder for AutoAttack's adversarial images, if any.

  Returns:
    The evaluated run.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file is damaged or contains a different network, or the
      folder contains something else.
  """
  path, folder = config.weights.measured, pathlib.Path(workdir)
  config, file = with_weights(config)
  about = describe(file, pathlib.Path(path).stem)
  run = prepare(config, folder, train=False)
  evaluation = evaluation_loop.build(
    config, run.source, run.test, run.notes, save_adversarial
  )
  params, batch_stats = names.from_torch(
    evaluation.module, run.test[0].shape[1:], file.tensors
  )
  state = types.SimpleNamespace(
    step=about.pop("step"), params=params, batch_stats=batch_stats
  )
  with run.locked() as stop:
    return evaluation_loop.run(
      config, evaluation, state, folder, stop, run.data, about
    )


def describe(file: weights.Weights, name: str) -> dict[str, Any]:
  """Describes the weights in a file, for results.json.

  Args:
    file: the weights, with or without the metadata of `--mode=export`.
    name: name of the file, without its suffix.

  Returns:
    `name`, `label`, `method`, `epochs` and `step`: those of the exported run,
    or placeholders for other files.
  """
  about = {"name": name, "label": name, "method": "weights", "epochs": 0}
  method = file.metadata.get("method")
  if method not in plugins.available("method"):
    return about | {"step": 0}
  label = plugins.load("method", method).label
  step = int(file.metadata.get("step", 0))
  return about | {"label": label, "method": method, "step": step}


def export(folder: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
  """Writes a run's weights as a PyTorch state_dict, in a safetensors file.

  docs/pytorch_weights.md lists the PyTorch classes that load it strictly. Its
  metadata states the input normalization.

  Args:
    folder: folder of a trained run.
    out: the file, `.safetensors`; its folder is created if missing.

  Returns:
    The file's metadata.

  Raises:
    FileNotFoundError: if the folder contains no run or no checkpoint.
    ValueError: if the run is damaged, its weights are unusable, or `out` has
      another suffix.
  """
  if out.suffix != weights.FORMAT:
    raise ValueError(f"--out={out} must end in {weights.FORMAT}")
  config = ConfigDict(run_folder.read(folder))
  source = plugins.build("dataset", config.dataset)
  module = plugins.build_model(config, source, "float32", axis_name=None)
  with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
    # The shapes of the parameters do not depend on the size of the images.
    state = checkpoints.restore_variables(module, (32, 32, 3))
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  check_values(f"the weights of step {int(state.step)}", variables)
  metadata = {
    "run": f"{config.name}-{config.seed}",
    "method": config.method.name,
    "model": json.dumps(config.model.to_dict()),
    "data": source.label,
    "step": str(int(state.step)),
  }
  out.parent.mkdir(parents=True, exist_ok=True)
  return weights.write(out, module, state.params, state.batch_stats, metadata)


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
  config.weights.notes = (*weights.notes, f"normalization: {said}")


def _check_export(config: ConfigDict, weights: Weights) -> None:
  """Rejects a network other than the exported one, even if the tensors fit."""
  said = weights.metadata.get("model")
  if weights.metadata.get("producer") != PRODUCER or not said:
    return
  try:
    exported = json.loads(said)
  except ValueError:
    exported = said
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
