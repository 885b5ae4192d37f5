"""Sweeps: shared programs, resuming, time limits, failing runs."""

import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ram_jax import command_line, sweep
from ram_jax.data import arrays
from ram_jax.evaluation import cache
from ram_jax.report import page, plots
from ram_jax.runs import checkpoint, signals
from ram_jax.training import log, loop, step
from tests.main_test import ROOT, data, rejects, run  # noqa: F401
from tests.training.loop_test import lines

# All programs that are compared are compiled in the same way.
pytestmark = pytest.mark.usefixtures("quick_compilation", "tiny_network")

FILE = """
from configs import adversarial, augmix, robust_augmix, standard

def get_runs(argument=""):
  found = []
  for seed in range(2):
    for method in (standard, adversarial, augmix, robust_augmix):
      config = method.get_config("smoke,dataset=arrays")
      config.seed = seed
      config.dataset.path = {path!r}
      config.optimizer.learning_rate = 0.1 / (1 + seed)
      config.evaluators.adversarial.attack.steps = 2
      if "attack" in config.method:
        config.method.attack.steps = 1
        config.method.attack.epsilon = 0.5 * (1 + seed)
      if "augment" in config.method:  # AugMix compiles for long
        config.method.weight = 12.0 - seed
        with config.unlocked():
          config.method.augment = {{"name": "basic", "padding": 2}}
      if argument == "diverging" and config.name == "augmix" and not seed:
        config.optimizer.learning_rate = 1e30
      found.append(config)
  return found
"""
NAMES = [
  f"{method}-{seed}"
  for seed in range(2)
  for method in ("standard", "adversarial", "augmix", "robust_augmix")
]


@pytest.fixture(scope="module")
def file(data):  # noqa: F811
  path = data.parent / "sweep.py"
  path.write_text(FILE.format(path=str(data)))
  return path


def start(file, folder, *rest):
  return run("--mode=sweep", f"--config={file}", f"--workdir={folder}", *rest)


@pytest.fixture(scope="module")
def whole(file, tmp_path_factory):
  """A finished sweep, its output, and what was read, traced and compiled."""
  folder = tmp_path_factory.mktemp("sweep") / "whole"
  loop._programs.cache_clear()
  events = collections.defaultdict(list)

  def counted(function, kind):
    def wrapped(*args, **kwargs):
      events[kind].append(args[1:2])
      return function(*args, **kwargs)

    return wrapped

  def heard(event, seconds, **rest):
    if event == "/jax/core/compile/backend_compile_duration":
      events["compiled"].append(len(list(folder.glob("*/results.json"))))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(arrays.Source, "load", counted(arrays.Source.load, "read"))
    counting = counted(step.Program.train_steps, "traced")
    patch.setattr(step.Program, "train_steps", counting)
    jax.monitoring.register_event_duration_secs_listener(heard)
    code, out, err = start(file, folder)
    jax.monitoring.unregister_event_duration_listener(heard)
  loop._programs.cache_clear()
  assert code == 0, err
  return folder, out, events


def test_sweep_compiles_each_method_once_and_loads_data_once(whole):
  folder, out, events = whole
  assert sorted(events["read"]) == [("test",), ("train",)]
  assert len(events["traced"]) == 4
  # After the first seed of each method, nothing is compiled.
  assert set(events["compiled"]) == {0, 1, 2, 3}
  assert out.count("running") == 8 and "minutes left" in out
  assert {p.name for p in folder.iterdir() if p.is_dir()} == set(NAMES)
  files = ("report.html", "summary.md", "results.csv", "sweep.json")
  assert all((folder / name).is_file() for name in files)
  assert set(json.loads((folder / "sweep.json").read_text())) == {
    "training",
    "evaluation",
    "report",
  }
  text = (folder / "summary.md").read_text()
  for label in ("Standard", "Adversarial training", "AugMix", "RobustAugMix"):
    assert label in text
  rows = (folder / "results.csv").read_text().splitlines()
  assert len(rows) == 1 + 8 * 2  # clean, and one epsilon


def outcome(folder):
  """Everything in a run's folder that does not depend on time."""
  checkpoints = checkpoint.Checkpoints(folder / "checkpoints")
  state, _, path = checkpoints.newest()
  checkpoints.close()
  results = json.loads((folder / "results.json").read_text())
  del results["timing"]
  return {
    "state": (path.name, checkpoint.fingerprint(state)),
    "lines": lines(folder),
    "results": results,
    "correct": (folder / "correct.npz").read_bytes(),
    "files": sorted(p.name for p in folder.iterdir()),
  }


