"""A shortened version of a new user's first run, and all its outputs."""

import json

import numpy as np
import pytest
from PIL import Image

import main as program
from configs import digits
from ram_jax import experiment
from ram_jax.report import page
from ram_jax.runs import results as runs
from tests import found

# CI runs the command itself, and checks its floors.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tiny_network, quick_compilation, tmp_path_factory):
  folder = tmp_path_factory.mktemp("digits")
  config = digits.get_config("smoke")
  # Most of the compilation: other tests have them in full.
  config.method.attack.steps = 1
  config.method.augment.update({"width": 1, "depth": 1})
  config.evaluators.adversarial.attack.steps = 2
  config.floors = (
    ("clean", None, "at least", 0.0),
    ("adversarial", 1.0, "at least", 1.0),
  )
  results = experiment.train_and_evaluate(config, folder)
  page.draw(folder)
  return config, folder, results


def test_results_say_what_was_run(run):
  config, folder, results = run
  head = json.loads(json.dumps(results.head))  # tuples are lists in JSON
  read = runs.load(folder)
  assert head == {k: v for k, v in read.head.items() if k != "schema"}
  assert [row.key for row in read.rows] == [row.key for row in results.rows]
  assert read.notes == results.notes
  about = head["run"]
  assert about["label"] == "RobustAugMix"
  assert (about["model"], about["step"]) == ("Tiny", 4)
  assert about["data_label"] == "Digits (scikit-learn)"
  assert head["config"] == json.loads((folder / "config.json").read_text())
  assert head["data"]["train"]["size"] == config.train.images
  (trained,) = head["trained_with"]
  assert trained == {name: head[name] for name in ("versions", "device")}
  clean = found.row(read, "clean")
  assert clean.total == config.evaluate.images
  attacked = found.row(read, "adversarial", epsilon=1.0, attack="PGD-2")
  assert attacked.correct_count <= clean.correct_count
  note = "adversarial accuracy: PGD-2, not AutoAttack"
  assert note in found.notes(read, "info")


def test_metrics_are_written_for_every_step(run):
  _, folder, results = run
  rows = [
    json.loads(line)
    for line in (folder / "metrics.jsonl").read_text().splitlines()
  ]
  assert [row["step"] for row in rows] == [1, 2, 3, 4]
  assert all(np.isfinite(row["loss"]) for row in rows)
  seconds = sum(row["timing"]["seconds"] for row in rows)
  assert results.head["timing"]["train_seconds"] == pytest.approx(seconds)
  assert list((folder / "tensorboard").glob("events*"))


@pytest.mark.parametrize(
  "name", ["adversarial_accuracy", "training_curves", "views"]
)
def test_figures_are_drawn(run, name):
  _, folder, _ = run
  with Image.open(folder / "figures" / f"{name}.png") as figure:
    assert min(figure.size) > 300
    assert len(np.unique(np.asarray(figure.convert("L")))) > 10


def test_required_accuracies_are_compared(run, capsys):
  config, folder, results = run
  program.show(config, folder, str(folder))
  out = capsys.readouterr().out
  assert "RobustAugMix" in out
  floors = out[out.index("required") :]
  clean, attacked = (
    next(line for line in floors.splitlines() if line.strip().startswith(name))
    for name in ("clean", "adversarial, eps 1")
  )
  row = found.row(results, "clean")
  share = 100 * row.correct_count / row.total
  words = clean.split()
  assert words == ["clean", "at", "least", "0.00", f"{share:.2f}", "met"]
  assert attacked.strip().endswith("NOT MET")
  assert str(folder / "results.json") in out
