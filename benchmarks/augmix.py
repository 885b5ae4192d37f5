r"""Images a second of AugMix, beside AugMix's original code on Pillow.

    taskset -c 0 python -m benchmarks.augmix --original=FOLDER

FOLDER has `augmentations.py` of google-research/augmix: the operations, and how
they are drawn. The mix around them is written as in that project's `cifar.py`,
without its normalisation, for one process and no PyTorch: images stay Pillow's
along a chain. Both sides turn uint8 images into floats.
"""

import argparse
import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks import timing
from ram_jax.augment.augmix import Augment
from ram_jax.image.color import dequantise


def main() -> None:
  """Times both sides at several batch sizes."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--original", help="FOLDER; without it ours alone")
  parser.add_argument("--batches", default="128,512,1024")
  parser.add_argument("--repeats", type=int, default=7)
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  rows = {}
  for batch in map(int, flags.batches.split(",")):
    images = timing.pictures(batch)
    sides = {}
    if flags.original:
      operations = original(flags.original)
      sides["original"] = functools.partial(theirs, operations, images)
    sides["ours"] = functools.partial(ours(), jax.numpy.asarray(images))
    found = timing.compare(sides, flags.repeats)
    rows[batch] = {
      side: batch / row["seconds"] for side, row in found.items()
    } | {"ratio": found["ours"]["ratio"]}
  cores = len(os.sched_getaffinity(0))
  result = {"images_per_second": rows}
  timing.write(
    f"augmix_{jax.default_backend()}_{cores}_cores", result, flags.out
  )


def ours() -> Any:
  """uint8 images to AugMix's, compiled, with new draws at every call."""
  augment = Augment()

  @jax.jit
  def run(key: jax.Array, images: jax.Array) -> jax.Array:
    return augment(jax.random.split(key, len(images)), dequantise(images))

  count = iter(range(10**6))
  return lambda images: run(jax.random.key(next(count)), images)


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
