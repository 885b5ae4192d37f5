"""The program as users run it: mistakes cause one-line errors."""

import contextlib
import errno
import functools
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

import main as program
from ram_jax import command_line, experiment, flags, memory, plugins
from ram_jax.contracts import Row
from ram_jax.data import pipeline
from ram_jax.evaluation import clean
from ram_jax.evaluation import loop as evaluate
from ram_jax.runs import folder as run_folder
from ram_jax.runs import results as runs
from ram_jax.training import loop as train
from ram_jax.training import step
from tests import found

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = pathlib.Path(program.__file__).resolve().parent
# What errors list: a new file is on the list by itself.
CONFIGS = ", ".join(f"configs/{name}.py" for name in command_line.available())
NAMES = {kind: ", ".join(plugins.available(kind)) for kind in plugins.KINDS}
# Standard training without attacks, so that little is compiled.
CONFIG = """
from configs import standard

def get_config(argument=""):
  config = standard.get_config("smoke,dataset=arrays")
  with config.unlocked():
    del config.evaluators["adversarial"]
  config.dataset.path = {path!r}
  config.optimizer.schedule = "constant"  # one program for any number of epochs
  return config
"""


def run(*argv):
  """Exit code, stdout and stderr of the program, called in this process."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = program.main([str(argument) for argument in argv])
  return code, out.getvalue(), err.getvalue()


def rejects(words, *argv):
  """Asserts the one line of an error."""
  code, out, err = run(*argv)
  *before, line = err.splitlines()
  assert (code, out) == (2, "")
  assert line.startswith("error: ") and words in line, line
  assert len(before) <= 2  # on which device, from which step
  return line


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """64 training and 32 test images of 8x8 pixels in four classes."""
  rng = np.random.default_rng(0)
  path = tmp_path_factory.mktemp("data") / "tiny.npz"
  arrays = {}
  for split, size in (("train", 64), ("test", 32)):
    images = rng.integers(0, 256, (size, 8, 8, 3), np.uint8)
    arrays[f"{split}_images"] = images
    arrays[f"{split}_labels"] = np.arange(size) % 4
  np.savez(path, **arrays)
  return path


@pytest.fixture(scope="module")
def config(data):
  path = data.parent / "mine.py"
  path.write_text(CONFIG.format(path=str(data)))
  return f"--config={path}"


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
  """The folder of a trained and evaluated run, and what was printed."""
  folder = tmp_path_factory.mktemp("runs") / "run"
  code, out, err = run(config, f"--workdir={folder}")
  assert code == 0, err
  return folder, out, err


@pytest.fixture
def copy(trained, tmp_path):
  return shutil.copytree(trained[0], tmp_path / "run")


@pytest.fixture
def nothing_runs(monkeypatch):
  """Fails if anything is trained or evaluated."""

  def forbidden(*args, **kwargs):
    raise AssertionError("something was computed")

  monkeypatch.setattr(train, "fit", forbidden)
  monkeypatch.setattr(evaluate, "run", forbidden)


D = "--config=CONFIGS/digits.py"


@pytest.mark.parametrize(
  ("argv", "words"),
  [
    ([], "--mode=train needs --config=FILE, such as configs/digits.py"),
    (["--mode=sweep"], "needs --config=FILE, such as configs/sweeps/paper.py"),
    (["--config"], "argument --config: expected one argument"),
    (["--config=configs/x.py"], f"choose {CONFIGS}, or your own .py file"),
    (["--config=CONFIGS/standard.py:modle=x"], "cannot use 'modle=x'"),
    (["--config=CONFIGS/standard.py:model=foo"], "unknown model 'foo'"),
    (["--config=CONFIGS/standard.py:dataset=foo"], "unknown dataset 'foo'"),
    (["--confg=configs/digits.py"], "unrecognized arguments: --confg=configs/"),
    (["digits"], "unrecognized arguments: digits (see --help)"),
    (["--mode=tain", "--config=x"], "choose train, evaluate, profile, c"),
    (
      ["--runs=a,b", "--config=x"],
      "--runs is for --mode=evaluate or report",
    ),
    (["--mode=report"], "--mode=report needs --runs=FOLDER,FOLDER"),
    (["--mode=report", "--runs=, "], "--mode=report needs --runs=FOLDER,FO"),
    (["--mode=report", "--runs=/no/such,"], "no run folder '/no/such'"),
    (["--mode=report", "--runs=a", "--config=x"], "for --mode=train or evalu"),
    (
      ["--mode=corrupt", D],
      "--mode=corrupt needs --config=FILE and --out=FOLDER",
    ),
    (["--mode=corrupt", "--out=a"], "--mode=corrupt needs --config=FILE and"),
    (["--mode=corrupt", "--workdir=a"], "evaluate or profile or export or co"),
    (["--mode=export", "--config.seed=1"], "--config is for --mode=train or"),
    (["--mode=export", "--out=a.safetensors"], "needs --workdir=FOLDER and -"),
    (
      ["--mode=export", "--workdir=.", "--out=a.pt"],
      "must end in .safetensors",
    ),
    (["--mode=compare", "--workdir=."], "--reference=NAME or PATH"),
    (["--weights=a.pt", "--config=x"], "for --mode=evaluate, not --mode=train"),
    (["--mode=report", "--runs=/no/such"], "no run folder '/no/such'"),
    (["--baseline=a"], "--baseline is for --mode=report, not --mode=train"),
    (["--debug=1"], "argument --debug: ignored explicit argument '1'"),
    (["--config.=1", D], "there is no config.: config has augment, average"),
    (["--config.seed", "=", "7", D], "unrecognized arguments: 7 (see --help)"),
    (["--config.seed", D], "--config.seed has no value: write --config.seed="),
    ([D, "--config.seed"], "--config.seed has no value: write --config.seed="),
    (["--config.seed", "-x", D], "config.seed cannot be '-x': give an integer"),
    (["--config.seed", "-1", D], "config.seed is -1: give an integer from "),
    (["--workdir=\udcc3", D], r"cannot use '--workdir=\udcc3': it is not"),
    (["--config.name=\udcff", D], "set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or us"),
  ],
)
def test_command_line_mistakes(nothing_runs, argv, words):
  argv = [text.replace("CONFIGS", str(ROOT / "configs")) for text in argv]
  rejects(words, *argv)


@pytest.mark.parametrize(
  ("override", "words"),
  [
    ("train.epoch=3", "did you mean config.train.epochs?"),
    ("train.epochs=2.5", "give an integer"),
    ("train.epochs=0", "config.train.epochs is 0: give an integer, at least"),
    ("optimizer.learning_rate=nan", "config.optimizer.learning_rate is nan"),
    ("optimizer.momentum=1", "a number in [0, 1)"),
    ("optimizer.schedule=linear", "cosine_epoch or cosine_step or constant"),
    ("train.dtype=float64", "give float32 or bfloat16"),
    ("method.name=no_such", f"choose one of {NAMES['method']}"),
    ("method.name=augmix", "is missing augment"),
    ("model.name=no_such", f"choose one of {NAMES['model']}"),
    ("model.depth=11", "depth is 11: give 6 n + 4, such as 10"),
    ("model.widen_factor=0", "widen_factor is 0"),
    ("dataset.name=no_such", f"choose one of {NAMES['dataset']}"),
    ("dataset.name=digits", "has no field label, num_classes, path"),
    ("evaluators.clean.name=fast", "config.evaluators.clean.name is 'fast'"),
    ("augment.padding=-1", "config.augment (augment 'basic'): padding is -1"),
    (
      "train.batch_size=18",
      "multiple of the number of devices, 4, such as 16 or 20",
    ),
    (
      "evaluate.batch_size=30",
      "multiple of the number of devices, 4, such as 28 or 32",
    ),
    ("train.batch_size=128", "64 examples are too few for a batch"),
    ("train.images=65", "(config.train.images)"),
    ("evaluate.images=33", "limit 33 is outside 0..32"),
    ("dataset.path=/no/such.npz", "/no/such.npz is missing"),
    ("dataset.num_classes=3", "label 3 at index 3 is outside 0..2"),
    (
      "evaluators.corruption.folder=/no/such",
      "/no/such has no corruption with",
    ),
    (
      "evaluators.corruption.tfds_dir=/no/such",
      "uses CIFAR-10-C, but the",
    ),
    ("floors=('clean',None,'over',1)", "is not (metric, epsilon, bound, val"),
  ],
)
def test_config_mistakes(nothing_runs, config, tmp_path, override, words):
  folder = tmp_path / "run"
  rejects(words, config, f"--workdir={folder}", f"--config.{override}")
  assert not folder.exists()


@pytest.mark.parametrize(
  ("override", "words"),
  [
    ("method.attack.steps=0", "config.method.attack.steps is 0"),
    ("method.attack.step_size=-1", "config.method.attack.step_size is -1.0"),
    (
      "method.attack.epsilon=nan",
      "config.method.attack.epsilon is nan: give a",
    ),
    ("method.attack.norm=l1", "norm is 'l1': give l2 or linf"),
    ("method.attack.start=here", "none"),
    ("method.attack.restarts=0", "restarts is 0"),
    ("method.augment.severity=11", "config.method.augment (augment 'augmix')"),
    ("method.augment.operations=10", "give 9 or 13 or 14"),
    ("method.weight=nan", "weight is nan"),
    ("method.jensen_shannon=fuzzy", "give exact or clamped"),
    ("evaluators.adversarial.epsilons=()", "epsilons is ()"),
    ("evaluators.adversarial.epsilons=1,-1", "epsilons is (1, -1)"),
    ("evaluators.adversarial.epsilons=1e999", "epsilons is (inf,)"),
    ("evaluators.adversarial.epsilons='a','b'", "finite numbers"),
    ("evaluators.adversarial.relative_step_size=0", "number above 0"),
    ("evaluators.adversarial.check_images=-1", "check_images is -1: give a"),
    (
      "evaluators.adversarial.attack.epsilon=-1",
      "adversarial.attack.epsilon is -1.0: give a",
    ),
  ],
)
def test_attack_and_augmentation_mistakes(
  nothing_runs, monkeypatch, data, tmp_path, override, words
):
  # Its weights are drawn after all this is checked.
  late = functools.partial(pytest.fail, "too late")
  monkeypatch.setattr(step.Program, "create", late)
  rejects(
    words,
    f"--config={ROOT}/configs/robust_augmix.py:smoke,dataset=arrays",
    f"--config.dataset.path={data}",
    f"--config.{override}",
    f"--workdir={tmp_path}",
  )


def test_network_too_large_for_memory(
  nothing_runs, monkeypatch, config, tmp_path
):
  """Without the check, the first read of its weights never returned."""
  monkeypatch.setattr(memory, "available", lambda: 20 * 2**30)
  line = rejects(
    "training needs at least 1763920.2 GiB of memory on this machine, but only "
    "20.0 GiB are available: choose a smaller config.model, or a machine with",
    *(config, f"--workdir={tmp_path / 'run'}"),
    "--config.model.widen_factor=20000",
  )
  assert "config.train" not in line and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "mode", [pytest.param("profile", marks=pytest.mark.slow), "evaluate"]
)
def test_out_of_memory(nothing_runs, monkeypatch, config, trained, mode):
  monkeypatch.setattr(memory, "available", lambda: 0)
  doing = {"profile": "profiling", "evaluate": "evaluation"}[mode]
  words = f"{doing} needs at least 0.0 GiB of memory on this machine, but only"
  rejects(words, config, f"--mode={mode}", f"--workdir={trained[0]}")


def test_damaged_data(nothing_runs, config, data, tmp_path):
  half = tmp_path / "half.npz"
  half.write_bytes(data.read_bytes()[:5000])
  path = f"--config.dataset.path={half}"
  rejects("cannot be read", config, path, f"--workdir={tmp_path / 'run'}")


@pytest.mark.parametrize("mode", ["train", "evaluate"])
@pytest.mark.parametrize(
  ("part", "words"),
  [
    ("config.json", "config.json is damaged"),
    ("metrics.jsonl", "metrics.jsonl is damaged in line 1"),
    ("checkpoints/4/state/manifest.ocdbt", "every checkpoint in"),
  ],
)
def test_damaged_run(monkeypatch, config, copy, mode, part, words):
  monkeypatch.setattr(
    evaluate.plugins.load("evaluator", "clean"), "results", pytest.fail
  )
  path = copy / part
  path.write_bytes(path.read_bytes()[100:])
  (copy / "results.json").write_text("half")  # else the run is finished
  rejects(words, config, f"--workdir={copy}", f"--mode={mode}")


def test_folders_of_other_runs(nothing_runs, config, copy, tmp_path):
  workdir = f"--workdir={copy}"
  rejects("seed was 0 and is now 1", config, workdir, "--config.seed=1")
  for folder, words in (
    (tmp_path / "none", "does not exist: give the folder of a run"),
    (ROOT, "does not exist: give the folder of a run"),
  ):
    rejects(words, config, "--mode=evaluate", f"--workdir={folder}")
  shutil.rmtree(copy / "checkpoints")
  rejects("train this run first", config, "--mode=evaluate", workdir)
  (copy / "results.json").write_text("{")
  rejects("results.json", "--mode=report", f"--runs={copy}")


def test_trained_run_is_shown(trained):
  folder, out, err = trained
  clean = found.row(runs.load(folder), "clean")
  assert f" {100 * clean.correct_count / 32:.1f} (" in out
  assert clean.total == 32
  assert f"Results: {folder / 'results.json'}" in out
  assert "train on 4 x cpu" in err and "step 4/4" in err
  assert "evaluating: clean" in err
  assert "evaluating: autoattack" not in err  # it is switched off
  assert (folder / "figures" / "training_curves.png").exists()


def results(folder):
  tree = json.loads((folder / "results.json").read_text())
  return {k: v for k, v in tree.items() if k != "timing"}


ATTACKED = """
from configs import adversarial

