r"""Resident memory of a training run with thousands of dispatches.

    python -m benchmarks.memory

Uses the real loop (`training.loop.fit`: data, metrics, logging, checkpoints).
The network and the images are small, so that a memory leak becomes visible
quickly: the rows of a dispatch take 24 KiB, and the state 0.6 MiB.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import resource
import tempfile
from typing import Any

import jax
import numpy as np

from configs import standard
from ram_jax import experiment
from ram_jax.data import digits
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.training import loop as train

BATCH, SIZE = 8, 64  # images per step and in the data set


def main() -> None:
  """Prints memory use with data on the devices and with streamed data."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--dispatches", type=int, default=2000)
  flags = parser.parse_args()
  for streamed in (False, True):
    rows = measure(flags.dispatches, streamed)
    every = max(flags.dispatches // 10, 1)
    resident, on_devices = zip(*rows[every - 1 :: every], strict=True)
    found = {"resident": resident, "on devices": on_devices}
    print(json.dumps({"streamed": streamed, "every": every} | found))


def measure(dispatches: int, streamed: bool) -> list[tuple[float, float]]:
  """Trains and measures memory before every dispatch.

  Args:
    dispatches: number of dispatches, a multiple of 8 (an epoch).
    streamed: whether data is streamed from the host or stored on the devices.

  Returns:
    In MiB, before each dispatch: resident memory of this process, and the size
    of the arrays on its devices (which the former includes on a CPU).
  """
  config = standard.get_config("model=wrn_10_1")
  config.train.update(
    batch_size=BATCH,
    epochs=dispatches * BATCH // SIZE,
    checkpoint_every=50,
    steps_per_dispatch=1,
    device_data_gib=0.0 if streamed else 1.0,
  )
  config = experiment.resolve(config)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (SIZE, 32, 32, 3), np.uint8)
  data = {"images": images, "labels": rng.integers(0, 10, SIZE, np.int32)}
  training = train.build(config, digits.Source(), images.shape)
  found = []

  def dispatch(*arguments: Any) -> Any:
    found.append((resident(), on_devices()))
    return training.dispatch(*arguments)

  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    with contextlib.closing(Checkpoints(folder / "checkpoints")) as saved:
      watched = dataclasses.replace(training, dispatch=dispatch)
      train.fit(config, watched, data, folder, saved)
  return found


def resident() -> float:
  """Resident memory of this process in MiB (Linux only)."""
  pages = int(
    pathlib.Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
  )
  return round(pages * resource.getpagesize() / 2**20, 1)


def on_devices() -> float:
  """Total size of the live arrays on the devices in MiB."""
  return round(sum(x.nbytes for x in jax.live_arrays()) / 2**20, 2)


if __name__ == "__main__":
  main()
