"""Corruptions match the original in distribution and in accuracy.

Random ones are compared with reruns of the original. The statistics of the
reruns are committed in `golden/reruns*.json`, which say how they were made;
`parity_table.py` prints how far apart the two are.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax import corruptions
from ram_jax.data import frost
from ram_jax.evaluation import clean
from ram_jax.interop import names, weights
from ram_jax.models import wide_resnet
from ram_jax.models.classifier import Classifier
from tests.corruptions import change_statistics
from tests.corruptions.reference import corrupt

ROOT = pathlib.Path(__file__).resolve().parents[2]

FOLDER = pathlib.Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "reruns.json").read_text())
C_BAR = json.loads((FOLDER / "reruns_c_bar.json").read_text())
pytestmark = pytest.mark.usefixtures("quick_compilation")
REFERENCE = ROOT.parent / "shared" / "data" / "cifar10c_reference.npz"
WEIGHTS = "docs/results/cifar10_jpeg_wrn_10_1/weights/standard.safetensors"
RANDOM = sorted(GOLDEN["corruptions"])
RERUN = [*RANDOM, *sorted(C_BAR["corruptions"])]
CERTAIN = sorted(set(corruptions.CORRUPTIONS) - set(RANDOM))
DRAWS = 20
SEVERITIES = (1, 2, 3, 4, 5)
LIMIT = 4  # combined standard errors
SLOW = pytest.mark.slow


def some(name):
  """Severities that are not slow; together they take every branch.

  At severity 3, `test_severities_on_gray` of noise_test and
  `test_equals_the_original_for_given_draws` of weather_test see other
  parameters; the three named below are not in these tests.
  """
  if name in corruptions.C_BAR:  # compared for given draws at all severities
    return (5,)
  alone = name in ("elastic_transform", "glass_blur", "motion_blur")
  return (1, 3, 5) if alone else (1, 5)


photographs = functools.cache(frost.load)


@functools.cache
def reference():
  with np.load(REFERENCE) as file:
    return dict(file)


@functools.cache
def corrupted(name, severity):
  """Independent draws, uint8 [DRAWS,N,H,W,C]; shared by all tests."""
  images = reference()["images"]
  count = DRAWS if name in RERUN else 1
  assets = photographs() if name == "frost" else None
  keys = jax.random.split(jax.random.key(severity), count * len(images))
  batch = jnp.tile(images, (count, 1, 1, 1)) / jnp.float32(255)
  made = corrupt(name, severity, keys, batch, assets)
  levels = np.round(255 * np.asarray(made)).astype(np.uint8)
  return levels.reshape(count, *images.shape)


def draws(name, severity):
  """Statistics [DRAWS, statistics] of independent draws."""
  images = reference()["images"]
  return np.stack(
    [
      change_statistics.measure(images, draw)
      for draw in corrupted(name, severity)
    ]
  )


def distances(name, severity):
  """Differences of the means, in combined standard errors."""
  made = GOLDEN if name in RANDOM else C_BAR
  golden = made["corruptions"][name][severity - 1]
  actual = draws(name, severity)
  count = made["reruns"]
  variance = (count - 1) * np.square(golden["deviation"])
  variance += (DRAWS - 1) * actual.var(axis=0, ddof=1)
  variance *= (1 / count + 1 / DRAWS) / (count + DRAWS - 2)  # pooled
  # The committed numbers have six digits.
  variance += (1e-6 * np.abs(golden["mean"])) ** 2
  return (actual.mean(axis=0) - golden["mean"]) / np.sqrt(variance)


@pytest.fixture(scope="module")
def data(shared_data):
  """The original's images; skips if missing."""
  if not REFERENCE.exists():
    pytest.skip(f"the original's images are not at {REFERENCE}")
  return reference()


@pytest.fixture
def can_make(data):
  """Skips a corruption whose photographs are not installed."""

  def check(name):
    if name == "frost":
      try:
        photographs()
      except ValueError as error:
        pytest.skip(str(error))

  return check


