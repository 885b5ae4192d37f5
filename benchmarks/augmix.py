r"""Images a second of AugMix, beside AugMix's original code on Pillow.

    taskset -c 0 python -m benchmarks.augmix --original=FOLDER
    taskset -c 0 python -m benchmarks.augmix --baseline=CHECKOUT --executions

FOLDER has `augmentations.py` of google-research/augmix: the operations, and how
they are drawn. The mix around them is written as in that project's `cifar.py`,
without its normalisation, for one process and no PyTorch: images stay Pillow's
along a chain. Both sides turn uint8 images into floats.

CHECKOUT is another version of this project. `--executions` also times those of
`ram_jax/augment/execution.py` that are made for other platforms.
"""

import argparse
import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import numpy as np
from PIL import Image

from benchmarks import timing
from ram_jax.augment import execution
from ram_jax.augment.augmix import Augment
from ram_jax.image.color import dequantise


def main() -> None:
  """Times both sides at several batch sizes."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--original", help="FOLDER; without it ours alone")
  parser.add_argument("--baseline", help="CHECKOUT of another version")
  parser.add_argument("--executions", action="store_true")
  parser.add_argument("--batches", default="128,512,1024")
  parser.add_argument("--repeats", type=int, default=7)
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  operations = flags.original and original(flags.original)
  programs = {}
  if flags.baseline:
    programs["baseline"] = program(baseline(flags.baseline))
  programs["ours"] = program(Augment())
  if flags.executions:
    for name, run in EXECUTIONS.items():
      programs[name] = program(Augment(), run)
  rows = {}
  for batch in map(int, flags.batches.split(",")):
    images = timing.pictures(batch)
    sides = {}
    if operations:
      sides["original"] = functools.partial(theirs, operations, images)
    for name, run in programs.items():
      sides[name] = functools.partial(run, jax.numpy.asarray(images))
    found = timing.compare(sides, flags.repeats)
    rows[batch] = {
      side: batch / row["seconds"] for side, row in found.items()
    } | {"ratio": found["ours"]["ratio"]}
  cores = len(os.sched_getaffinity(0))
  kind = "augmix_executions" if flags.executions else "augmix"
  result = {"images_per_second": rows}
  timing.write(
    f"{kind}_{jax.default_backend()}_{cores}_cores", result, flags.out
  )


def program(augment: Any, run: Callable = execution.run) -> Callable:
  """AugMix of uint8 images, compiled, with new draws at every call.

  Args:
    augment: of this version or of another.
    run: what executes the chains of this version.

  Returns:
    The function.
  """

  @jax.jit
  def compiled(key: jax.Array, images: jax.Array) -> jax.Array:
    keys = jax.random.split(key, len(images))
    with mock.patch.object(execution, "run", run):
      return augment(keys, dequantise(images))

  count = iter(range(10**6))
  return lambda images: compiled(jax.random.key(next(count)), images)


# With the arguments of `execution.run`.
EXECUTIONS = {
  "one_by_one": lambda operations, _, *chains: execution.one_by_one(
    operations, *chains
  ),
  "dense": lambda operations, _, *chains: execution.dense(operations, *chains),
  "table_and_warp": lambda _, severity, *chains: execution.table_and_warp(
    severity, *chains
  ),
}


def baseline(folder: str) -> Any:
  """Another version's AugMix.

  Args:
    folder: its checkout.

  Returns:
    Its `Augment()`.
  """
  kept = {
    name: sys.modules.pop(name)
    for name in list(sys.modules)
    if name.partition(".")[0] == "ram_jax"
  }
  with mock.patch.object(sys, "path", [folder, *sys.path]):
    found = importlib.import_module("ram_jax.augment.augmix")
  sys.modules.update(kept)
  return found.Augment()


def original(folder: str) -> list[Callable]:
  """The original's nine operations.

  Args:
    folder: where its `augmentations.py` is.

  Returns:
    Functions (image, severity) -> image.
  """
  sys.path.insert(0, folder)
  return importlib.import_module("augmentations").augmentations


def theirs(operations: list[Callable], images: np.ndarray) -> np.ndarray:
  """A loop over images, as a loader's process has it.

  Args:
    operations: from `original`.
    images: uint8 [N,32,32,3].

  Returns:
    Float images [N,32,32,3].
  """
  return np.stack([mixed(operations, Image.fromarray(x)) for x in images])


def mixed(operations: list[Callable], image: Image.Image) -> np.ndarray:
  """AugMix of one image.

  Args:
    operations: from `original`.
    image: of Pillow.

  Returns:
    Floats [32,32,3].
  """
  weights = np.float32(np.random.dirichlet([1] * 3))
  share = np.float32(np.random.beta(1, 1))
  mix = np.zeros((32, 32, 3), np.float32)
  for weight in weights:
    chain = image.copy()
    for _ in range(np.random.randint(1, 4)):
      chain = np.random.choice(operations)(chain, 3)
    mix += weight * (np.asarray(chain, np.float32) / 255)
  return (1 - share) * (np.asarray(image, np.float32) / 255) + share * mix


if __name__ == "__main__":
  main()
