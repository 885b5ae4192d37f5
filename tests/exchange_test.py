"""Weights exported to PyTorch and imported again give the same predictions."""

import dataclasses
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import main as program
from configs import standard
from ram_jax import experiment, plugins
from ram_jax.data import digits as digits_data
from ram_jax.evaluation import loop as evaluate
from ram_jax.interop import names, weights
from ram_jax.models import preact_resnet
from ram_jax.runs import results as runs
from ram_jax.runs.checkpoint import Checkpoints
from tests import found

pytestmark = pytest.mark.usefixtures("quick_compilation")


def tiny():
  """Standard training of a small network on digits, clean accuracy only."""
  config = standard.get_config("smoke,dataset=digits")
  with config.unlocked():
    for name in set(config.evaluators) - {"clean"}:
      del config.evaluators[name]
  config.evaluate.images = 0
  return config


@pytest.fixture(scope="module")
def run(quick_compilation, tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "run"
  results = experiment.train_and_evaluate(tiny(), folder)
  out = folder.parent / "weights" / "run.safetensors"
  experiment.export(folder, out)
  return folder, out, results


@pytest.mark.slow
def test_plain_torch_predicts_the_same_on_every_test_image(run):
  pytest.importorskip("torch")
  from benchmarks import torch_evaluate

  folder, out, results = run
  images, labels = digits_data.Source().load("test")
  # The file itself says which network it is.
  network = json.loads(weights.read(out).metadata["model"])
  reference = torch_evaluate.predictions(
    out, images, network.pop("name"), **network
  )
  config = experiment.resolve(tiny())
  model, _ = experiment._restored(config, digits_data.Source(), folder)
  logits = jax.jit(lambda m, x: m(x))(model, images.astype(np.float32) / 255)
  np.testing.assert_array_equal(reference, np.argmax(logits, -1))
  assert (reference == labels).sum() == found.row(
    results, "clean"
  ).correct_count
  assert len(set(reference)) > 1  # not one answer for everything


def count(run):
  """Correct and all images, and the calibration."""
  row = found.row(run, "clean")
  return row.correct_count, row.total, row.values


def test_weights_are_evaluated_as_the_run_was(run, tmp_path):
  _, out, results = run
  config = tiny()
  config.weights.measured = str(out)
  again = experiment.evaluate_weights(config, tmp_path / "run")
  assert count(again) == count(results)
  assert again.head["data"] == {"test": results.head["data"]["test"]}
  for name in ("label", "method", "step"):  # as the file's metadata say
    assert again.about[name] == results.about[name]
  assert again.about["name"] == "run" and again.about["epochs"] == 0
  whose, normalization = found.notes(again)
  assert whose.startswith("weights of run.safetensors (sha256:")
  assert normalization.startswith("normalization: the file states mean 0.")
  assert normalization.endswith("(mean, std)")
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
    experiment.evaluate_weights(config, tmp_path / "run")
    with pytest.raises(ValueError, match="contains another run: norm"):
      experiment.train_and_evaluate(tiny(), tmp_path / "run")
  finally:
    moved.rename(out)


def test_export_writes_what_was_evaluated(run, tmp_path, monkeypatch):
  folder = shutil.copytree(run[0], tmp_path / "run")
  tree = json.loads((folder / "results.json").read_text())
  assert tree["config"]["evaluate"]["average"]
  tree["config"]["evaluate"]["average"] = False
  (folder / "results.json").write_text(json.dumps(tree))
  given, evaluated = [], experiment.state_lib.evaluated

  def noted(config, state):
    given.append(config.evaluate.average)
    return evaluated(config, state)

  monkeypatch.setattr(experiment.state_lib, "evaluated", noted)
  experiment.export(folder, tmp_path / "out.safetensors")
  (folder / "results.json").unlink()
  experiment.export(folder, tmp_path / "out.safetensors")
  assert given == [False, True]


def test_training_starts_from_the_file(run, tmp_path):
  folder, out, _ = run
  file = weights.read(out)
  config = experiment.resolve(tiny(), weights=file)
  source = plugins.build("dataset", config.dataset)
  split = np.zeros((64, 32, 32, 3), np.uint8), np.zeros(64, np.int32)
  training, _ = experiment.build_training(config, source, split, file)
  state = training.create()
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


def test_run_started_from_a_file_resumes_with_its_own_weights(run, tmp_path):
  _, out, results = run
  config = tiny()
  config.weights.initial = str(out)
  started = experiment.train_and_evaluate(config, tmp_path / "run")
  note = "training started from the weights in run.safetensors"
  assert note in found.notes(started)
  with pytest.raises(ValueError, match="weights.fingerprint was 'sha256"):
    experiment.train_and_evaluate(tiny(), tmp_path / "run")
  # Without the file, the run's own folder says what it was.
  config.weights.initial = ""
  again = experiment.evaluate_run(config, tmp_path / "run")
  assert count(again) == count(started)
  for results in (started, again):
    notes = found.notes(results)
    (note,) = (n for n in notes if n.startswith("normalization"))
    assert note.startswith("normalization: the file states mean 0.")


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"initial": "a.pt", "measured": "b.pt"}, "names two files"),
    ({"measured": "b.pt"}, "for --mode=evaluate: to train from"),
    ({"initial": "/no/such.pt"}, "/no/such.pt"),
  ],
)
def test_contradictory_fields(tmp_path, fields, words):
  config = tiny()
  config.weights.update(fields)
  with pytest.raises((ValueError, OSError), match=words):
    if "initial" in fields and "measured" in fields:
      experiment.resolve(config)
    else:
      experiment.train_and_evaluate(config, tmp_path)


