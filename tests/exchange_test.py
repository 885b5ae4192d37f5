"""Weights that cross to PyTorch and back: the same predictions everywhere."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import main as program
from configs import standard
from ram_jax import evaluate, exchange, plugins, settings, train
from ram_jax.checkpoint import Checkpoints
from ram_jax.data import digits as digits_data
from ram_jax.interop import weights
from ram_jax.models.classifier import Classifier


def tiny():
  """Standard training of a small network on digits, clean accuracy only."""
  config = standard.get_config("smoke,dataset=digits")
  with config.unlocked():
    for name in set(config.evaluators) - {"clean"}:
      del config.evaluators[name]
  config.evaluate.images = 0
  return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "run"
  results = train.train_and_evaluate(tiny(), folder)
  out = folder.parent / "weights" / "run.safetensors"
  exchange.export(folder, out)
  return folder, out, results


def test_plain_torch_predicts_the_same_on_every_test_image(run):
  pytest.importorskip("torch")
  from benchmarks import torch_evaluate

  folder, out, results = run
  images, labels = digits_data.Source().load("test")
  # The file itself says which network it is.
  network = json.loads(weights.read(out).metadata["model"])
  theirs = torch_evaluate.predictions(
    out, images, network.pop("name"), **network
  )
  config = settings.resolve(tiny())
  module = settings.build_model(config, digits_data.Source(), "float32", None)
  checkpoints = Checkpoints(folder / "checkpoints")
  state = checkpoints.restore_variables(module, images.shape[1:])
  checkpoints.close()
  model = Classifier(state.params, state.batch_stats, module)
  logits = jax.jit(lambda m, x: m(x))(model, images.astype(np.float32) / 255)
  np.testing.assert_array_equal(theirs, np.argmax(logits, -1))
  assert (theirs == labels).sum() == results["clean"]["correct"]
  assert len(set(theirs)) > 1  # not one answer for everything


def test_weights_are_measured_as_the_run_was(run, tmp_path):
  _, out, results = run
  config = tiny()
  config.weights.measured = str(out)
  again = exchange.evaluate_weights(config, tmp_path / "run")
  assert again["clean"] == results["clean"]
  assert again["data"] == {"test": results["data"]["test"]}
  for name in ("label", "method", "step"):  # as the file's metadata say
    assert again["run"][name] == results["run"][name]
  assert again["run"]["name"] == "run" and again["run"]["epochs"] == 0
  whose, normalization = again["notes"]
  assert whose.startswith("weights of run.safetensors (sha256:")
  assert normalization.startswith("normalization: the file states mean 0.")
  assert normalization.endswith("(metadata)")
  written = json.loads((tmp_path / "run" / "config.json").read_text())
  assert written["weights"]["fingerprint"] == weights.read(out).fingerprint
  mean, std = digits_data.Source().mean, digits_data.Source().std
  assert written["normalization"] == {
    "mean": list(mean),
    "std": list(std),
    "preset": "",
  }
  # The folder is the file's now, wherever that moves, and nobody else's.
  moved = out.rename(out.parent / "moved.safetensors")
  try:
    config.weights.measured = str(moved)
    exchange.evaluate_weights(config, tmp_path / "run")
    with pytest.raises(ValueError, match="holds another run: norm"):
      train.train_and_evaluate(tiny(), tmp_path / "run")
  finally:
    moved.rename(out)


def test_training_starts_from_the_file(run, tmp_path):
  folder, out, _ = run
  file = weights.read(out)
  config = settings.resolve(tiny(), weights=file)
  source = plugins.build("dataset", config.dataset)
  state = train.build(config, source, (64, 32, 32, 3), file).create()
  checkpoints = Checkpoints(folder / "checkpoints")
  saved, _ = checkpoints.restore(state)
  checkpoints.close()
  jax.tree.map(np.testing.assert_array_equal, state.params, saved.params)
  jax.tree.map(
    np.testing.assert_array_equal, state.batch_stats, saved.batch_stats
  )
  assert state.step == 0
  moved = jax.tree.leaves(state.opt_state)
  assert not any(np.any(x) for x in moved) and len(moved) > 10


def test_started_run_is_recorded_and_goes_on_with_its_own_weights(
  run, tmp_path
):
  _, out, results = run
  config = tiny()
  config.weights.initial = str(out)
  started = train.train_and_evaluate(config, tmp_path / "run")
  note = "training started from the weights in run.safetensors"
  assert note in started["notes"]
  with pytest.raises(ValueError, match="weights.fingerprint is 'sha256"):
    train.train_and_evaluate(tiny(), tmp_path / "run")
  # Without the file, the run's own folder says what it was.
  config.weights.initial = ""
  again = evaluate.evaluate_run(config, tmp_path / "run")
  assert again["clean"] == started["clean"]
  for results in (started, again):
    (note,) = (n for n in results["notes"] if n.startswith("normalization"))
    assert note.startswith("normalization: the file states mean 0.")


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"initial": "a.pt", "measured": "b.pt"}, "names two files"),
    ({"measured": "b.pt"}, "for --mode=evaluate: training starts"),
    ({"initial": "/no/such.pt"}, "/no/such.pt"),
  ],
)
def test_fields_that_make_no_sense(tmp_path, fields, words):
  config = tiny()
  config.weights.update(fields)
  with pytest.raises((ValueError, OSError), match=words):
    if "initial" in fields and "measured" in fields:
      settings.resolve(config)
    else:
      train.train_and_evaluate(config, tmp_path)


def test_normalisation_reaches_the_network():
  config = tiny()
  config.normalization.update({"mean": (0, 0, 0), "std": (1, 1, 1)})
  source = digits_data.Source()
  module = settings.build_model(
    settings.resolve(config), source, "float32", None
  )
  assert (module.mean, module.std) == ((0, 0, 0), (1, 1, 1))
  config = settings.resolve(tiny())
  module = settings.build_model(config, source, "float32", None)
  assert (module.mean, module.std) == (source.mean, source.std)


def test_commands(run, tmp_path, capsys):
  folder, _, results = run
  out = tmp_path / "new" / "w.safetensors"
  argv = ["--mode=export", f"--workdir={folder}", f"--out={out}"]
  assert program.main(argv) == 0
  assert f"Written: {out}" in (said := capsys.readouterr().out)
  assert "WRN-10-1" in said and "step: 4" in said
  assert program.main(["--mode=export", f"--workdir={tmp_path}", argv[2]]) == 2
  assert "must name the folder of a run" in capsys.readouterr().err


def test_weights_of_others_have_no_method(run):
  file = dataclasses.replace(weights.read(run[1]), metadata={})
  about = {"name": "x", "label": "x", "method": "weights"}
  assert exchange.describe(file, "x") == about | {"epochs": 0, "step": 0}
