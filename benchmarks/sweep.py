r"""Times a sweep against one process per run, both with an empty cache.

    python -m benchmarks.sweep

Runs four methods with three seeds on a few digits, once with --mode=sweep and
once with twelve commands, which share an initially empty compilation cache. The
results must be bit-identical.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from benchmarks import timing

ROOT = pathlib.Path(__file__).resolve().parents[1]
METHODS = ("standard", "adversarial", "augmix", "robust_augmix")
CHOICES = "dataset=digits,smoke"


def main() -> None:
  """Times both and writes the ratios."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as name:
    base = pathlib.Path(name)
    alone = [
      (
        f"--config=configs/{method}.py:{CHOICES}",
        f"--config.seed={seed}",
        f"--workdir={base / 'alone' / f'{method}-{seed}'}",
      )
      for method in METHODS
      for seed in range(flags.seeds)
    ]
    sweep = (
      "--mode=sweep",
      f"--config=configs/sweeps/paper.py:{CHOICES},seeds={flags.seeds},epochs=1",
      f"--workdir={base / 'sweep'}",
    )
    found = {
      "sweep": run([sweep], base / "cache_sweep"),
      "alone": run(alone, base / "cache_alone"),
    }
    for method in METHODS:
      for seed in range(flags.seeds):
        one, two = (base / x / f"{method}-{seed}" for x in found)
        for file in ("correct.npz", "results.csv"):
          if (one / file).read_bytes() != (two / file).read_bytes():
            sys.exit(f"{method}-{seed}: {file} differs")
  ratios = {
    f"{what}_ratio": found["sweep"][what] / found["alone"][what]
    for what in found["sweep"]
  }
  timing.write("sweep", {"runs": len(alone)} | found | ratios, flags.out)


def run(
  commands: list[tuple[str, ...]], cache: pathlib.Path
) -> dict[str, float]:
  """Runs commands one after another.

  Args:
    commands: flags of main.py.
    cache: empty folder for the compilation cache.

  Returns:
    Wall time and CPU time in seconds.
  """
  began, used = time.monotonic(), _used()
  for command in commands:
    subprocess.run(
      [sys.executable, "main.py", *command],
      cwd=ROOT,
      env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
      stdout=subprocess.DEVNULL,
      check=True,
    )
  return {"wall": time.monotonic() - began, "processor": _used() - used}


def _used() -> float:
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
  main()
