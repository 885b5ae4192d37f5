"""The evaluation loop: runs every evaluator, then writes the results."""

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from ram_jax import contracts, memory, parallel, plugins
from ram_jax.contracts import Batch, Note, Row
from ram_jax.data import pipeline
from ram_jax.evaluation import precision, rows, views
from ram_jax.evaluation.cache import Parts, cache_key
from ram_jax.models.classifier import Classifier, Ensemble
from ram_jax.runs import folder as run_folder
from ram_jax.runs import metrics, provenance
from ram_jax.runs import results as runs
from ram_jax.runs import signals as stopping
from ram_jax.runs.checkpoint import fingerprint

# Memory for attacking an image of 32 x 32 pixels: the 4.5 million float32
# activations of WRN-50-2, plus some headroom.
ATTACK_BYTES = 24 * 2**20
ENSEMBLE = "ensemble"  # in place of a method
# Training options, with the paper's values.
PAPER = {
  "augment.name": "basic",
  "awp.gamma": 0.0,
  "batch_norm.split": "none",
  "method.adversarial_weight": 0.0,
  "method.attacked": "clean",
  "method.augment.name": "augmix",
  "mix.name": "none",
  "model.activation": "relu",
  "optimizer.decay_all": True,
  "optimizer.warmup_epochs": 0.0,
  "train.attack_steps": (),
  "train.epsilon_ramp": 0.0,
  "train.label_smoothing": 0.0,
}


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The evaluation that a config describes, ready to run.

  Attributes:
    evaluators: evaluators by their name in the config.
    module: the model, in float32 and without a device axis.
    batch: the test set, `images` uint8 [N,H,W,C] and `labels` int32 [N].
    data_label: the data set's name for tables.
    notes: notes on data and attacks.
  """

  evaluators: dict[str, contracts.Evaluator]
  module: Any
  batch: Batch
  data_label: str
  notes: tuple[Note, ...]


def resolve(evaluate: ConfigDict) -> None:
  """Checks the precision, and fills in what depends on the platform.

  Args:
    evaluate: config.evaluate, changed in place.

  Raises:
    ValueError: for a precision that this platform does not support.
  """
  evaluate.precision = precision.resolve(
    evaluate.precision, "config.evaluate.precision"
  )
  if evaluate.batch_size is not None:
    return
  devices, cpu = jax.device_count(), jax.default_backend() == "cpu"
  each, free = (512 if cpu else 2048) // devices, memory.available()
  if not cpu and free is not None:
    each = min(each, free // ATTACK_BYTES)
  evaluate.batch_size = max(1, each) * devices


def build(
  config: ConfigDict,
  source: contracts.Source,
  test: contracts.Split,
  notes: tuple[Note, ...] = (),
  save_adversarial: str | None = None,
) -> Evaluation:
  """Builds the evaluation of a config; rejects invalid fields and data.

  Args:
    config: the resolved config.
    source: the data set.
    test: the test images, uint8 [N,H,W,C], and their labels, int32 [N].
    notes: notes on data and attacks.
    save_adversarial: folder for AutoAttack's adversarial images, if any.

  Returns:
    The evaluation.

  Raises:
    FileNotFoundError: if an evaluator's file is missing.
    ValueError: for an invalid field or invalid data; the message names the
      field.
  """
  batch_size = config.evaluate.batch_size
  parallel.check_batch_size(batch_size, "config.evaluate.batch_size")
  batch = dict(zip(("images", "labels"), test, strict=True))
  given = {
    "batch_size": batch_size,
    "precision": config.evaluate.precision,
    "save_to": save_adversarial or "",
    # On a CPU, unroll even if the run was trained without unrolling.
    "unroll": config.train.unroll or jax.default_backend() == "cpu",
  }
  evaluators = {
    name: plugins.build("evaluator", spec, f"config.evaluators.{name}", **given)
    for name, spec in config.evaluators.items()
  }
  saving = [one for one in evaluators.values() if hasattr(one, "save_to")]
  if save_adversarial and len(saving) != 1:
    raise ValueError(
      f"--save_adversarial={save_adversarial} needs one autoattack evaluator, "
      f"but the config has {len(saving)}"
    )
  for name, evaluator in evaluators.items():
    try:
      evaluator.check(batch)
    except ValueError as error:
      raise ValueError(f"config.evaluators.{name}: {error}") from error
  module = plugins.build_model(config, source, "float32", axis_name=None)
  return Evaluation(evaluators, module, batch, source.label, notes)


def run(
  config: ConfigDict,
  evaluation: Evaluation,
  folder: pathlib.Path,
  data: dict[str, Any],
  model: Classifier | Ensemble,
  step: int,
  stop: stopping.Stop,
  about: dict[str, Any] | None = None,
) -> runs.Run:
  """Runs every evaluator and writes the results.

  Finished parts are kept in the folder until the results are written, so that
  an interrupted evaluation can resume.

  Args:
    config: the resolved config.
    evaluation: from `build`.
    folder: the run's folder, locked.
    data: content of data.json; its `train`, if known, has the size and
      fingerprint of the training data.
    model: the classifier, with finite weights.
    step: number of updates of its weights.
    stop: checked between parts.
    about: entries of results.json's `run` that differ from the config.

  Returns:
    The evaluated run.

  Raises:
    stopping.Stopped: after a signal.
  """
  stop.at_once("finished parts of the evaluation are kept")
  started = time.monotonic()
  # Fail now if the file is damaged, not after hours of evaluation.
  log = metrics.read(folder / "metrics.jsonl")
  model = parallel.replicate(model)
  # Streams 0 and 1 of the seed are for initial weights and training.
  key = jax.random.fold_in(jax.random.key(config.seed), 2)
  head = describe(config, evaluation, step, folder)
  head["run"] |= about or {}
  if "train" in data:
    head["data"]["train"] = data["train"]
  depends = {"weights": fingerprint(model), **cache_key()}
  parts = Parts(folder / run_folder.PARTS, stop)
  found = [*evaluation.notes, *notes(config, head)]
  # Unlike files written by --mode=export, weights files from elsewhere do not
  # describe their network, so say what was assumed.
  if head["run"]["method"] == "weights":
    assumptions = getattr(evaluation.module, "assumptions", ())
    found += [Note(text, "warning") for text in assumptions]
  # Only the attacks' search may use a lower precision; see `precision.py`.
  with jax.default_matmul_precision("highest"):
    for name, evaluator in evaluation.evaluators.items():
      cache = parts.cache_for(
        [depends, dependencies(head, name)], f"evaluating: {name}"
      )
      found += evaluator.results(model, evaluation.batch, key, cache)
  head["timing"] = {
    "train_seconds": sum(row["timing"]["seconds"] for row in log),
    "evaluate_seconds": time.monotonic() - started + parts.seconds,
  }
  found += rows.notes([part for part in found if isinstance(part, Row)])
  found += views.pictures(
    config, evaluation.evaluators, model, evaluation.batch, key
  )
  if parallel.is_first_process():
    shutil.rmtree(folder / "figures", ignore_errors=True)  # outdated
    new = [part for part in found if isinstance(part, Row)]
    if kept := runs.keep_previous(folder, new):
      metrics.announce(
        f"the previous results contain more rows or images: they are in {kept}"
      )
    runs.write(folder, head, found)
    parts.remove()
  return runs.collect(folder, head, found, log)


def dependencies(head: dict[str, Any], name: str) -> dict[str, Any]:
  """The entries of results.json that one evaluator's results depend on.

  Args:
    head: has `run`, `config`, `versions`, `device` and `data`.
    name: name of the evaluator.

  Returns:
    These entries, without the other evaluators and the required accuracies.
  """
  config = head["config"]
  own = {"evaluators": {name: config["evaluators"][name]}, "floors": ()}
  fields = ("run", "versions", "device", "data")
  return {f: head[f] for f in fields} | {"config": config | own}


def describe(
  config: ConfigDict, evaluation: Evaluation, step: int, folder: pathlib.Path
) -> dict[str, Any]:
  """Describes the run, its data, devices and versions.

  Args:
    config: the resolved config.
    evaluation: from `build`.
    step: number of updates of the evaluated weights.
    folder: the run's folder.

  Returns:
    The head of results.json.
  """
  head = {
    "run": {
      "name": f"{config.name}-{config.seed}",
      "method": config.method.name,
      "label": plugins.load("method", config.method.name).label,
      "model": evaluation.module.label,
      "dataset": config.dataset.name,
      "data_label": evaluation.data_label,
      "seed": config.seed,
      "step": step,
      "epochs": config.train.epochs,
    },
    "config": config.to_dict(),
    "data": {"test": pipeline.describe(**evaluation.batch)},
  } | provenance.environment()
  if trained := provenance.trained_with(folder):
    head["trained_with"] = trained
  return head


def overlapping(augment: Mapping[str, Any]) -> int:
  """Counts an augmentation's operations if some overlap the corruptions.

  Args:
    augment: the augmentation's spec.

  Returns:
    The total number of operations if some overlap the corruptions, else 0.
  """
  count = 14 if augment.get("name") == "trivial" else 0
  if augment.get("operations", 9) > 9:
    count = augment["operations"]
  return count or (overlapping(augment.get("augment", {})) if augment else 0)


def notes(config: ConfigDict, head: dict[str, Any]) -> Iterator[Note]:
  """Notes on how the weights were trained and evaluated.

  Args:
    config: the resolved config.
    head: the head of results.json.

  Yields:
    The notes.
  """
  if config.weights.measured:
    name = pathlib.Path(config.weights.measured).name
    yield Note(f"weights of {name} ({config.weights.fingerprint[:19]}...)")
  elif head["run"]["method"] != ENSEMBLE:
    yield from training_notes(config)
    yield from unfinished(config, head["run"]["step"], head["data"])
  yield from map(Note, config.weights.notes)
  if changed := provenance.changes(head.get("trained_with", [])):
    changed = "; ".join(changed)
    yield Note(f"changed during training: {changed}", "warning")
  if config.evaluate.precision != precision.FULL:
    yield Note(
      f"the attacks' search used {config.evaluate.precision}; all images "
      "were classified in float32"
    )
  if config.evaluate.images:
    yield Note(f"evaluated on the first {config.evaluate.images} images only")


def training_notes(config: ConfigDict) -> Iterator[Note]:
  """Notes on how a run was trained, and which of its weights are evaluated.

  Args:
    config: the run's config, resolved.

  Yields:
    The notes.
  """
  method = config.method.to_dict()
  for augment in (config.augment.to_dict(), method.get("augment", {})):
    if count := overlapping(augment):
      yield Note(
        f"trained with {count} operations, some of which overlap the "
        "corruptions",
        "warning",
      )
    if pictures := augment.get("pictures"):
      yield Note(f"PixMix with the mixing set {pictures}")
  fields = run_folder.flat(config.to_dict())
  for name, papers in PAPER.items():
    if fields.get(name, papers) not in (papers, []):  # JSON has no tuples
      yield Note(f"trained with {name}={fields[name]}, unlike in the paper")
  if config.weights.initial:
    name = pathlib.Path(config.weights.initial).name
    yield Note(f"training started from the weights in {name}")
  if (name := config.average.name) != "none":
    used = "averaged" if config.evaluate.average else "last"
    yield Note(
      f"evaluated the {used} weights from training with {name.upper()}"
    )
  if config.batch_norm.split != "none":
    used = config.evaluate.batch_norm
    yield Note(f"evaluated with the {used} set of the split BatchNorm")
  if config.train.images:
    yield Note(f"trained on the first {config.train.images} images only")


def unfinished(
  config: ConfigDict, step: int, data: Mapping[str, Any]
) -> Iterator[Note]:
  """Warns if the weights were saved before the end of training.

  Args:
    config: the run's config, resolved.
    step: number of updates of the weights.
    data: its `train`, if known, contains the size of the training data.

  Yields:
    The warning.
  """
  if "train" not in data:
    return
  train, average = config.train, config.average
  steps = pipeline.steps_per_epoch(data["train"]["size"], train.batch_size)
  last = steps * train.epochs
  if step >= last:
    return
  text = f"evaluated after step {step} of {last}, before the end of training"
  if average.batch_norm == "reestimated" and config.evaluate.average:
    text += ", with running statistics that have not been reestimated yet"
  yield Note(text, "warning")