def test_run_of_a_sweep_equals_the_same_config_alone(file, whole, tmp_path):
  folder = tmp_path / "alone"
  config = whole[0] / "robust_augmix-1" / "config.json"
  loop._programs.cache_clear()
  code, _, err = run(f"--config={config}", f"--workdir={folder}")
  assert code == 0, err
  assert outcome(folder) == outcome(whole[0] / "robust_augmix-1")
  # The run's folder is an ordinary one.
  run_of_sweep = shutil.copytree(whole[0] / "augmix-0", tmp_path / "run")
  argv = f"--config={run_of_sweep / 'config.json'}", f"--workdir={run_of_sweep}"
  code, _, err = run("--mode=evaluate", *argv)
  assert code == 0, err
  assert outcome(run_of_sweep) == outcome(whole[0] / "augmix-0")


@pytest.fixture
def no_figures(monkeypatch):
  """Figures are empty files, because drawing takes most of the time."""

  def save(figure, path):
    path.write_bytes(b"")
    return path

  for name in (n for n in dir(plots) if n.startswith("draw_")):
    monkeypatch.setattr(plots, name, lambda *args: True)
  monkeypatch.setattr(plots, "save", save)


@pytest.mark.usefixtures("no_figures")
def test_finished_sweep_computes_nothing(file, whole, monkeypatch):
  def forbidden(*args, **kwargs):
    raise AssertionError("something was computed")

  monkeypatch.setattr(loop, "fit", forbidden)
  table = (whole[0] / "results.csv").read_bytes()
  code, out, _ = start(file, whole[0])
  assert code == 0 and "running" not in out
  assert (whole[0] / "results.csv").read_bytes() == table


def assert_as_whole(folder, whole):
  table = (folder / "results.csv").read_text()
  assert table == (whole[0] / "results.csv").read_text()
  for name in NAMES:
    assert outcome(folder / name) == outcome(whole[0] / name)


# Where an interruption comes: after a step, in a checkpoint, after a part of an
# evaluation, before figures are drawn.
MOMENTS = (
  (log.Log, "add"),
  (checkpoint.Checkpoints, "save"),
  (cache.Parts, "_keep"),
  (page, "draw"),
)


@pytest.mark.usefixtures("no_figures")
def test_sweep_interrupted_at_random_moments_ends_the_same(
  file, whole, tmp_path, monkeypatch
):
  rng, left, cuts = random.Random(0), [0], 0

  def interrupting(function):
    def wrapped(*args, **kwargs):
      left[0] -= 1
      if not left[0]:
        raise KeyboardInterrupt
      return function(*args, **kwargs)

    return wrapped

  for owner, name in MOMENTS:
    monkeypatch.setattr(owner, name, interrupting(getattr(owner, name)))
  while True:
    left[0] = rng.randrange(1, 30)
    code, _, err = start(file, tmp_path / "cut")
    if code == 0:
      break
    assert code == 130, err
    cuts += 1
  assert cuts >= 4
  assert_as_whole(tmp_path / "cut", whole)


@pytest.mark.slow
def test_sweep_killed_at_random_moments_ends_the_same(file, tmp_path):
  """With SIGKILL, which no program can handle."""

  def process(name):
    flags = "--mode=sweep", f"--config={file}", f"--workdir={tmp_path / name}"
    return subprocess.Popen([sys.executable, ROOT / "main.py", *flags])

  began = time.monotonic()
  assert process("whole").wait() == 0
  seconds = time.monotonic() - began
  rng = random.Random(0)
  for _ in range(5):
    killed = process("killed")
    time.sleep(rng.uniform(0.05, 0.25) * seconds)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
  assert process("killed").wait() == 0
  tables = [tmp_path / name / "results.csv" for name in ("whole", "killed")]
  assert tables[0].read_text() == tables[1].read_text()


