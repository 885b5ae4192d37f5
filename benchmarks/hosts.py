r"""Measures how long a process keeps running after another one has failed.

    python -m benchmarks.hosts

Two processes of `main.py`, with two simulated devices each, train on this
machine. Then one of them is killed, or stopped to simulate a host that hangs.
Each process is tried, because the first one also coordinates the others.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATIENCE = 600  # seconds


def main() -> None:
  """Tries every signal on every process; prints a line of JSON for each."""
  for name in ("SIGKILL", "SIGSTOP"):
    for victim in (1, 0):
      print(json.dumps(attempt(victim, name)), flush=True)


def attempt(victim: int, name: str) -> dict[str, Any]:
  """Starts two processes, sends a signal to one and waits for the other.

  Args:
    victim: index of the process that receives the signal.
    name: name of the signal.

  Returns:
    Exit code of the other process, seconds until it exited, and its first
    error.
  """
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place) / "run"
    processes = start(folder)
    try:
      wait_for_training(folder, processes)
      processes[victim].send_signal(getattr(signal, name))
      began = time.monotonic()
      said = processes[1 - victim].communicate(timeout=PATIENCE)[0]
      seconds = round(time.monotonic() - began, 1)
    finally:
      for process in processes:
        process.kill()
  errors = [line for line in said.splitlines() if "rror" in line]
  return {
    "victim": victim,
    "signal": name,
    "seconds": seconds,
    "code": processes[1 - victim].returncode,
    "first error": errors[0][:300] if errors else None,
  }


def start(folder: pathlib.Path) -> list[subprocess.Popen]:
  """Starts two processes of one long run.

  Args:
    folder: the run's folder.

  Returns:
    The processes.
  """
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    port = probe.getsockname()[1]
  shared = os.environ | {
    "JAX_PLATFORMS": "cpu",
    # Make both compile; Gloo waits at most 30 seconds for the other process.
    "JAX_ENABLE_COMPILATION_CACHE": "0",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
    "JAX_NUM_PROCESSES": "2",
  }
  command = [
    sys.executable,
    str(ROOT / "main.py"),
    "--config=configs/standard.py:dataset=digits,smoke",
    "--config.train.epochs=100000",
    "--config.train.checkpoint_every=100000",
    f"--workdir={folder}",
  ]
  return [
    subprocess.Popen(
      command,
      cwd=ROOT,
      env=shared | {"JAX_PROCESS_ID": str(index)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for index in range(2)
  ]


def wait_for_training(
  folder: pathlib.Path, processes: list[subprocess.Popen]
) -> None:
  """Waits until steps have been logged.

  Args:
    folder: the run's folder.
    processes: the run's processes.

  Raises:
    RuntimeError: with a process's output, if it exits before that.
  """
  log = folder / "metrics.jsonl"
  while not log.exists() or not log.stat().st_size:
    for process in processes:
      if process.poll() is not None:
        raise RuntimeError(process.communicate()[0])
    time.sleep(0.1)


if __name__ == "__main__":
  main()
