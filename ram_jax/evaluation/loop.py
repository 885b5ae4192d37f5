"""The one evaluation loop: every evaluator, then the results."""

import dataclasses
import pathlib
import shutil
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ram_jax import parallel, plugins
from ram_jax.data import pipeline
from ram_jax.evaluation import correctness, views
from ram_jax.evaluation.cache import Parts, cache_key
from ram_jax.models.classifier import Classifier, check_values
from ram_jax.runs import folder as run_folder
from ram_jax.runs import metrics, provenance
from ram_jax.runs import results as runs
from ram_jax.runs import signals as stopping
from ram_jax.runs.checkpoint import fingerprint


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """A config's evaluation, ready to run.

  Attributes:
    evaluators: by the name that results.json gives their results.
    module: the model, in float32 and without a device axis.
    images: test images, uint8 [N,H,W,C].
    labels: int32 [N].
    data_label: the data set's name for tables.
    notes: what a reader must know of data and attacks, one sentence each.
  """

  evaluators: dict[str, Any]
  module: Any
  images: np.ndarray
  labels: np.ndarray
  data_label: str
  notes: tuple[str, ...]


def build(
  config: ConfigDict,
  source: Any,
  test: tuple[np.ndarray, np.ndarray],
  notes: tuple[str, ...] = (),
) -> Evaluation:
  """Builds a config's evaluation; rejects what cannot run.

  Args:
    config: resolved.
    source: the data set.
    test: images uint8 [N,H,W,C] and labels int32 [N].
    notes: what a reader must know of data and attacks, one sentence each.

  Returns:
    The evaluation.

  Raises:
    ValueError: naming the field and what is allowed.
  """
  batch_size = config.evaluate.batch_size
  parallel.check_batch_size(batch_size, "config.evaluate.batch_size")
  images, labels = test
  # A CPU needs it also for a run that was trained without.
  unroll = config.train.unroll or jax.default_backend() == "cpu"
  specs = {
    name: plugins.attack_spec(spec, unroll)
    for name, spec in config.evaluators.items()
  }
  evaluators = {
    name: plugins.build(
      "evaluator", spec, f"config.evaluators.{name}", batch_size=batch_size
    )
    for name, spec in specs.items()
  }
  for evaluator in evaluators.values():
    if hasattr(evaluator, "check"):  # of other images than the test set's
      evaluator.check(images, labels)
  module = plugins.build_model(config, source, "float32", axis_name=None)
  return Evaluation(evaluators, module, images, labels, source.label, notes)


