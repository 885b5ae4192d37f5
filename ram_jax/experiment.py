"""Runs a config: checks it, its data and folder, then trains or evaluates.

`prepare` is the startup sequence shared by training and by the evaluation of a
run, a weights file or an ensemble.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ram_jax import memory, plugins
from ram_jax.attacks import sizes
from ram_jax.contracts import Note, Source, Split
from ram_jax.data import pipeline, sanity
from ram_jax.evaluation import loop as evaluation_loop
from ram_jax.interop import names, weights
from ram_jax.interop.weights import Weights
from ram_jax.models.classifier import Classifier, Ensemble, check_values
from ram_jax.resolution import resolve
from ram_jax.runs import folder as run_folder
from ram_jax.runs import results as results_lib
from ram_jax.runs import signals
from ram_jax.runs.checkpoint import Checkpoints, fingerprint, fitted
from ram_jax.runs.metrics import announce
from ram_jax.training import loop as training_loop
from ram_jax.training import state as state_lib


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The result of `prepare`.

  Attributes:
    config: the resolved config.
    folder: the run's folder.
    source: the data set.
    train: training images and labels; None if they are not needed.
    evaluation: evaluation on the test images, limited by
      `config.evaluate.images`.
    data: content of data.json, see `run_folder.read_data`.
  """

  config: ConfigDict
  folder: pathlib.Path
  source: Source
  train: Split | None
  evaluation: evaluation_loop.Evaluation
  data: dict[str, Any]

  @contextlib.contextmanager
  def locked(self, claim: bool = True) -> Iterator[signals.Stop]:
    """Locks the folder against other programs, and handles signals.

    Args:
      claim: whether to record in the folder which run it belongs to.

    Yields:
      The object that reports whether a signal was received.
    """
    with run_folder.lock(self.folder), signals.listen() as stop:
      if claim:
        run_folder.claim(self.config, self.data, self.folder)
      yield stop

  @property
  def evaluate(self) -> Callable[..., results_lib.Run]:
    """(model, step, stop, about) -> the run, see `evaluation.loop.run`."""
    given = self.config, self.evaluation, self.folder, self.data
    return functools.partial(evaluation_loop.run, *given)


def prepare(
  config: ConfigDict,
  folder: pathlib.Path,
  save_adversarial: str | None,
  train: bool = False,
  source: Source | None = None,
  notes: Sequence[Note] = (),
) -> Experiment:
  """Checks everything that can be checked before anything is computed.

  Nothing in the folder is written until `Experiment.locked` is entered, except
  the lock file, if there already is one.

  Args:
    config: the resolved config.
    folder: the run's folder; it may be missing.
    save_adversarial: folder for AutoAttack's adversarial images, if any.
    train: whether the training data is needed.
    source: the config's data set, if already built.
    notes: notes on the results, besides those on data and attacks.

  Returns:
    The experiment.

  Raises:
    ValueError: for unusable data, or a folder that belongs to another run.
  """
  run_folder.check(config, folder)
  source = source or plugins.build("dataset", config.dataset)
  splits = {}
  if train:
    splits["train"] = pipeline.load(source, "train", config.train.images)
  splits["test"] = pipeline.load(source, "test")
  found = {name: pipeline.describe(*split) for name, split in splits.items()}
  saved = run_folder.check_data(found, folder)
  source = _as_trained(source, saved)
  test = pipeline.limit_examples(
    source, "test", splits["test"], config.evaluate.images
  )
  fields = run_folder.flat(config.to_dict())
  subsets = {
    f"config.{name}": value
    for name, value in fields.items()
    if name.startswith(("evaluate.", "evaluators."))
    and name.endswith("images")
    and type(value) is int
  }
  of_test = sanity.warnings(test)
  of_test += sanity.subset_warnings(splits["test"][1], subsets)
  if train:
    warnings = sanity.warnings(test, splits["train"])
    about_train = [text for text in warnings if text not in of_test]
  else:  # found during training
    about_train = saved.get("notes", [])
  warnings = [*about_train, *of_test, *sizes.check(fields, test[0][0].size)]
  found_notes = [Note(text) for text in getattr(source, "notes", ())]
  found_notes += [Note(text, "warning") for text in warnings]
  for note in found_notes:
    announce(f"{note.level.replace('info', 'note')}: {note.text}")
  evaluation = evaluation_loop.build(
    config, source, test, (*found_notes, *notes), save_adversarial
  )
  data = saved | found | {"notes": about_train}
  if train and not config.normalization.mean:
    statistics = {"mean": list(source.mean), "std": list(source.std)}
    data[run_folder.STATISTICS] = statistics
  train_split = splits.get("train")
  return Experiment(config, folder, source, train_split, evaluation, data)


