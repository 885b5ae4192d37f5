"""Random corruptions are distributed as the original's, rerun 20 times.

The statistics of the reruns are committed in `golden/reruns.json`, which says
how they were made; `parity_table.py` prints how far apart the two are.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax import corruptions
from ram_jax.data import frost
from tests.corruptions import change_statistics

ROOT = pathlib.Path(__file__).resolve().parents[2]

GOLDEN = json.loads(
  (pathlib.Path(__file__).parent / "golden" / "reruns.json").read_text()
)
REFERENCE = "cifar10c_reference.npz"
DRAWS = 20
SEVERITIES = (1, 2, 3, 4, 5)
LIMIT = 4  # combined standard errors


def draws(name, severity, images, assets):
  """Our statistics [DRAWS, statistics] of independent draws."""
  keys = jax.random.split(jax.random.key(severity), DRAWS * len(images))
  batch = jnp.tile(images, (DRAWS, 1, 1, 1)) / jnp.float32(255)
  corrupted = corruptions.corrupt(name, severity, keys, batch, assets)
  levels = np.round(255 * np.asarray(corrupted)).astype(np.uint8)
  return np.stack(
    [
      change_statistics.measure(images, draw)
      for draw in np.split(levels, DRAWS)
    ]
  )


def distances(name, severity, images, assets):
  """Differences of the means, in combined standard errors."""
  golden = GOLDEN["corruptions"][name][severity - 1]
  ours = draws(name, severity, images, assets)
  variance = np.square(golden["deviation"]) / GOLDEN["reruns"]
  variance += ours.var(axis=0, ddof=1) / DRAWS
  # The committed numbers have six digits.
  variance += (1e-6 * np.abs(golden["mean"])) ** 2
  return (ours.mean(axis=0) - golden["mean"]) / np.sqrt(variance)


@pytest.fixture(scope="module")
def images(shared_data):
  if not (shared_data / REFERENCE).exists():
    pytest.skip(f"the reference images are not at {shared_data / REFERENCE}")
  return np.load(shared_data / REFERENCE)["images"]


def pictures(name):
  """What a corruption takes beside the image, or a skip."""
  if name != "frost":
    return None
  try:
    return frost.load()
  except ValueError as error:
    pytest.skip(str(error))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", sorted(GOLDEN["corruptions"]))
def test_distribution_is_the_originals(name, severity, images):
  found = distances(name, severity, images, pictures(name))
  far = {
    statistic: round(float(distance), 1)
    for statistic, distance in zip(GOLDEN["statistics"], found, strict=True)
    if not abs(distance) <= LIMIT
  }
  assert not far


def test_the_test_tells_severities_apart(images):
  golden = GOLDEN["corruptions"]["gaussian_noise"]
  apart = np.subtract(golden[3]["mean"], golden[4]["mean"])
  error = np.hypot(golden[3]["deviation"], golden[4]["deviation"])
  assert abs(apart[0] / error[0]) * np.sqrt(DRAWS) > LIMIT
  assert list(change_statistics.NAMES) == GOLDEN["statistics"]


def main():
  path = ROOT.parent / "shared" / "data" / REFERENCE
  images = np.load(path)["images"]
  print(
    "Differences between ours, 20 draws, and the original's, 20 reruns, on "
    f"{len(images)} images: the largest over {len(GOLDEN['statistics'])} "
    "statistics, in combined standard errors, at severities 1 to 5; and the "
    "mean PSNR at severity 5, ours and the original's.\n"
  )
  print(
    "| corruption | 1 | 2 | 3 | 4 | 5 | PSNR |\n|---|---|---|---|---|---|---|"
  )
  for name in GOLDEN["corruptions"]:
    assets = frost.load() if name == "frost" else None
    rows = [distances(name, s, images, assets) for s in SEVERITIES]
    cells = [f"{np.abs(row).max():.1f}" for row in rows]
    ours = draws(name, 5, images, assets)[:, 0].mean()
    theirs = GOLDEN["corruptions"][name][4]["mean"][0]
    cells.append(f"{ours:.2f}, {theirs:.2f} dB")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)