@pytest.mark.usefixtures("no_figures")
def test_time_limit_stops_in_time_and_resumes(
  file, whole, tmp_path, monkeypatch
):
  # It would end the tests: other work may delay this process for long.
  monkeypatch.setattr(sweep, "deadline", contextlib.nullcontext)
  folder, stops = tmp_path / "limited", 0
  for minutes in (0.005, 0.05, 0.1, 0.2, 1):
    began = time.monotonic()
    code, _, err = start(file, folder, f"--minutes={minutes}")
    assert code == 0, err
    done = [name for name in NAMES if (folder / name / "results.json").exists()]
    if done:
      text = (folder / "summary.md").read_text()
      missing = [name for name in NAMES if name not in done]
      if missing:
        stops += 1
        note = f"not finished: {', '.join(missing)}"
        assert note in err and note in text
        assert note in (folder / "report.html").read_text()
    else:
      assert not (folder / "summary.md").exists()
      stops += 1
    # Other work on this machine may delay the end.
    assert time.monotonic() - began < 60 * minutes + 20
  assert stops and len(done) == len(NAMES)
  assert_as_whole(folder, whole)


@pytest.mark.usefixtures("no_figures")
def test_failing_run_is_reported_and_the_others_continue(file, whole, tmp_path):
  folder = tmp_path / "failing"
  for name in NAMES[:-1]:  # as if they were finished, but for two
    if name != "augmix-0":
      shutil.copytree(whole[0] / name, folder / name)
  code, _, err = start(f"{file}:diverging", folder)
  assert code == 1
  assert err.splitlines()[-1].startswith("error: 1 of 8 runs failed: augmix-0")
  assert (folder / "augmix-0" / "post_mortem" / "report.json").exists()
  assert outcome(folder / NAMES[-1]) == outcome(whole[0] / NAMES[-1])
  text = (folder / "summary.md").read_text()
  assert "augmix-0 failed: step " in text


def test_sigterm_ends_the_sweep(file, tmp_path, monkeypatch):
  def add(self, metrics, real=log.Log.add):
    signal.raise_signal(signal.SIGTERM)
    real(self, metrics)

  monkeypatch.setattr(log.Log, "add", add)
  code, _, err = start(file, tmp_path / "run")
  assert code == 143 and "stopped by SIGTERM: step 1 of 4 is saved" in err
  assert not (tmp_path / "run" / "summary.md").exists()


def test_clock(tmp_path, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(time, "monotonic", lambda: now[0])
  clock = sweep.Clock(tmp_path / "sweep.json", minutes=10)
  assert clock.left() == 600 - 2 * sweep.RESERVE
  assert clock.fits("training")  # nothing is known yet
  clock.measured("training", 90.0)
  clock.measured("training", 80.0)
  clock.measured("report", 4.0)  # shorter than the reserve
  clock.close()
  # The next process knows the durations.
  clock = sweep.Clock(tmp_path / "sweep.json", minutes=10)
  assert clock.left() == 592
  now[0] += 500
  assert clock.fits("training")
  now[0] += 10
  assert not clock.fits("training") and clock.fits("evaluation")
  clock.measured("report", 7.0)
  assert clock.left() == 76
  # A compilation that is longer than the budget does not block the sweep.
  clock.measured("training", 10_000.0)
  clock.close()
  clock = sweep.Clock(tmp_path / "sweep.json", minutes=10)
  assert clock.fits("training")
  clock.close()
  clock = sweep.Clock(tmp_path / "other.json", minutes=None)
  assert clock.left() == np.inf and clock.fits("training")
  clock.close()


def test_deadline_ends_the_program(monkeypatch, capsys):
  codes = []
  monkeypatch.setattr(os, "_exit", codes.append)
  with sweep.deadline(0.05):
    time.sleep(0.5)
  assert codes == [0]
  assert "everything that was saved is kept" in capsys.readouterr().err
  for seconds in (0.2, np.inf):
    with sweep.deadline(seconds), signals.alarm(seconds):
      pass
  time.sleep(0.4)
  assert codes == [0]


def test_compilation_of_the_evaluation_is_not_started_too_late(
  file, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    sweep.Clock, "fits", lambda clock, what: what == "training"
  )
  code, _, err = start(file, tmp_path / "run", "--minutes=10")
  assert code == 0 and f"not finished: {', '.join(NAMES)}" in err
  [checkpoints] = tmp_path.glob("run/*/checkpoints")
  assert checkpoints.parent.name == NAMES[0]


def test_alarm_is_repeated_until_something_listens():
  with signals.alarm(0.01):
    time.sleep(0.1)
    words = "out of time: all is saved"
    with (
      pytest.raises(signals.Stopped, match=words) as caught,
      signals.listen() as stop,
    ):
      stop.at_once("all is saved")
      time.sleep(5)
  assert caught.value.code == 128 + signal.SIGALRM
  assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_folder_of_another_run_is_rejected(file, whole):
  flag = "--config.train.batch_size=8"
  words = (
    "standard-0 contains another run: train.batch_size was 16 and is now 8"
  )
  argv = "--mode=sweep", f"--config={file}", f"--workdir={whole[0]}", flag
  rejects(words, *argv)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("def get_runs(): return []", "returned []: it must return a non-empty"),
    ("def get_runs(): return [1]", "returned [1]: it must"),
    ("def get_runs(): return 3", "returned 3: it must return a non-empty"),
    ("x = 1", "has no function get_runs"),
    ("def get_config(): ...", "get_runs: it defines a single run, so leave"),
    (
      "from configs import standard\n"
      "def get_runs(): return [standard.get_config()] * 2",
      "has two runs called standard-0: each needs its own config.name or",
    ),
  ],
)
def test_broken_files_are_explained(text, words, tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(text)
  rejects(words, "--mode=sweep", f"--config={path}")


def test_folder_of_a_sweep_is_not_a_run(whole):
  folder = whole[0]
  words = f"give the folder of a run, such as {folder}/"
  rejects(words, "--mode=report", f"--runs={folder}")


def test_folder_of_a_run_is_rejected(file, tmp_path):
  (tmp_path / "config.json").write_text("{}")
  words = "is the folder of a run: choose another folder for the sweep"
  rejects(words, "--mode=sweep", f"--config={file}", f"--workdir={tmp_path}")


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "x"])
def test_bad_minutes_are_rejected(file, minutes):
  argv = ("--mode=sweep", f"--config={file}", f"--minutes={minutes}")
  rejects("--minutes", *argv)


