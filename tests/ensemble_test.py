"""Averaged weights and ensembles, from training to results."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest
from scipy import special

from configs import adversarial, common
from ram_jax import experiment
from ram_jax.data import digits
from ram_jax.evaluation import loop as evaluation
from ram_jax.models.classifier import Classifier
from ram_jax.runs import results
from ram_jax.runs.checkpoint import Checkpoints
from tests import found, tiny

pytestmark = pytest.mark.usefixtures("tiny_network", "quick_compilation")


def config(seed=0, **overrides):
  result = adversarial.get_config("smoke,dataset=digits")
  with result.unlocked():
    for name in set(result.evaluators) - {"clean", "adversarial"}:
      del result.evaluators[name]
  result.seed = seed
  result.method.attack.steps = result.evaluators.adversarial.attack.steps = 1
  result.average.name, result.average.decay = "ema", 0.5
  result.optimizer.learning_rate = 0.5
  result.evaluate.images = 0
  result.update_from_flattened_dict(overrides)
  return result


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  parent = tmp_path_factory.mktemp("runs")
  for seed in range(2):
    experiment.train_and_evaluate(config(seed), parent / str(seed))
  return [parent / "0", parent / "1"]


def probabilities(folder, images, averaged=True):
  module = tiny.build_model(None, digits.Source(), "float32", None)
  with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
    found, _, _ = checkpoints.newest()
  variables = found["average"] if averaged else found
  model = Classifier(variables["params"], variables["batch_stats"], module)
  logits = jax.jit(lambda m, x: m(x))(model, images.astype(np.float32) / 255)
  return special.softmax(np.float64(logits), axis=1)


def note(run, words):
  return [note.text for note in run.notes if words in note.text]


def test_the_average_or_the_last_weights_are_evaluated(folders):
  images, labels = digits.Source().load("test")
  losses = []
  assert not note(results.load(folders[0]), "unlike in the paper")
  for averaged in (True, False):
    chosen = probabilities(folders[0], images, averaged)
    nll = -np.log(chosen[np.arange(len(labels)), labels]).mean()
    fields = {"evaluate.average": averaged}
    run = experiment.evaluate_run(config(**fields), folders[0])
    row = found.row(run, "clean")
    np.testing.assert_allclose(row.values["nll"], nll, rtol=1e-6)
    used = "averaged" if averaged else "last"
    assert note(run, f"evaluated the {used} weights from training with EMA")
    losses.append(nll)
  assert abs(losses[0] - losses[1]) > 2e-5 * losses[0]


def test_weights_from_before_the_end_are_noted(folders, tmp_path):
  """As if the run had twice as many training images, and so many steps."""
  copy = shutil.copytree(folders[1], tmp_path / "run")
  data = json.loads((copy / "data.json").read_text())
  data["train"]["size"] *= 2
  (copy / "data.json").write_text(json.dumps(data))
  words = "evaluated after step 4 of 8, before the end of training"
  run = experiment.evaluate_run(config(1), copy)
  assert note(run, "before the end") == [words]
  fields = {"average.batch_norm": "reestimated"}
  (told,) = evaluation.unfinished(config(**fields), 4, data)
  assert told.text.startswith(words) and "not been reestimated" in told.text
  assert not note(experiment.evaluate_run(config(1), folders[1]), "before the")
  one = experiment.evaluate_ensemble(config(), tmp_path / "one", runs=[copy])
  assert note(one, "before the end") == [f"adversarial-1: {words}"]


def test_options_beyond_the_paper_are_noted():
  fields = {"awp.gamma": 0.01, "train.label_smoothing": 0.1}
  fields |= {"average.name": "none", "mix.name": "cutmix"}
  fields |= {"train.attack_steps": ((0, 1),)}
  chosen = config(**fields)
  with chosen.unlocked():
    chosen.augment = common.AUGMENTS["pixmix"]
    chosen.model = common.model_spec("wrn_10_1_silu")
  found = evaluation.training_notes(experiment.resolve(chosen))
  pictures = {"count": 1000, "name": "fractals", "seed": 0}
  assert [note.text for note in found] == [
    f"PixMix with the mixing set {pictures}",
    "trained with augment.name=pixmix, unlike in the paper",
    "trained with awp.gamma=0.01, unlike in the paper",
    "trained with mix.name=cutmix, unlike in the paper",
    "trained with model.activation=silu, unlike in the paper",
    "trained with train.attack_steps=((0, 1),), unlike in the paper",
    "trained with train.label_smoothing=0.1, unlike in the paper",
    "trained on the first 64 images only",
  ]


def test_ensemble_predicts_the_mean_probability(folders, tmp_path):
  images, labels = digits.Source().load("test")
  each = [probabilities(folder, images) for folder in folders]
  expected = np.mean(each, axis=0).argmax(1) == labels
  run = experiment.evaluate_ensemble(config(), tmp_path / "both", runs=folders)
  np.testing.assert_array_equal(found.row(run, "clean").correct, expected)
  (text,) = note(run, "mean probabilities of ")
  ema = "evaluated the averaged weights from training with EMA"
  assert note(run, ema) == [f"adversarial-{seed}: {ema}" for seed in range(2)]
  assert "adversarial-0 (step" in text and "adversarial-1 (step" in text
  assert run.about["label"] == "Ensemble of 2"
  # A folder of results belongs to one ensemble.
  with pytest.raises(ValueError, match=r"weights\.fingerprint was"):
    experiment.evaluate_ensemble(
      config(), tmp_path / "both", runs=folders[::-1]
    )


def test_attack_sees_the_whole_ensemble(folders, tmp_path):
  """Two copies of a network are attacked exactly as the network."""
  fields = {"evaluators.adversarial.epsilons": (0.5,)}
  twice = [folders[0], folders[0]]
  ensemble = experiment.evaluate_ensemble(
    config(**fields), tmp_path, runs=twice
  )
  alone = experiment.evaluate_run(config(**fields), folders[0])
  rows = [
    found.row(run, "adversarial", epsilon=0.5) for run in (ensemble, alone)
  ]
  np.testing.assert_array_equal(rows[0].correct, rows[1].correct)
  assert 0 < rows[0].correct_count < rows[0].total


@pytest.mark.slow
def test_run_with_other_training_images_is_rejected(folders, tmp_path):
  other = config(seed=2, **{"train.images": 32})
  experiment.train_and_evaluate(other, tmp_path / "other")
  runs = [folders[0], tmp_path / "other"]
  with pytest.raises(ValueError, match="trained on different data"):
    experiment.evaluate_ensemble(config(), tmp_path / "both", runs=runs)
  assert not (tmp_path / "both").exists()


def test_run_with_another_data_set_is_rejected(folders, tmp_path):
  other = adversarial.get_config("smoke,dataset=cifar10")
  with pytest.raises(ValueError, match="different data set"):
    experiment.evaluate_ensemble(other, tmp_path, runs=folders)
