r"""Compares the same training on 1, 2, 4 and 8 devices, in float64.

    python -m benchmarks.devices

Devices are simulated on the CPU. Prints whether the views are bit-identical to
those of one device, and the relative distance between the states after three
steps of RobustAugMix.
"""

import json
import os

COUNTS = (1, 2, 4, 8)
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + f" --xla_force_host_platform_device_count={max(COUNTS)}"
)
os.environ["JAX_PLATFORMS"] = "cpu"

from typing import Any  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402

from configs import robust_augmix  # noqa: E402
from ram_jax import (  # noqa: E402
  experiment,
  parallel,
  plugins,
)
from ram_jax import keys as keys_lib  # noqa: E402
from ram_jax.data import digits  # noqa: E402
from ram_jax.image.color import dequantize  # noqa: E402
from ram_jax.training import loop as train  # noqa: E402

BATCH, STEPS = 8, 3
KEY = jax.random.key(7)


def main() -> None:
  """Prints the differences from one device for each number of devices."""
  jax.config.update("jax_enable_x64", True)
  rng = np.random.default_rng(0)
  data = {
    "images": rng.integers(0, 256, (STEPS * BATCH, 16, 16, 3), np.uint8),
    "labels": rng.integers(0, 10, STEPS * BATCH, np.int32),
  }
  config = robust_augmix.get_config("model=wrn_10_1")
  config.train.batch_size = BATCH
  config.method.attack.steps = 2
  config = experiment.resolve(config)
  first = None
  for count in COUNTS:
    found = augmented(config, data["images"][:BATCH], count)
    found = (found, trained(config, data, count))
    first = first or found
    same = np.array_equal(found[0], first[0])
    apart = np.linalg.norm(found[1] - first[1]) / np.linalg.norm(first[1])
    print(json.dumps({"on": count, "same": same, "distance": apart}))


def augmented(config: Any, images: np.ndarray, count: int) -> np.ndarray:
  """Crops, flips and augments a batch on several devices, as in a step.

  Args:
    config: the resolved config.
    images: uint8 [B,H,W,C].
    count: number of devices.

  Returns:
    Images [B,H,W,C].
  """
  crop_flip = plugins.build("augment", config.augment)
  augmix = plugins.build("augment", config.method.augment)

  def draw(
    state: jax.Array, data: np.ndarray, key: jax.Array, indices: jax.Array
  ) -> tuple[Any, Any]:
    positions = parallel.positions(len(indices))
    crop_keys, view_keys = keys_lib.split(keys_lib.per_example(key, positions))
    mine = crop_flip(crop_keys, dequantize(data[indices]))
    mixed = augmix(view_keys, mine)
    return state, jax.lax.all_gather(mixed, parallel.AXIS, tiled=True)

  shards = np.arange(len(images)).reshape(count, -1)
  dispatch = parallel.training_dispatch(draw, streamed=False)
  return np.asarray(dispatch(np.zeros(()), images, KEY, shards)[1])


def trained(config: Any, data: dict[str, np.ndarray], count: int) -> np.ndarray:
  """Trains for `STEPS` steps.

  Args:
    config: the resolved config.
    data: see `training.step.Program.differentiate`.
    count: number of devices.

  Returns:
    All numbers of the final state as one vector.
  """
  training = train.build(config, digits.Source(), data["images"].shape)
  state = jax.tree.map(np.asarray, training.create())
  settings = training.settings.replace(key=KEY)
  for step in range(STEPS):
    shards = step * BATCH + np.arange(BATCH).reshape(count, 1, -1)
    state, metrics = training.dispatch(state, data, settings, shards)
    jax.block_until_ready(metrics)
    state = jax.tree.map(np.asarray, state)
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state)])


if __name__ == "__main__":
  main()