def test_missing_file_lists_the_sweeps():
  words = (
    "choose configs/sweeps/cifar10_small.py, configs/sweeps/digits.py, configs"
  )
  rejects(words, "--mode=sweep", "--config=configs/sweeps/x.py")


@pytest.mark.parametrize(
  ("name", "argument", "count"),
  [
    ("paper", "seeds=3,epochs=2", 12),
    ("epsilon", "", 8),
    ("smoke", "", 4),
    ("digits", "seeds=2", 8),
    ("cifar10_small", "seeds=3", 12),
    ("joint", "epochs=10", 12),
    ("techniques", "seeds=2", 40),
    ("techniques", "epochs=1", 20),
  ],
)
def test_sweeps_of_the_repository(name, argument, count):
  text = f"{command_line.CONFIGS / 'sweeps' / name}.py"
  configs = command_line.load_runs(f"{text}:{argument}" if argument else text)
  assert len(configs) == count
  if name == "paper":
    assert {config.train.epochs for config in configs} == {2}
    assert [config.seed for config in configs[:5]] == [0, 0, 0, 0, 1]
  for config in configs:
    sweep.experiment.resolve(config)
  if name == "joint":  # all have about the training time of the control
    epochs = {config.name: config.train.epochs for config in configs}
    assert epochs["control"] == 10 and epochs["ramp"] == 15
    assert epochs["awp_ema"] == 7
  if name == "epsilon":
    sizes = {(c.method.weight, c.method.attack.epsilon) for c in configs}
    assert len(sizes) == 8
    programs = {sweep._program(sweep.experiment.resolve(c)) for c in configs}
    assert len(programs) == 1
  for attack in (c.method.get("attack") for c in configs):
    if attack:  # the step size follows epsilon
      relative = attack.step_size / attack.epsilon
      attack.epsilon = 0.25
      assert attack.step_size == pytest.approx(0.25 * relative)
  files = {p.stem for p in pathlib.Path(text).parent.glob("[!_]*.py")}
  assert files == {
    "paper",
    "epsilon",
    "smoke",
    "digits",
    "cifar10_small",
    "joint",
    "techniques",
  }


@pytest.mark.parametrize("argument", ["seeds=0", "seeds=a", "seeds=1,seeds=2"])
def test_bad_choices_of_a_sweep(argument):
  words = f"cannot use '{argument.split(',')[-1]}': give seeds=N once"
  text = command_line.CONFIGS / "sweeps" / "paper.py"
  rejects(words, "--mode=sweep", f"--config={text}:{argument}")