def run(
  config: ConfigDict,
  evaluation: Evaluation,
  state: Any,
  folder: pathlib.Path,
  stop: stopping.Stop,
  data: dict[str, Any] | None = None,
  about: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Runs every evaluator and writes the results.

  What is measured is kept in the folder, part by part, until the results are
  written: a run that was stopped resumes where it was.

  Args:
    config: resolved.
    evaluation: from `build`.
    state: has `step`, `params` and `batch_stats`.
    folder: the run's folder, locked.
    stop: asked between the parts whether to leave.
    data: `train`, size and fingerprint of the training data, where known.
    about: entries of results.json's `run` that are not as the config has them.

  Returns:
    What results.json holds.

  Raises:
    ValueError: if the state holds numbers that no network can use.
    stopping.Stopped: if it was asked to leave.
  """
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  check_values(f"the weights of step {int(state.step)}", variables)
  stop.at_once("what is measured is kept")
  started = time.monotonic()
  # A damaged file must stop this now, not after hours of measuring.
  rows = metrics.read(folder / "metrics.jsonl")
  params, batch_stats = parallel.replicate((state.params, state.batch_stats))
  model = Classifier(params, batch_stats, evaluation.module)
  # Streams 0 and 1 of the seed are the weights' and the training's.
  key = jax.random.fold_in(jax.random.key(config.seed), 2)
  images, labels = evaluation.images, evaluation.labels
  results = describe(config, evaluation, int(state.step))
  results["run"] |= about or {}
  results["data"] = {"test": pipeline.describe(images, labels)}
  if data and "train" in data:
    results["data"]["train"] = data["train"]
  if trained := provenance.trained_with(folder):
    results["trained_with"] = trained
  depends = {"weights": fingerprint((params, batch_stats)), **cache_key()}
  parts, bits, pictures = Parts(folder / run_folder.PARTS, stop), {}, {}
  # bfloat16 passes of a float32 product would change attacks' decisions.
  with jax.default_matmul_precision("highest"):
    for name, evaluator in evaluation.evaluators.items():
      metrics.announce(f"measuring: {name}")
      of = parts.of([depends, narrowed(results, name)])
      measured = evaluator.run(model, images, labels, key, of)
      if measured is not None:
        found = measured.pop("pictures", {})
        pictures |= {f"{name}/{x}": image for x, image in found.items()}
        results[name] = correctness.counted(measured, name, bits)
  results["notes"] = [*evaluation.notes, *notes(config, results)]
  # An export says which network it is.
  if results["run"]["method"] == "weights":
    results["notes"] += getattr(evaluation.module, "assumptions", ())
  results["timing"] = {
    "train_seconds": sum(row["timing"]["seconds"] for row in rows),
    "evaluate_seconds": time.monotonic() - started + parts.seconds,
  }
  if "adversarial" in evaluation.evaluators:
    attack = evaluation.evaluators["adversarial"].attack
    batch = {"images": images, "labels": labels}
    shown = views.compute(config, attack, model, batch, key)
    pictures |= {f"views/{name}": view for name, view in shown.items()}
  if parallel.is_first_process():
    shutil.rmtree(folder / "figures", ignore_errors=True)  # of other results
    runs.write_arrays(pictures, folder / runs.PICTURES)
    runs.write_arrays(bits, folder / "correct.npz")
    run_folder.write_json(results, folder / "results.json")
    parts.remove()
  return results


def narrowed(results: dict[str, Any], name: str) -> dict[str, Any]:
  """What one evaluator's numbers depend on, of the head of results.json.

  Args:
    results: with `run`, `config`, `versions`, `device` and `data`.
    name: of the evaluator.

  Returns:
    The same without the other evaluators and what judges the numbers.
  """
  config = results["config"]
  own = {"evaluators": {name: config["evaluators"][name]}, "floors": ()}
  fields = ("run", "versions", "device", "data")
  return {f: results[f] for f in fields} | {"config": config | own}


def describe(
  config: ConfigDict, evaluation: Evaluation, step: int
) -> dict[str, Any]:
  """What was run, on what, with which versions.

  Args:
    config: resolved.
    evaluation: from `build`.
    step: updates that the measured weights have had.

  Returns:
    The head of results.json.
  """
  return {
    "schema": runs.SCHEMA,
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
  } | provenance.here()


def notes(config: ConfigDict, results: dict[str, Any]) -> list[str]:
  """What a reader must know beside the numbers.

  Args:
    config: resolved.
    results: measured so far.

  Returns:
    One sentence each.
  """
  found = []
  if "adversarial" in results:
    name = results["adversarial"]["attack"]["name"]
    found.append(f"adversarial accuracy: {name}, not AutoAttack")
  for name, part in results.items():
    if not isinstance(part, dict):
      continue
    found += part.get("notes", ())
    warned = part.get("checks", {}).get("warnings", ())
    found += [f"the attack may fail ({name}): {text}" for text in warned]
  found += correctness.warnings(results)
  augment = config.method.to_dict().get("augment", {})
  if augment.get("operations") == 13:
    found.append("trained with 13 operations, which overlap the corruptions")
  if config.weights.initial:
    name = pathlib.Path(config.weights.initial).name
    found.append(f"training started from the weights in {name}")
  if config.weights.measured:
    name = pathlib.Path(config.weights.measured).name
    found.append(f"weights of {name} ({config.weights.fingerprint[:19]}...)")
  elif config.train.images:
    found.append(f"trained on the first {config.train.images} images only")
  found += config.weights.notes
  if changed := provenance.changes(results.get("trained_with", [])):
    found.append(f"while it was trained, this changed: {'; '.join(changed)}")
  if config.evaluate.images:
    found.append(f"measured on the first {config.evaluate.images} images only")
  return found
