"""A trained network sees the original's corruptions and ours alike."""

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
from tests.corruptions.reruns_test import GOLDEN

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEIGHTS = "docs/results/cifar10_jpeg_wrn_10_1/weights/standard.safetensors"
RANDOM = set(GOLDEN["corruptions"])
DRAWS = 8
SEVERITIES = 5


@pytest.fixture(scope="module")
def reference(shared_data):
  path = shared_data / "cifar10c_reference.npz"
  if not path.exists():
    pytest.skip(f"the original's images are not at {path}")
  with np.load(path) as file:
    return dict(file)


@pytest.fixture(scope="module")
def predict(reference):
  """Images uint8 [N,...], N a multiple of 32, to correct bool [N]."""
  file = weights.read(ROOT / WEIGHTS)
  module = wide_resnet.Model(10, *file.normalization, depth=10, widen_factor=1)
  model = Classifier(
    *names.from_torch(module, (32, 32, 3), file.tensors), module
  )
  labels = reference["labels"].astype(np.int32)

  def correct(images):
    truth = np.tile(labels, len(images) // len(labels))
    batch = {"images": images, "labels": truth}
    return clean.per_example(model, batch, 256)["correct"]

  return correct


def ours(name, severity, images, draws):
  assets = None
  if name == "frost":
    try:
      assets = frost.load()
    except ValueError as error:
      pytest.skip(str(error))
  keys = jax.random.split(jax.random.key(severity), draws * len(images))
  batch = jnp.tile(images, (draws, 1, 1, 1)) / jnp.float32(255)
  made = corruptions.corrupt(name, severity, keys, batch, assets)
  return np.round(255 * np.asarray(made)).astype(np.uint8)


@pytest.mark.parametrize("name", sorted(corruptions.CORRUPTIONS))
def test_accuracy_is_that_on_the_originals(reference, predict, name):
  theirs = predict(reference[name].reshape(-1, 32, 32, 3))
  theirs = theirs.reshape(SEVERITIES, -1)
  draws = DRAWS if name in RANDOM else 1
  made = [
    ours(name, severity, reference["images"], draws)
    for severity in range(1, SEVERITIES + 1)
  ]
  found = predict(np.concatenate(made)).reshape(SEVERITIES, draws, -1)
  if draws == 1:
    # One level is no other image: at most one of 160 is decided otherwise.
    assert np.sum(found[:, 0] != theirs) <= 1
    return
  counts = found.sum(axis=(0, 2))  # by draw, of 160
  spread = counts.std(ddof=1) * (1 + 1 / draws) ** 0.5
  # Theirs is one more draw; Student's t with 7 degrees, p = 0.001.
  assert abs(theirs.sum() - counts.mean()) <= 5.4 * max(spread, 1)
