r"""Images per second of AugMix, and of its original code on Pillow.

    taskset -c 0 python -m benchmarks.augmix --original=FOLDER
    python -m benchmarks.augmix --baseline=CHECKOUT --executions=dense

`benchmarks/pillow_augmix.py` describes FOLDER; the original loops over images
in one process. Both sides convert uint8 images to floats. CHECKOUT is another
version of this project. `--executions` also times implementations in
`ram_jax/augment/execution.py` that are intended for other platforms.
"""

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax

from benchmarks import pillow_augmix, timing, versions
from ram_jax.augment import execution
from ram_jax.augment.augmix import Augment
from ram_jax.image.color import dequantize


def main() -> None:
  """Times both sides at several batch sizes."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--original", help="FOLDER; default: only time ram_jax")
  parser.add_argument("--baseline", help="CHECKOUT of another version")
  parser.add_argument("--executions", default="", help=", ".join(EXECUTIONS))
  parser.add_argument("--batches", default="128,512,1024")
  parser.add_argument("--repeats", type=int, default=7)
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  programs = {}
  if flags.baseline:
    old = versions.Checkout(flags.baseline)
    augment = old.load("ram_jax.augment.augmix").Augment()
    programs["baseline"] = program(old.bound(augment))
  programs["ours"] = program(Augment())
  for name in filter(None, flags.executions.split(",")):
    programs[name] = program(Augment(), EXECUTIONS[name])
  rows = {}
  for batch in map(int, flags.batches.split(",")):
    images = timing.pictures(batch)
    sides = {}
    if flags.original:
      sides["original"] = functools.partial(
        pillow_augmix.views, flags.original, images
      )
    for name, run in programs.items():
      sides[name] = functools.partial(run, jax.numpy.asarray(images))
    found = timing.compare(sides, flags.repeats)
    rows[batch] = {
      side: batch / row["seconds"] for side, row in found.items()
    } | {"ratio": found["ours"]["ratio"]}
    name = "augmix_executions" if flags.executions else "augmix"
    name = f"{name}_{timing.device()}"
    if jax.default_backend() == "cpu":
      name += f"_{len(os.sched_getaffinity(0))}_cores"
    timing.write(name, {"images_per_second": rows}, flags.out)


def program(augment: Any, run: Callable = execution.run) -> Callable:
  """Compiles AugMix of uint8 images, with new random draws in every call.

  Args:
    augment: the augmentation of this or another version.
    run: implementation that executes the chains of this version.

  Returns:
    The compiled function.
  """

  @jax.jit
  def compiled(key: jax.Array, images: jax.Array) -> jax.Array:
    keys = jax.random.split(key, len(images))
    with mock.patch.object(execution, "run", run):
      return augment(keys, dequantize(images))

  count = iter(range(10**6))
  return lambda images: compiled(jax.random.key(next(count)), images)


# Implementations with the signature of `execution.run`.
EXECUTIONS = {
  "one_by_one": lambda operations, _, *chains: execution.one_by_one(
    operations, *chains
  ),
  "dense": lambda operations, _, *chains: execution.dense(operations, *chains),
  "table_and_warp": lambda _, severity, *chains: execution.table_and_warp(
    severity, *chains
  ),
}


if __name__ == "__main__":
  main()
