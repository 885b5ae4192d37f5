r"""Measures a step's communication and overhead on several simulated devices.

    python -m benchmarks.scaling --model=wrn_10_1

Simulated devices share the cores, so a comparison with one device shows the
overhead of dividing the work, not a speedup.
"""

import argparse
import math
import os
import pathlib
import re
import subprocess
import sys

from benchmarks import timing

ROOT = pathlib.Path(__file__).resolve().parents[1]
COUNTS = (1, 2, 4, 8)
BYTES = {"f32": 4, "bf16": 2, "f64": 8, "s32": 4, "u32": 4, "pred": 1}
CHILD = """
import sys
from benchmarks import our_step, scaling, timing
step = our_step.build("robust_augmix", sys.argv[1], int(sys.argv[2]))
found = timing.compare({"step": step.run}, int(sys.argv[3]))
print(found["step"]["seconds"], scaling.communicated(step.compiled_text()))
"""


def main() -> None:
  """Runs a process for each number of devices."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--model", default="wrn_10_1")
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  rows = {}
  for count in COUNTS:
    seconds, sent = run(count, flags.model, flags.batch, flags.repeats)
    rows[count] = {"seconds": seconds, "bytes_a_step": sent}
    rows[count]["over_one_device"] = seconds / rows[1]["seconds"]
    print(count, rows[count], flush=True)
  result = {"model": flags.model, "batch": flags.batch, "by_count": rows}
  timing.write("scaling", result, flags.out)


def run(count: int, model: str, batch: int, repeats: int) -> tuple[float, int]:
  """Times a step in a new process with simulated devices.

  Args:
    count: number of devices.
    model: short name of the network.
    batch: images per step, over all devices.
    repeats: number of rounds.

  Returns:
    Seconds per step, and bytes that each device contributes to all-reduces.
  """
  flag = f"--xla_force_host_platform_device_count={count}"
  done = subprocess.run(
    [sys.executable, "-c", CHILD, model, str(batch), str(repeats)],
    env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flag},
    capture_output=True,
    text=True,
    check=True,
  )
  seconds, sent = done.stdout.split()[-2:]
  return float(seconds), int(sent)


def communicated(text: str) -> int:
  """Counts the bytes of a program's reductions over devices.

  Args:
    text: HLO text of the compiled program.

  Returns:
    The sum over its all-reduce instructions.
  """
  total = 0
  for line in text.splitlines():
    found = re.search(r"= (.*?) all-reduce(-start)?\(", line)
    for dtype, shape in re.findall(
      r"(\w+)\[([\d,]*)\]", found[1] if found else ""
    ):
      total += BYTES[dtype] * math.prod(
        map(int, filter(None, shape.split(",")))
      )
  return total


if __name__ == "__main__":
  main()
