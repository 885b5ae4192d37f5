r"""Times the start of a process until its first dispatch.

    python -m benchmarks.startup --model=resnet18

Every run is a new process that does what `main.py` does up to the first
dispatch, with an empty (cold) or a filled (warm) compilation cache.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import timing

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHILD = """
import sys, time
import main  # everything that the program imports
import jax
from benchmarks import our_step
jax.config.update("jax_compilation_cache_dir", sys.argv[3])
step = our_step.build("robust_augmix", sys.argv[1], int(sys.argv[2]))
step.run()
print(time.time(), flush=True)
"""


def main() -> None:
  """Times cold and warm starts."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--model", default="resnet18")
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  taken = {"cold": [], "warm": []}
  for _ in range(flags.repeats):
    with tempfile.TemporaryDirectory() as cache:
      for name in taken:
        taken[name].append(start(flags.model, flags.batch, cache))
        print(name, round(taken[name][-1], 1), flush=True)
  seconds = {name: statistics.median(times) for name, times in taken.items()}
  pairs = zip(taken["warm"], taken["cold"], strict=True)
  result = {
    "model": flags.model,
    "seconds": seconds,
    "warm_over_cold": statistics.median(a / b for a, b in pairs),
  }
  timing.write("startup", result, flags.out)


def start(model: str, batch: int, cache: str) -> float:
  """Times the start of one process.

  Args:
    model: short name of the network.
    batch: batch size.
    cache: folder of the compilation cache.

  Returns:
    Seconds until it has issued its first dispatch.
  """
  begin = time.time()
  done = subprocess.run(
    [sys.executable, "-c", CHILD, model, str(batch), cache],
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    check=True,
  )
  return float(done.stdout.split()[-1]) - begin


if __name__ == "__main__":
  main()