def get_config():
  config = adversarial.get_config("smoke,dataset=arrays")
  with config.unlocked():
    del config.evaluators["adversarial"]
  config.method.attack.norm = "linf"
  return config
"""


def test_warnings_are_printed_and_noted(data, monkeypatch, tmp_path):
  state = types.SimpleNamespace(step=4, params={}, batch_stats={})
  row = Row("clean", {}, 32, 32)
  monkeypatch.setattr(train, "fit", lambda *args: state)
  monkeypatch.setattr(clean.Evaluator, "results", lambda *args: [row])
  with np.load(data) as good:
    arrays = dict(good)
  for split in ("train", "test"):
    arrays[f"{split}_images"] //= 255
  np.savez(tmp_path / "dark.npz", **arrays)
  (tmp_path / "mine.py").write_text(ATTACKED)
  code, out, err = run(
    f"--config={tmp_path / 'mine.py'}",
    f"--config.dataset.path={tmp_path / 'dark.npz'}",
    "--config.method.attack.epsilon=77/255",
    f"--workdir={tmp_path / 'run'}",
  )
  assert code == 0, err
  large = (
    "config.method.attack.epsilon reaches 0.302 in Linf, 77 of 255 pixel "
    "levels; 8/255 is typical"
  )
  dark = (
    "the largest pixel value is 1 in the training images and 1 in the test "
    "images, out of 255: probably cast from [0, 1] without scaling: use "
    "(images * 255).round().astype(numpy.uint8)"
  )
  shown = runs.load(tmp_path / "run")
  assert {large, dark} <= set(found.notes(shown, "warning"))
  assert shown.head["config"]["method"]["attack"]["epsilon"] == 77 / 255
  shown = " ".join(out.split())
  for text in (large, dark):
    assert f"warning: {text}" in err and text in shown


def test_finished_run_is_only_shown(nothing_runs, config, trained):
  folder, out, _ = trained
  code, again, err = run(config, f"--workdir={folder}")
  assert code == 0 and again == out
  assert f"{folder} is finished (--mode=evaluate evaluates it again)" in err


def test_finished_run_is_shown_in_a_read_only_folder(
  nothing_runs, monkeypatch, config, trained
):
  folder, out, _ = trained
  opened = open

  def forbidden(path, mode="r", *args, **kwargs):
    if set(mode) & set("wax+") and str(path).startswith(str(folder)):
      raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return opened(path, mode, *args, **kwargs)

  monkeypatch.setattr("builtins.open", forbidden)
  monkeypatch.setattr(os, "access", lambda *args: False)
  code, again, err = run(config, f"--workdir={folder}")
  assert code == 0 and again == out, err
  words = f"no permission to write to {folder}; choose another folder"
  half = "--config.evaluate.images=16"
  rejects(words, config, f"--workdir={folder}", half)


def test_no_figures_are_drawn_in_a_read_only_folder(
  nothing_runs, monkeypatch, config, copy
):
  shutil.rmtree(copy / "figures", ignore_errors=True)
  monkeypatch.setattr(os, "access", lambda *args: False)
  code, out, err = run(config, f"--workdir={copy}")
  assert code == 0 and "Standard" in out and "Figures" not in out, err
  assert not (copy / "figures").exists()


def test_another_evaluation_reevaluates(monkeypatch, config, copy):
  monkeypatch.setattr(train.pipeline, "batch_indices", pytest.fail)  # no step
  half = "--config.evaluate.images=16"
  code, _, err = run(config, f"--workdir={copy}", half)
  assert code == 0 and "finished" not in err
  assert found.row(runs.load(copy), "clean").total == 16
  kept = copy / "results-previous-1"
  assert f"they are in {kept}" in err
  assert found.row(runs.load(kept), "clean").total == 32
  assert run(config, f"--workdir={copy}", half)[2].count("is finished") == 1
  run(config, f"--workdir={copy}", "--config.evaluate.images=8")
  kept = [runs.load(copy / f"results-previous-{n}") for n in (1, 2)]
  assert [found.row(x, "clean").total for x in kept] == [32, 16]


def test_evaluating_again_uses_the_recorded_statistics(
  data, config, trained, copy, tmp_path
):
  arrays = dict(np.load(data))
  arrays["train_images"] = arrays["train_images"] // 2
  np.savez(tmp_path / "darker.npz", **arrays)
  path = f"--config.dataset.path={tmp_path / 'darker.npz'}"
  code, _, err = run(config, f"--workdir={copy}", "--mode=evaluate", path)
  assert code == 0, err
  again, first = (found.row(runs.load(x), "clean") for x in (copy, trained[0]))
  assert again.values == first.values
  assert again.correct_count == first.correct_count


def test_evaluating_again_gives_the_same(monkeypatch, config, trained, copy):
  # As if it had been trained on an accelerator.
  saved = run_folder.read(copy)
  saved["train"] |= {"dtype": "bfloat16", "steps_per_dispatch": 4}
  run_folder.write_json(saved, copy / "config.json")
  (copy / "results.json").unlink()
  loaded, load = [], pipeline.load

  def noted(source, split, *rest):
    loaded.append(split)
    return load(source, split, *rest)

  monkeypatch.setattr(pipeline, "load", noted)
  code, _, err = run(config, f"--workdir={copy}", "--mode=evaluate")
  assert code == 0, err
  assert loaded == ["test"]  # data.json knows the training data
  again, first = results(copy), results(trained[0])
  assert again.pop("config")["train"]["dtype"] == "bfloat16"
  del first["config"]
  assert again == first


@pytest.mark.parametrize(
  ("text", "names"),
  [
    ("a,b", ["a", "b"]),
    ("a,b,", ["a", "b"]),
    (" a , b ", ["a", "b"]),
    ("c,d", ["c,d"]),
    ("c,d,a", ["c,d", "a"]),
    ("a,c,d,b", ["a", "c,d", "b"]),
    (" e ,a", [" e ", "a"]),
    ("a," * 150, ["a"] * 150),  # together too long for a name
  ],
)
def test_commas_and_spaces_of_runs(monkeypatch, trained, tmp_path, text, names):
  monkeypatch.chdir(tmp_path)
  for name in ("a", "b", "c,d", " e "):
    pathlib.Path(name).symlink_to(trained[0])
  shown = []
  load = program.runs.load
  monkeypatch.setattr(
    program.runs, "load", lambda folder: shown.append(folder) or load(folder)
  )
  run("--mode=report", f"--runs={text}", "--baseline=none")
  assert shown == names


def test_report_of_several_runs(trained, copy, tmp_path):
  out = tmp_path / "report"
  runs = f"--runs={trained[0]},{copy}"
  baseline = f"--baseline={copy}"
  code, text, err = run("--mode=report", runs, f"--workdir={out}", baseline)
  assert code == 0, err
  assert str(out / "summary.md") in text and str(out / "report.html") in text
  assert baseline in (out / "summary.md").read_text()
  assert baseline in (out / "report.html").read_text()


@pytest.mark.parametrize(
  ("error", "code", "words"),
  [
    (KeyboardInterrupt(), 130, "interrupted: the same command resumes"),
    (FloatingPointError("step 3:\nloss is nan"), 2, "error: step 3: loss is"),
    (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space"),
    (
      jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
      2,
      "error: the device is out of memory: lower config.evaluate.batch",
    ),
    (MemoryError(), 2, "error: this machine is out of memory: lower conf"),
  ],
)
def test_errors_and_signals_during_a_run(
  monkeypatch, config, error, code, words
):
  def raises(*args):
    raise error

  monkeypatch.setattr(experiment, "train_and_evaluate", raises)
  found, out, err = run(config)
  assert (found, out) == (code, "")
  assert err.splitlines()[-1].startswith(words) and "Traceback" not in err
  if isinstance(error, ValueError | OSError):
    with pytest.raises(type(error)):
      run(config, "--debug")


def test_corrupted_set_is_written_and_evaluated(config, copy, tmp_path):
  out, fields = tmp_path / "set", "--config.evaluators.corruption"
  write = ("--mode=corrupt", config, f"--out={out}")
  write += (f"{fields}.names=brightness,contrast",)
  said = f"{out}: 2 corruptions x 5 severities of 32 images (tiny), seed 0\n"
  assert run(*write)[:2] == (0, said)
  code, text, err = run(*write)
  assert (code, text) == (0, said) and f"{out} is complete: nothing" in err
  rejects("seed was 0 and is now 1", *write, f"{fields}.seed=1")
  code, text, err = run(
    "--mode=evaluate",
    config,
    f"--workdir={copy}",
    f"{fields}.folder={out}",
    "--config.evaluators.fourier.images=8",
  )
  assert code == 0 and "contrast (2 of 2)" in err, err
  assert "frost was not evaluated: it is not in" in " ".join(text.split())
  shown = runs.load(copy)
  assert {row.total for row in found.rows(shown, "fourier")} == {8}
  rows = found.rows(shown, "corruption")
  assert len(rows) == 10
  assert all(row.settings["images"].endswith("seed 0") for row in rows)
  correct = shown.correct
  for row in (found.row(shown, "clean"), *rows):
    assert correct[row.key].sum() == row.correct_count
  assert (copy / "figures" / "corruptions.png").exists()
  # Another test set is rejected before anything is evaluated.
  np.save(out / "labels.npy", np.zeros(160, np.uint8))
  rejects(
    "labels.npy is missing or does not have the SHA-256 in its",
    *("--mode=evaluate", config, f"--workdir={copy}", f"{fields}.folder={out}"),
  )


@pytest.mark.parametrize(
  "error", [RuntimeError("a bug"), jax.errors.JaxRuntimeError("INTERNAL: x")]
)
def test_bugs_keep_their_traceback(monkeypatch, config, error):
  def raises(*args):
    raise error

  monkeypatch.setattr(experiment, "train_and_evaluate", raises)
  with pytest.raises(type(error)):
    run(config)


def test_debug_shows_the_traceback():
  with pytest.raises(FileNotFoundError, match="not a config file"):
    run("--config=configs/x.py", "--debug")


def test_help_names_every_flag_and_config():
  with pytest.raises(SystemExit) as caught:
    run("--help")
  assert caught.value.code == 0
  text = flags.parser().format_help()
  names = [f"--{name}" for name in vars(flags.parse([])) if name != "overrides"]
  assert len(names) == 12
  for name in (
    *names,
    "train:",
    "evaluate:",
    "profile:",
    "report:",
    "robust_augmix",
  ):
    assert name in text


FLAGS = [name for name in vars(flags.parse([])) if name != "overrides"]


@pytest.mark.parametrize("name", [n for n in FLAGS if n != "debug"])
def test_empty_flag(nothing_runs, name):
  words = f"--{name} is empty: give a value, or leave it out"
  known = {mode: f"mode {row[1]}".split() for mode, row in flags.MODES.items()}
  mode = next(mode for mode, names in known.items() if name in names)
  argv = [f"--mode={mode}", f"--{name}="]
  rejects("unknown --mode=:" if name == "mode" else words, *argv)


def test_flags_given_twice_or_with_a_space(monkeypatch):
  seen = []
  monkeypatch.setattr(program, "work", lambda *args: seen.append(args))
  digits = f"{ROOT}/configs/digits.py"
  argv = ["--config=x", "--workdir=a", "--config.seed=1", "--config", digits]
  argv += ["--config.seed", "2", "--config.method.augment.depth", "-1"]
  argv += ["--config.dataset.name", "-", "--workdir", "~/b"]
  assert run(*argv)[0] == 0
  [(config, folder, flags, workdir)] = seen
  assert (config.seed, config.method.augment.depth) == (2, -1)
  assert flags.mode == "train"
  assert config.dataset.name == "-"
  assert workdir == str(folder) == str(pathlib.Path.home() / "b")


def test_folder_name_that_is_not_valid_text(nothing_runs, monkeypatch):
  monkeypatch.setattr(os, "getcwd", lambda: "/\udcc3")
  digits = f"--config={ROOT}/configs/digits.py"
  rejects(
    r"cannot use '/\udcc3': it is not valid text in utf-8, the enc", digits
  )


def helped(*argv):
  """What --help prints, and the fields in it with their values."""
  out = io.StringIO()
  with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as caught:
    program.main([*argv, "--help"])
  assert caught.value.code in (0, None)
  text = out.getvalue()
  _, fields = text.split("Fields of ")
  return text, dict(re.findall(r"^  ([\w.]+)=(\S*)", fields, re.MULTILINE))


def test_help_lists_every_field():
  path = f"{ROOT}/configs/robust_augmix.py:smoke"
  config = command_line.load(path)
  command_line.override(config, ["--config.seed=7", "--config.floors=()"])
  text, values = helped(f"--config={path}", "--config.seed", "7")
  assert f"Fields of {path}, each set by --config.FIELD=VALUE:" in text
  assert set(values) == set(command_line.fields(config))
  lines = text.replace(path, "PATH").splitlines()
  assert max(map(len, lines)) <= 80 and text.isascii()
  # What is shown can be given.
  other = command_line.load(path)
  command_line.override(other, [f"--config.{n}={t}" for n, t in values.items()])
  assert other.to_dict() == config.to_dict() and values["seed"] == "7"


def test_help_has_the_comments_of_the_source():
  text, values = helped()
  assert "Fields of configs/default.py" in text and values["train.epochs"]
  rows = (
    "  train.epochs=100            Passes over the training images\n",
    "\nevaluators.clean:             Accuracy on clean test images\n"
    "  evaluators.clean.name=clean\n\n",  # the group's is not the name's
    "  dataset.classes=10          10: CIFAR-10 | 100: CIFAR-100\n",
    "  evaluators.corruption.classes=10  10: CIFAR-10-C | 100: CIFAR-100-C\n",
    "  weights.fingerprint=none    SHA-256 of the file. None: computed at st",
  )
  for row in rows:
    assert row in text, row
  path = f"--config={ROOT}/configs/digits.py"
  text, values = helped(path)
  assert "  model.depth=10              Number of layers: 6 n + 4\n" in text
  assert text.count("method.weight=12.0          Lambda, weight of") == 1
  bare = [
    n for n in values if re.search(rf"^  {n}=\S*\n(?! {{9}})", text, re.M)
  ]
  assert bare == ["dataset.name", "evaluators.clean.name", "method.name"]


def test_help_for_a_user_config(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
    "from configs import default\n"
    "def get_config():\n"
    "  config = default.get_config()\n"
    "  config.train.epochs = 3  # only here\n"
    "  config.model = {\n"
    "    'name': 'mine',\n"
    "    # Of mine.\n"
    "    # In pixels.\n"
    "    'side': 3,\n"
    "  }\n"
    "  config.note = 'a b'  # for me\n"
    "  return config\n"
  )
  text, values = helped(f"--config={path}")
  assert "  train.epochs=3              Passes over the training" in text
  assert "  model.side=3                Of mine. In pixels.\n" in text
  assert "  note=a b                    for me\n" in text
  rejects("no config.x", f"--config={path}", "--config.x=1", "--help")


def test_closed_stdout(monkeypatch):
  reader, writer = os.pipe()
  os.close(reader)
  with os.fdopen(writer, "w") as stdout:
    monkeypatch.setattr("sys.stdout", stdout)
    assert program.main(["--help"]) == 141


def test_no_device(monkeypatch, config):
  def raises():
    raise RuntimeError("Unable to initialize backend 'tpu'")

  monkeypatch.setattr(jax, "devices", raises)
  rejects("JAX finds no device: Unable to initialize backend", config)


@pytest.mark.parametrize(
  ("name", "value", "words"),
  [
    ("COORDINATOR_ADDRESS", "host:1234", "JAX_NUM_PROCESSES is None: set all"),
    ("PROCESS_ID", "1", "JAX_COORDINATOR_ADDRESS is None: set all of"),
  ],
)
def test_incomplete_multi_host_variables(
  monkeypatch, config, name, value, words
):
  monkeypatch.setenv(f"JAX_{name}", value)
  rejects(words, config)


# A shell's background jobs ignore Ctrl-C, and what they start inherits that.
LAUNCH = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
del sys.argv[0]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(*argv, **options):
  return subprocess.Popen(
    [sys.executable, "-c", LAUNCH, str(ROOT / "main.py"), *argv],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )


def test_real_command_without_flags(tmp_path):
  process = command(cwd=tmp_path)
  out, err = process.communicate(timeout=120)
  assert (process.returncode, out) == (2, "")
  assert (
    err.startswith("error: --mode=train needs --config")
    and err.count("\n") == 1
  )


def test_real_interruption(config, trained, tmp_path):
  folder = tmp_path / "run"
  process = command(
    config,
    f"--workdir={folder}",
    "--config.train.epochs=100000",
    "--config.train.checkpoint_every=10",
    env=os.environ | {"PYTHONWARNINGS": "ignore"},
  )
  try:
    deadline = time.monotonic() + 240
    while not list(folder.glob("checkpoints/*/commit_success.txt")):
      assert process.poll() is None, process.communicate()
      assert time.monotonic() < deadline
      time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
  finally:
    process.kill()
  assert (process.returncode, out) == (130, "")
  steps = [p.name for p in (folder / "checkpoints").iterdir()]
  newest = max(map(int, steps))
  assert err.splitlines()[-1] == (
    f"interrupted: step {newest} of 400000 is saved; the same command resumes "
    "from there"
  )
  assert "Traceback" not in err
