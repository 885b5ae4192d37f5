"""Kills a run 25 times and compares it: `python -m benchmarks.kill`.

A small network is trained and evaluated on digits once without interruption.
Then runs of the same command are killed by SIGKILL at random moments and
restarted, until 25 have been killed and the last run has finished. The results
of every run must be bit-identical to those of the first one: parameters,
statistics, optimizer state, metrics.jsonl and results.json (except `timing`),
and correct.npz. Prints the table of docs/reliability.md; the exit code is 1 if
anything differs.
"""

import collections
import json
import math
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
KILLS = 25
COMMAND = (
  "--config=configs/standard.py:smoke,dataset=digits",
  "--config.train.epochs=10",  # 40 steps, a checkpoint every 4
  "--config.train.log_every=3",
  "--config.evaluate.batch_size=8",
  "--config.evaluators.adversarial.epsilons=0.25,0.5,1.0,2.0",
  "--config.evaluators.autoattack.epsilons=0.25,0.5",
  "--config.evaluators.autoattack.version=apgd-ce+apgd-t",
  "--config.evaluators.corruption.generate=True",
  "--config.evaluators.corruption.names=brightness,contrast,gaussian_noise",
  "--config.evaluators.fourier.images=16",  # 514 frequencies
)
# What is waited for, in the life of one run; then a random time.
PLAN = (
  "anything",
  "step",
  "save",
  "autoattack",
  "autoattack",
  "autoattack",
  "evaluation",
)
KINDS = (
  "start",
  "before the first line",
  "step",
  "save",
  "autoattack",
  "evaluation",
)


def main() -> None:
  """Kills and compares; ends with 1 if a run ended differently."""
  rng, found, runs = random.Random(0), collections.Counter(), 0
  with tempfile.TemporaryDirectory() as name:
    base = pathlib.Path(name)
    start(base / "whole").wait()
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    wanted = outcome(base / "whole")
    while found.total() < KILLS:
      folder, runs = base / str(runs), runs + 1
      for what in PLAN[: KILLS - found.total()]:
        kind = killed(folder, what, seconds, rng)
        if not kind:
          break
        found[kind] += 1
        print(f"kill {found.total()}: run {runs}, {kind}", flush=True)
      start(folder).wait()
      if outcome(folder) != wanted:
        print(f"run {runs} ended differently")
        sys.exit(1)
  print(f"{KILLS} kills of {runs} runs, all of which ended as the first did")
  print("\n| killed in | times |\n|---|---|")
  for kind in KINDS:
    print(f"| {kind} | {found[kind]} |")


def start(folder: pathlib.Path) -> subprocess.Popen:
  """Starts the command, or starts it again.

  Args:
    folder: of the run; what the program says goes to a file beside it.

  Returns:
    The process.
  """
  with open(folder.with_suffix(".err"), "w", encoding="utf-8") as said:
    return subprocess.Popen(
      [sys.executable, "main.py", *COMMAND, f"--workdir={folder}"],
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=said,
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def killed(
  folder: pathlib.Path, what: str, seconds: float, rng: random.Random
) -> str | None:
  """Starts a run (again), and kills it.

  Args:
    folder: of the run.
    what: of `PLAN`, to be waited for.
    seconds: of processors that a whole run takes.
    rng: of the time after that.

  Returns:
    One of `KINDS`, for where it was; None if it had finished before.
  """
  lines = len(read(folder / "metrics.jsonl").splitlines())
  config = stamp(folder / "config.json")
  process = start(folder)

  def now() -> str:
    if list(folder.glob("checkpoints/*tmp*")):
      return "save"
    announced = read(folder.with_suffix(".err")).rpartition("evaluating: ")
    if announced[1]:
      attacked = announced[2].startswith("autoattack")
      return "autoattack" if attacked else "evaluation"
    if len(read(folder / "metrics.jsonl").splitlines()) > lines:
      return "step"
    fresh = stamp(folder / "config.json") != config
    return "before the first line" if fresh else "start"

  after = {"anything": 0.5, "autoattack": 0.3, "step": 0.1, "evaluation": 0.1}
  after = seconds * after.get(what, 0) or 0.03
  # "evaluation" is any part of it, AutoAttack included.
  names = {"evaluation": ("autoattack", "evaluation")}.get(what, (what,))
  wait_for(lambda: what == "anything" or now() in names, process)
  end = used(process) + rng.uniform(0, after)
  wait_for(lambda: used(process) >= end, process)
  ended = process.poll() is not None
  process.send_signal(signal.SIGKILL)
  process.wait()
  return None if ended else now()


def wait_for(true: Callable[[], bool], process: subprocess.Popen) -> None:
  """Waits until something is true, or a process has ended."""
  while not true() and process.poll() is None:
    time.sleep(0.002)


def used(process: subprocess.Popen) -> float:
  """Seconds of processors that a process has used; other work delays none."""
  fields = read(pathlib.Path(f"/proc/{process.pid}/stat")).rpartition(")")[2]
  if not fields:  # it has ended
    return math.inf
  return int(fields.split()[11]) / os.sysconf("SC_CLK_TCK")


def stamp(path: pathlib.Path) -> int | None:
  """When a file was written, None where there is none."""
  return path.stat().st_mtime_ns if path.exists() else None


def read(path: pathlib.Path) -> str:
  """A file's text, '' where there is none."""
  return path.read_text(encoding="utf-8") if path.exists() else ""


def outcome(folder: pathlib.Path) -> dict[str, Any]:
  """What a run came to, without times.

  Args:
    folder: of a run that has ended.

  Returns:
    The fingerprint of its last state, its lines, results and bits.
  """
  from ram_jax.runs import checkpoint

  checkpoints = checkpoint.Checkpoints(folder / "checkpoints")
  state, _, path = checkpoints.newest()
  checkpoints.close()
  rows = [json.loads(x) for x in read(folder / "metrics.jsonl").splitlines()]
  results = json.loads(read(folder / "results.json"))
  for part in (*rows, results):
    del part["timing"]
  return {
    "step": path.name,
    "state": checkpoint.fingerprint(state),
    "metrics.jsonl": rows,
    "results.json": results,
    "correct.npz": (folder / "correct.npz").read_bytes(),
    "files": sorted(p.name for p in folder.iterdir()),
  }


if __name__ == "__main__":
  main()