class _AsTrained:
  """A data set with the statistics with which a run was trained."""

  def __init__(self, source: Source, mean: Any, std: Any) -> None:
    self._source, self.mean, self.std = source, tuple(mean), tuple(std)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._source, name)


def _as_trained(source: Source, data: dict[str, Any]) -> Source:
  """The data set, with the statistics in data.json if there are any.

  Those of a user's own arrays are computed from the training images, which may
  be missing or different now.
  """
  found = data.get(run_folder.STATISTICS)
  return _AsTrained(source, found["mean"], found["std"]) if found else source


def train_and_evaluate(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  save_adversarial: str | None = None,
  source: Source | None = None,
  before_evaluation: Callable[[], None] = lambda: None,
) -> results_lib.Run:
  """Trains a run to completion and evaluates it.

  If the workdir contains part of the same run, it resumes from the last
  checkpoint with the same draws and data order; on CPUs, the result is
  bit-identical to that of an uninterrupted run. A finished run is not changed,
  unless adversarial images are requested; in that case, it is evaluated again.

  Args:
    config: a complete config from `configs/`.
    workdir: the run's folder; created if missing.
    save_adversarial: folder for AutoAttack's adversarial images, if any.
    source: the config's data set, if already built.
    before_evaluation: called after training; it may raise `Stopped`.

  Returns:
    The evaluated run.

  Raises:
    ValueError: for an invalid config, data or folder, before the first step.
    FloatingPointError: if a step produces a NaN or an infinity; the last
      checkpoint before it is kept, and `post_mortem/` describes the step.
    OSError: if writing to the folder fails, for example because of a full disk.
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
  run = prepare(config, folder, save_adversarial, train=True, source=source)
  training, data = build_training(config, run.source, run.train, file)
  # A second state is kept for a post-mortem.
  training_loop.check_memory(training, data, 2, "training")
  with run.locked() as stop:
    with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
      state = training_loop.fit(
        config, training, data, folder, checkpoints, stop
      )
    before_evaluation()
    variables, step = state_lib.evaluated(config, vars(state)), int(state.step)
    model = classifier(run.evaluation.module, variables, step)
    return run.evaluate(model, step, stop)


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
    config: the resolved config.
    source: the data set.
    train: training images and labels.
    file: weights to start from, None for random ones.

  Returns:
    The training run and its data.
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
  """Evaluates a trained run (again), without its training images.

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
  run = prepare(config, folder, save_adversarial)
  with run.locked(claim=False) as stop:
    model, step = _restored(config, run.source, folder)
    return run.evaluate(model, step, stop)


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
  run = prepare(config, folder, save_adversarial)
  module, shape = run.evaluation.module, run.evaluation.batch["images"].shape
  variables = names.from_torch(module, shape[1:], file.tensors)
  step = about.pop("step")
  named = dict(zip(("params", "batch_stats"), variables, strict=True))
  model = classifier(module, named, step)
  with run.locked() as stop:
    return run.evaluate(model, step, stop, about)


def evaluate_ensemble(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  save_adversarial: str | None = None,
  *,
  runs: Sequence[str | pathlib.Path],
) -> results_lib.Run:
  """Evaluates the mean of the probabilities of several trained runs.

  Attacks see the whole ensemble.

  Args:
    config: complete; its data set must be that of the runs.
    workdir: folder of the results; created if missing.
    save_adversarial: folder for AutoAttack's adversarial images, if any.
    runs: folders of the runs; networks and methods may differ.

  Returns:
    The evaluated ensemble.

  Raises:
    FileNotFoundError: if a folder contains no run or no checkpoint.
    ValueError: if a run has a different data set or is damaged, or the workdir
      contains something else.
  """
  folder, paths = pathlib.Path(workdir), [pathlib.Path(x) for x in runs]
  config = resolve(config, run_folder.read(paths[0]))
  members = [_member(config, path) for path in paths]
  models, labels, notes = zip(*members, strict=True)
  model = Ensemble(models)
  with config.unlocked():
    config.weights.fingerprint = fingerprint(model)
    config.weights.notes = (f"mean probabilities of {', '.join(labels)}",)
  about = {
    "name": folder.name,
    "epochs": 0,
    "method": evaluation_loop.ENSEMBLE,
    "label": f"Ensemble of {len(runs)}",
    "model": " + ".join(dict.fromkeys(x.module.label for x in models)),
  }
  run = prepare(config, folder, save_adversarial, notes=sum(notes, []))
  # The members must have the same training images, too.
  data = run.data | {"train": run_folder.read_data(paths[0])["train"]}
  for path in paths:
    run_folder.check_data(data, path)
  with run.locked() as stop:
    return run.evaluate(model, 0, stop, about)


