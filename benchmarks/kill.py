"""Kills runs 25 times and compares results: `python -m benchmarks.kill`.

A small network is trained and evaluated on digits once without interruption.
Then runs of the same command are killed by SIGKILL at random moments and
restarted, until there have been 25 kills and the last run has finished. The
results of every run must be bit-identical to those of the first one:
parameters, statistics, optimizer state, metrics.jsonl and results.json (except
`timing`), and correct.npz. Prints the table of docs/reliability.md; the exit
code is 1 if anything differs.
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
# Phases of one run to wait for; the kill follows after a random delay.
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
  """Kills runs and compares results; exits with 1 if any differ."""
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
        print(f"run {runs} has different results")
        sys.exit(1)
  print(f"{KILLS} kills of {runs} runs, all with the same results as the first")
  print("\n| killed in | times |\n|---|---|")
  for kind in KINDS:
    print(f"| {kind} | {found[kind]} |")


def start(folder: pathlib.Path) -> subprocess.Popen:
  """Starts or restarts the command.

  Args:
    folder: the run's folder; stderr is written to a file next to it.

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
  """Starts or restarts a run, and kills it.

  Args:
    folder: the run's folder.
    what: phase to wait for, from `PLAN`.
    seconds: CPU time of a complete run, in seconds.
    rng: generator of the random delay before the kill.

  Returns:
    The phase in which it was killed, from `KINDS`; None if it finished first.
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
  # "evaluation" means any part of it, including AutoAttack.
  names = {"evaluation": ("autoattack", "evaluation")}.get(what, (what,))
  wait_for(lambda: what == "anything" or now() in names, process)
  end = used(process) + rng.uniform(0, after)
  wait_for(lambda: used(process) >= end, process)
  ended = process.poll() is not None
  process.send_signal(signal.SIGKILL)
  process.wait()
  return None if ended else now()


def wait_for(true: Callable[[], bool], process: subprocess.Popen) -> None:
  """Waits until a condition is true or a process has exited."""
  while not true() and process.poll() is None:
    time.sleep(0.002)


def used(process: subprocess.Popen) -> float:
  """User CPU time of a process in seconds, independent of other load."""
  fields = read(pathlib.Path(f"/proc/{process.pid}/stat")).rpartition(")")[2]
  if not fields:  # the process has exited
    return math.inf
  return int(fields.split()[11]) / os.sysconf("SC_CLK_TCK")


def stamp(path: pathlib.Path) -> int | None:
  """Modification time of a file in nanoseconds; None if it is missing."""
  return path.stat().st_mtime_ns if path.exists() else None


def read(path: pathlib.Path) -> str:
  """Text of a file; '' if it is missing."""
  return path.read_text(encoding="utf-8") if path.exists() else ""


def outcome(folder: pathlib.Path) -> dict[str, Any]:
  """Collects the results of a run, without times.

  Args:
    folder: folder of a finished run.

  Returns:
    Name of the last checkpoint, fingerprint of its state, content of
    metrics.jsonl, results.json and correct.npz, and the names of all files.
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