def test_normalization_reaches_the_network():
  config = tiny()
  config.normalization.update({"mean": (0, 0, 0), "std": (1, 1, 1)})
  source = digits_data.Source()
  module = plugins.build_model(
    experiment.resolve(config), source, "float32", None
  )
  assert (module.mean, module.std) == ((0, 0, 0), (1, 1, 1))
  config = experiment.resolve(tiny())
  module = plugins.build_model(config, source, "float32", None)
  assert (module.mean, module.std) == (source.mean, source.std)


def test_commands(run, tmp_path, capsys):
  folder, _, results = run
  out = tmp_path / "new" / "w.safetensors"
  argv = ["--mode=export", f"--workdir={folder}", f"--out={out}"]
  assert program.main(argv) == 0
  assert f"Written: {out}" in (said := capsys.readouterr().out)
  assert "WRN-10-1" in said and "step: 4" in said
  assert program.main(["--mode=export", f"--workdir={tmp_path}", argv[2]]) == 2
  assert "give the folder of a run" in capsys.readouterr().err


@pytest.fixture
def evaluated(run, tmp_path, capsys):
  """Changes the export's tensors and evaluates the file by the command line."""

  def evaluate_file(change, *overrides):
    folder, out, _ = run
    tensors = load_file(out)
    change(tensors)
    said = weights.read(out).metadata
    save_file(tensors, tmp_path / "changed.safetensors", said)
    code = program.main(
      [
        "--mode=evaluate",
        f"--config={folder}/config.json",
        f"--weights={tmp_path}/changed.safetensors",
        f"--workdir={tmp_path}/changed",
        *overrides,
      ]
    )
    out, err = capsys.readouterr()
    text = " ".join((out if code == 0 else err.splitlines()[-1]).split())
    return code, text, tmp_path / "changed" / "results.json"

  return evaluate_file


def fill(name, value, dtype=None):
  """Replaces the first element of a tensor."""

  def change(tensors):
    tensors[name] = tensors[name].astype(dtype or tensors[name].dtype)
    tensors[name].flat[0] = value

  return change


INVALID = "1 array(s) with non-finite values or negative running variances: "


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (fill("conv1.weight", np.nan), "conv1.weight (1 of 432, nan)"),
    (fill("fc.bias", -np.inf), "fc.bias (1 of 10, -inf)"),
    (fill("fc.bias", 1e300, np.float64), "fc.bias (1 of 10, 1e+300)"),
    (fill("fc.bias", np.nan, ml_dtypes.bfloat16), "fc.bias (1 of 10, nan)"),
    (fill("bn1.running_var", -0.5), "bn1.running_var (1 of 64, -0.5)"),
  ],
)
def test_weights_with_invalid_numbers(evaluated, change, words):
  code, line, results = evaluated(change)
  assert (code, line) == (
    2,
    f"error: the weights file cannot be used: {INVALID}{words}: choose another "
    "file or checkpoint",
  )
  assert not results.parent.exists()