def _member(
  config: ConfigDict, folder: pathlib.Path
) -> tuple[Classifier, str, list[Note]]:
  """A trained run of an ensemble, its name, and notes on its training."""
  trained = ConfigDict(run_folder.read(folder))
  pair = ({"dataset": x.dataset.to_dict()} for x in (trained, config))
  if differ := run_folder.differences(*pair, run_folder.PLACES):
    raise ValueError(
      f"{folder} has a different data set than --config: {differ[0]}"
    )
  trained.evaluate = config.evaluate
  source = plugins.build("dataset", trained.dataset)
  model, step = _restored(trained, source, folder)
  name = f"{trained.name}-{trained.seed}"
  found = [
    *evaluation_loop.training_notes(trained),
    *evaluation_loop.unfinished(trained, step, run_folder.read_data(folder)),
  ]
  notes = [
    dataclasses.replace(note, text=f"{name}: {note.text}") for note in found
  ]
  return model, f"{name} (step {step}, {fingerprint(model)[:12]}...)", notes


def _restored(
  config: ConfigDict, source: Source, folder: pathlib.Path
) -> tuple[Classifier, int]:
  """The evaluated weights of a run's newest checkpoint, and their step."""
  source = _as_trained(source, run_folder.read_data(folder))
  module = plugins.build_model(config, source, "float32", axis_name=None)
  # The shapes of the parameters do not depend on the size of the images.
  images = jnp.zeros((1, 32, 32, 3))
  init = functools.partial(module.init, jax.random.key(0), images, train=False)
  memory.check(init, 1, 0, "evaluation")
  with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
    state, _, path = checkpoints.newest()
  step = int(state["step"])
  try:
    saved = state_lib.evaluated(config, state)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  variables = fitted(jax.eval_shape(init), saved, path)
  return classifier(module, variables, step), step


def classifier(module: Any, variables: dict[str, Any], step: int) -> Classifier:
  """A model to evaluate.

  Args:
    module: the network.
    variables: `params` and `batch_stats`.
    step: number of updates, for the message.

  Returns:
    The classifier.

  Raises:
    ValueError: if the weights contain invalid numbers.
  """
  check_values(f"the weights of step {step}", variables)
  return Classifier(module=module, **variables)


def describe(file: weights.Weights, name: str) -> dict[str, Any]:
  """Describes the weights in a file, for results.json.

  Args:
    file: the weights, with or without the metadata of `--mode=export`.
    name: name of the file, without its suffix.

  Returns:
    `name` (of the file), `epochs` (0), and `label`, `method` and `step`: those
    of the exported run, or placeholders for other files.
  """
  about = {"name": name, "label": name, "method": "weights", "epochs": 0}
  exported = file.metadata.get("producer") == weights.PRODUCER
  method = file.metadata.get("method") if exported else None
  if method not in plugins.available("method"):
    return about | {"step": 0}
  label = plugins.load("method", method).label
  step = int(file.metadata.get("step", 0))
  return about | {"label": label, "method": method, "step": step}


def export(folder: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
  """Writes a run's weights as a PyTorch state_dict, in a safetensors file.

  docs/pytorch_weights.md lists the PyTorch classes that load it strictly. The
  file's metadata states the input normalization. If the run has results, the
  weights are those that were evaluated: averaged or not, main or auxiliary.

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
  with contextlib.suppress(FileNotFoundError):  # export what was evaluated
    head = results_lib.load(folder).head
    config.evaluate = ConfigDict(head["config"]["evaluate"])
  source = plugins.build("dataset", config.dataset)
  model, step = _restored(config, source, folder)
  averaged = config.average.name if config.evaluate.average else "none"
  split = config.batch_norm.split
  metadata = {
    "run": f"{config.name}-{config.seed}",
    "method": config.method.name,
    "model": json.dumps(config.model.to_dict()),
    "data": source.label,
    "step": str(step),
    "average": str(averaged),
    "batch_norm": f"{split}, {config.evaluate.batch_norm}",
  }
  out.parent.mkdir(parents=True, exist_ok=True)
  return weights.write(
    out, model.module, model.params, model.batch_stats, metadata
  )
