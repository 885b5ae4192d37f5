r"""Images per second of the 19 corruptions, and of the original code.

    taskset -c 0 python -m benchmarks.corruptions --original=FILE.py

FILE.py is the original, `make_cifar_c.py` of hendrycks/robustness up to its
list of corruptions, adapted to the installed libraries. Both corrupt uint8
images at five severities, the original only the first --theirs of them. The
original runs in one process per available core.
"""

import argparse
import functools
import importlib.util
import multiprocessing
import os
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import timing
from ram_jax.corruptions import NAMES, SEVERITIES
from ram_jax.data.generated import Generator


def main() -> None:
  """Times both sides for each corruption and for an equal mix of all."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--original", required=True, help="FILE.py")
  parser.add_argument("--images", type=int, default=256)
  parser.add_argument(
    "--theirs", type=int, default=32, help="images for the original"
  )
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  cores = len(os.sched_getaffinity(0))
  images = timing.pictures(flags.images)
  generator = Generator(images, np.zeros(len(images), np.int32), 0, "", 512)
  # Spawned, because forking a process that has JAX's threads may hang.
  with multiprocessing.get_context("spawn").Pool(cores) as pool:
    rows = {}
    for name in NAMES:
      sides = {
        "original": functools.partial(
          theirs, pool, flags.original, name, images[: flags.theirs]
        ),
        "ours": functools.partial(ours, generator, name),
      }
      found = timing.compare(sides, flags.repeats)
      counts = {"original": flags.theirs, "ours": flags.images}
      rows[name] = {
        side: len(SEVERITIES) * counts[side] / found[side]["seconds"]
        for side in sides
      }
      rows[name]["ratio"] = found["ours"]["ratio"] * flags.images / flags.theirs
      print(name, {k: round(v, 1) for k, v in rows[name].items()}, flush=True)
  mixed = {
    side: statistics.harmonic_mean(row[side] for row in rows.values())
    for side in ("original", "ours")
  }
  mixed["ratio"] = mixed["ours"] / mixed["original"]
  result = {"images_per_second": rows, "mixed": mixed}
  timing.write(f"corruptions_{cores}_cores", result, flags.out)


def ours(generator: Generator, name: str) -> list[Any]:
  """Generates one corruption at every severity with ram_jax.

  Args:
    generator: ram_jax's generator.
    name: name of the corruption.

  Returns:
    Images by severity.
  """
  return [generator.load(name, severity)[0] for severity in SEVERITIES]


def theirs(pool: Any, path: str, name: str, images: np.ndarray) -> list[Any]:
  """Generates one corruption with the original code in a process pool.

  Args:
    pool: the process pool.
    path: file of the original code.
    name: name of the corruption.
    images: uint8 [N,32,32,3].

  Returns:
    The corrupted images of each process.
  """
  parts = np.array_split(images, len(os.sched_getaffinity(0)))
  work = functools.partial(corrupt_part, path, name)
  return pool.map(work, parts, chunksize=1)


def corrupt_part(path: str, name: str, images: np.ndarray) -> np.ndarray:
  """Applies the original code to images at all severities.

  Args:
    path: file of the original code.
    name: name of the corruption.
    images: uint8 [N,32,32,3].

  Returns:
    uint8 [5N,32,32,3].
  """
  function = getattr(original(path), name)
  made = [
    np.uint8(function(Image.fromarray(image), severity))
    for severity in SEVERITIES
    for image in images
  ]
  return np.stack(made)


@functools.cache
def original(path: str) -> Callable:
  """Imports the module of the original code.

  Args:
    path: file of the module.

  Returns:
    The module.
  """
  spec = importlib.util.spec_from_file_location("original", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  import cv2  # a dependency of the original

  cv2.setNumThreads(1)  # each process of the pool has one core
  return module


if __name__ == "__main__":
  main()