def test_checkpoint_with_a_nan(run, tmp_path, capsys):
  folder = shutil.copytree(run[0], tmp_path / "run")
  (folder / "results.json").unlink()
  checkpoints = Checkpoints(folder / "checkpoints")
  state, _, _ = checkpoints.newest()
  state["params"]["head"]["bias"] = np.full(10, np.nan, np.float32)
  checkpoints.save(5, state)
  checkpoints.close()
  config = f"--config={folder}/config.json"
  out = f"--out={tmp_path}/a.safetensors"
  for argv in (["--mode=evaluate", config], ["--mode=export", out]):
    assert program.main([*argv, f"--workdir={folder}"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
      f"error: the weights of step 4 cannot be used: {INVALID}params/head/bias "
      "(10 of 10, nan): choose another file or checkpoint"
    )
  assert not (folder / "results.json").exists()
  assert not (tmp_path / "a.safetensors").exists()


def test_weights_that_overflow(evaluated):
  def overflow(tensors):
    tensors["fc.weight"][:] = 3e38

  code, text, path = evaluated(overflow)
  assert code == 0
  results = runs.load(path.parent)
  row = found.row(results, "clean")
  total = row.total
  assert row.correct_count == 0 and row.values == {"not_finite": total}
  note = (
    "images whose logits are not finite (NaN or infinite) count as "
    f"misclassified: {total} of {total} images in clean"
  )
  assert note in found.notes(results, "warning") and note in text


@pytest.mark.parametrize(
  ("field", "value"), [("depth", 16), ("activation", "silu")]
)
def test_export_of_another_network(evaluated, field, value):
  code, line, _ = evaluated(lambda x: None, f"--config.model.{field}={value}")
  network = {"activation": "relu", "depth": 10, "name": "wide_resnet"}
  network["widen_factor"] = 1
  assert code == 2 and line.startswith(
    f"error: the weights were exported from the network {network}, but "
    f"config.model is {network | {field: value}}: choose"
  )


@pytest.fixture(scope="module")
def preact(tmp_path_factory):
  """State_dicts of zeros, with and without the final normalization."""
  folder, paths = tmp_path_factory.mktemp("preact"), {}
  for variant in ("robustbench", "fast"):
    module = preact_resnet.Model(10, (0,) * 3, (1,) * 3, variant=variant)
    made = jax.eval_shape(
      lambda m=module: m.init(jax.random.key(0), np.zeros((1, 8, 8, 3)), False)
    )
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float16), made)
    tensors = names.to_torch(module, zeros["params"], zeros["batch_stats"])
    paths[variant] = folder / f"{variant}.safetensors"
    save_file(tensors, paths[variant])
  return paths


NO_NORM = (
  ", and 2 networks have these tensors but different logits: select one in "
  "the config string, model=preact_resnet18 (RobustBench's PreActResNet18, "
)
ALIKE = (
  ", and 2 networks have these tensors but different logits: select one in "
  "the config string, model=preact_resnet18_rice (locuslab/robust_overfitting;"
  " RobustBench's Rice2020Overfitting, Kireev2021Effectiveness, "
  "Addepalli2021Towards) or model=preact_resnet18_fast "
  "(locuslab/fast_adversarial)"
)


@pytest.mark.parametrize(
  ("file", "model", "words"),
  [
    ("fast", "preact_resnet18", ALIKE),
    ("fast", "wrn_10_1", ALIKE),
    ("robustbench", "preact_resnet18_rice", NO_NORM),
    ("robustbench", "preact_resnet18_fast", NO_NORM),
  ],
)
def test_file_of_another_preact_resnet(
  preact, tmp_path, capsys, file, model, words
):
  configs = program.command_line.CONFIGS
  argv = [
    "--mode=evaluate",
    f"--config={configs}/standard.py:smoke,dataset=digits,model={model}",
    f"--weights={preact[file]}",
    "--config.normalization.mean=0,0,0",
    "--config.normalization.std=1,1,1",
    f"--workdir={tmp_path}/run",
  ]
  assert program.main(argv) == 2
  line = capsys.readouterr().err.splitlines()[-1]
  assert f"they look like PreActResNet-18 for 10 classes{words}" in line
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("file", "model", "notes"),
  [
    (
      "robustbench",
      "preact_resnet18",
      ["preact_resnet18, as given; the tensors fit preact_resnet18_kuangliu"],
    ),
    (
      "robustbench",
      "preact_resnet18_kuangliu",
      ["preact_resnet18_kuangliu, as given; the tensors fit preact_resnet18"],
    ),
    (
      "fast",
      "preact_resnet18_rice",
      ["preact_resnet18_rice, as given; the tensors fit preact_resnet18_fast"],
    ),
    (
      "fast",
      "preact_resnet18_fast",
      ["preact_resnet18_fast, as given; the tensors fit preact_resnet18_rice"],
    ),
  ],
)
def test_named_preact_resnet_is_used(
  monkeypatch, preact, tmp_path, file, model, notes
):
  monkeypatch.setattr(
    evaluate, "run", lambda config, evaluation, *rest, **about: evaluation
  )
  config = standard.get_config(f"smoke,dataset=digits,model={model}")
  config.normalization.update({"mean": (0, 0, 0), "std": (1, 1, 1)})
  config.weights.measured = str(preact[file])
  module = experiment.evaluate_weights(config, tmp_path / "run").module
  assert module.assumptions == [
    f"the network is assumed to be {note}, too" for note in notes
  ]


def test_external_weights_have_no_method(run):
  other = {"method": "trades", "step": "7"}  # of another program
  file = dataclasses.replace(weights.read(run[1]), metadata=other)
  about = {"name": "x", "label": "x", "method": "weights"}
  assert experiment.describe(file, "x") == about | {"epochs": 0, "step": 0}