@pytest.fixture(scope="module")
def predict(data):
  """Images uint8 [...,N,H,W,C] to correct bool [...,N] of a network."""
  file = weights.read(ROOT / WEIGHTS)
  module = wide_resnet.Model(10, *file.normalization, depth=10, widen_factor=1)
  model = Classifier(
    *names.from_torch(module, (32, 32, 3), file.tensors), module
  )

  def correct(images):
    outer = images.shape[:-3]
    images = images.reshape(-1, *images.shape[-3:])
    labels = np.tile(data["labels"].astype(np.int32), np.prod(outer[:-1]))
    batch = {"images": images, "labels": labels}
    return clean.per_example(model, batch, 256)["correct"].reshape(outer)

  return correct


@pytest.mark.parametrize(
  ("name", "severity"),
  [
    pytest.param(name, severity, marks=[SLOW] * (severity not in some(name)))
    for name in RERUN
    for severity in SEVERITIES
  ],
)
def test_distribution_equals_the_original(name, severity, can_make):
  can_make(name)
  found = distances(name, severity)
  far = {
    statistic: round(float(distance), 1)
    for statistic, distance in zip(GOLDEN["statistics"], found, strict=True)
    if not abs(distance) <= LIMIT
  }
  assert not far


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=SLOW)])
@pytest.mark.parametrize("name", RANDOM)
def test_accuracy_equals_that_on_the_original(
  data, predict, can_make, name, every
):
  can_make(name)
  severities = SEVERITIES if every else some(name)
  chosen = [severity - 1 for severity in severities]
  expected = predict(data[name][chosen]).sum()
  made = np.stack([corrupted(name, severity) for severity in severities])
  counts = predict(made).sum(axis=(0, 2))  # by draw
  spread = counts.std(ddof=1) * (1 + 1 / DRAWS) ** 0.5
  # Theirs is one more draw; Student's t with 19 degrees, p = 0.001.
  assert abs(expected - counts.mean()) <= 3.9 * max(spread, 1)


# Slow, because `test_equals_the_original` of blur_test and of digital_test
# already shows that levels differ by at most one.
@pytest.mark.slow
@pytest.mark.parametrize("name", CERTAIN)
def test_predictions_on_deterministic_corruptions_equal_the_original(
  data, predict, name
):
  made = np.stack([corrupted(name, severity)[0] for severity in SEVERITIES])
  # One level is no other image: at most one of 160 is decided otherwise.
  assert np.sum(predict(made) != predict(data[name])) <= 1


def test_statistics_distinguish_severities():
  golden = GOLDEN["corruptions"]["gaussian_noise"]
  apart = np.subtract(golden[3]["mean"], golden[4]["mean"])
  error = np.hypot(golden[3]["deviation"], golden[4]["deviation"])
  assert abs(apart[0] / error[0]) * np.sqrt(DRAWS) > LIMIT
  assert list(change_statistics.NAMES) == GOLDEN["statistics"]


def main():
  images, statistics = len(reference()["images"]), len(GOLDEN["statistics"])
  print(
    "Differences between actual, 20 draws, and the original's reruns, on "
    f"{images} images: the largest over {statistics} "
    "statistics, in combined standard errors, at severities 1 to 5; and the "
    "mean PSNR at severity 5, actual and the original's.\n"
  )
  print(
    "| corruption | 1 | 2 | 3 | 4 | 5 | PSNR |\n|---|---|---|---|---|---|---|"
  )
  golden = GOLDEN["corruptions"] | C_BAR["corruptions"]
  for name in golden:
    rows = [distances(name, s) for s in SEVERITIES]
    cells = [f"{np.abs(row).max():.1f}" for row in rows]
    actual = draws(name, 5)[:, 0].mean()
    expected = golden[name][4]["mean"][0]
    cells.append(f"{actual:.2f}, {expected:.2f} dB")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)
