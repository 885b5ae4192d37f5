"""CIFAR-10.1: the right files, and all images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.evaluation import cifar10_1
from tests import found

SIZE = 2021
TEST = np.zeros((5, 32, 32, 3), np.uint8), np.arange(5, dtype=np.int32)


@jax.tree_util.Partial
def model(images):
  """Predicts the class that the first pixel contains."""
  first = jnp.round(255 * images[:, 0, 0, 0])
  return jax.nn.one_hot(first.astype(int), 10)


@pytest.fixture
def folder(tmp_path):
  labels = np.arange(SIZE) % 10
  images = np.zeros((SIZE, 32, 32, 3), np.uint8)
  images[:, 0, 0, 0] = labels
  images[:100, 0, 0, 0] += 1  # and label 9 becomes 10, which is no class
  for version, size in (("v4", SIZE), ("v6", 2000)):
    np.save(tmp_path / f"cifar10.1_{version}_data.npy", images[-size:])
    # The original files contain int32 (v6) and int64 (v4).
    kind = np.int64 if version == "v4" else np.int32
    path = tmp_path / f"cifar10.1_{version}_labels.npy"
    np.save(path, labels[-size:].astype(kind))
  return tmp_path


@pytest.mark.parametrize(
  ("version", "correct"), [("v4", SIZE - 100), ("v6", 2000 - 79)]
)
def test_every_image_is_counted_once(folder, version, correct):
  evaluator = cifar10_1.Evaluator(str(folder), version, 512)
  evaluator.check(found.batch(*TEST))
  run, _ = found.collect(evaluator, model, *TEST)
  row = found.row(run, "cifar10_1", test_set=f"CIFAR-10.1 {version}")
  assert (row.correct_count, row.total) == (correct, cifar10_1.SIZES[version])
  assert set(row.values) == {"rms", "ece", "nll", "brier"}


def test_without_a_folder_nothing_is_evaluated():
  evaluator = cifar10_1.Evaluator("", "v6", 512)
  evaluator.check(found.batch(*TEST))
  run, _ = found.collect(evaluator, model, *TEST)
  assert run.rows == ()


def test_version_of_another_set():
  with pytest.raises(ValueError, match=r"version is 'v5': give v4 or v6"):
    cifar10_1.Evaluator("", "v5", 512)


def test_unusable_files_and_test_sets(folder):
  make = functools.partial(cifar10_1.Evaluator, str(folder), "v6", 512)
  evaluator = make()
  small = np.zeros((5, 28, 28, 3), np.uint8), TEST[1]
  with pytest.raises(ValueError, match=r"\[28, 28, 3\].* trained on CIFAR-10"):
    evaluator.check(found.batch(*small))
  with pytest.raises(ValueError, match="labels up to 14"):
    evaluator.check(found.batch(TEST[0], TEST[1] + 10))
  path = folder / "cifar10.1_v6_labels.npy"
  np.save(path, np.arange(2000))
  with pytest.raises(ValueError, match="label 10 at index 10 is outside 0..9"):
    make()
  path.write_bytes(path.read_bytes()[:1000])
  with pytest.raises(
    ValueError, match="damaged .* get the files from github.com/mod"
  ):
    make()
  path.unlink()
  with pytest.raises(FileNotFoundError, match="v6_labels.npy is missing"):
    make()


def test_files_of_another_version(folder):
  data = folder / "cifar10.1_v6_data.npy"
  data.write_bytes((folder / "cifar10.1_v4_data.npy").read_bytes())
  with pytest.raises(ValueError, match=r"are \[2021, 32, 32, 3\], expected"):
    cifar10_1.Evaluator(str(folder), "v6", 512)
