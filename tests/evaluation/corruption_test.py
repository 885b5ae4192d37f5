"""Where corrupted images come from, and that each is counted once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax import corruptions
from ram_jax.data import generated
from ram_jax.evaluation import corruption
from tests import found

SIZE = 21  # not a multiple of the batch below
FIELDS = {
  "classes": 10,
  "folder": "",
  "tfds_dir": "",
  "generate": False,
  "seed": 0,
  "frost_folder": "",
  "names": (),
  "severities": (1, 2, 3, 4, 5),
  "batch_size": 8,
  "sets": ("cifar_c",),
}


def evaluator(**fields):
  return corruption.Evaluator(**FIELDS | fields)


@jax.tree_util.Partial
def model(images):
  """Predicts the decile of [0, 1] that contains the image's mean."""
  tenth = jnp.minimum(10 * jnp.mean(images, axis=(1, 2, 3)), 9).astype(int)
  return jax.nn.one_hot(tenth, 10)


@pytest.fixture
def data():
  labels = np.arange(SIZE, dtype=np.int32) % 10
  levels = (25.5 * labels + np.arange(SIZE)).astype(np.uint8)
  images = np.broadcast_to(levels[:, None, None, None], (SIZE, 32, 32, 3))
  return np.array(images), labels


def measure(built, data):
  built.check(found.batch(*data))
  return found.collect(built, model, *data)


def test_rows_by_name_and_severity(data, tmp_path):
  images, labels = data
  # Severity s keeps the first 21 - 4 s images and blackens the others.
  stacked = np.concatenate([images] * 5)
  for severity in range(1, 6):
    stacked[severity * SIZE - 4 * severity : severity * SIZE] = 0
  np.save(tmp_path / "fog.npy", stacked)
  np.save(tmp_path / "labels.npy", np.tile(labels, 5))
  run, pictures = measure(evaluator(folder=str(tmp_path)), data)
  label = "CIFAR-10-C (not the original files)"
  assert len(found.notes(run, "warning")) == 18  # missing ones
  assert found.notes(run, "info") == []
  for severity, row in enumerate(run.rows, start=1):
    settings = {"corruption": "fog", "severity": severity, "images": label}
    assert row.settings == settings
    black = np.arange(SIZE) >= SIZE - 4 * severity
    np.testing.assert_array_equal(row.correct, ~black | (labels == 0))
    assert row.total == SIZE and row.values["ece"] > 0
  assert len(run.rows) == 5
  # Of 21 images the last is kept at no severity, the first at each.
  np.testing.assert_array_equal(pictures["corruption/fog"], [images[0]] * 5)
  chosen = evaluator(folder=str(tmp_path), severities=(5, 2), names=("fog",))
  again, pictures = measure(chosen, data)
  assert pictures == {} and again.notes == ()
  for row, severity in zip(again.rows, (5, 2), strict=True):
    np.testing.assert_equal(vars(row), vars(run.rows[severity - 1]))


def test_generated_rows_are_those_of_the_generator(data):
  built = evaluator(
    generate=True, seed=4, names=("brightness",), severities=(2, 5)
  )
  run, _ = measure(built, data)
  text = "corrupted images: generated, not the published files"
  assert found.notes(run) == [text]
  label = "test images corrupted by ram_jax, seed 4"
  source = generated.Generator(*data, 4, "", 8)
  for row in run.rows:
    assert row.settings["images"] == label
    made, _ = source.load("brightness", row.settings["severity"])
    tenths = np.minimum(made.mean(axis=(1, 2, 3)) / 25.5, 9).astype(int)
    np.testing.assert_array_equal(row.correct, tenths == data[1])
    assert 0 < row.correct_count < SIZE  # of the brightest tenth


def test_sets_have_rows_of_their_own(data, tmp_path):
  sets = {"sets": ("cifar_c", "cifar_c_bar"), "severities": (2,)}
  names = ("brightness", "circular_motion_blur")
  built = evaluator(generate=True, names=names, **sets)
  rows = measure(built, data)[0].rows
  assert [(row.evaluator, row.settings["images"]) for row in rows] == [
    ("corruption", "test images corrupted by ram_jax, seed 0"),
    ("c_bar", "test images corrupted as in C-bar by ram_jax, seed 0"),
  ]
  source = generated.Generator(*data, 0, "", 8, set_name="cifar_c_bar")
  made, _ = source.load("circular_motion_blur", 2)
  tenths = np.minimum(made.mean(axis=(1, 2, 3)) / 25.5, 9).astype(int)
  np.testing.assert_array_equal(rows[1].correct, tenths == data[1])
  for folder, name in (("CIFAR-10-C", "fog"), ("CIFAR-10-C-Bar", "lines")):
    (tmp_path / folder).mkdir()
    np.save(tmp_path / folder / f"{name}.npy", np.concatenate([data[0]] * 5))
    np.save(tmp_path / folder / "labels.npy", np.tile(data[1], 5))
  run, _ = measure(evaluator(folder=str(tmp_path), **sets), data)
  assert [
    (row.evaluator, row.settings["corruption"], row.settings["images"])
    for row in run.rows
  ] == [
    ("corruption", "fog", "CIFAR-10-C (not the original files)"),
    ("c_bar", "lines", "CIFAR-10-C-Bar (from files)"),
  ]
  assert len(found.notes(run, "warning")) == 18 + 9  # missing ones


def test_corruptions_that_cannot_be_generated_are_noted(data, monkeypatch):
  def reject(folder, size):
    raise ValueError(f"no pictures in {folder}")

  monkeypatch.setattr(generated.frost, "load", reject)
  monkeypatch.setitem(corruptions.SETS, "cifar_c", ("frost", "brightness"))
  built = evaluator(generate=True, frost_folder="ice", severities=(2,))
  run, _ = measure(built, data)
  text = "frost was not evaluated: no pictures in ice"
  assert found.notes(run, "warning") == [text]
  assert len(run.rows) == 1
  wanted = evaluator(generate=True, frost_folder="ice", names=("frost",))
  with pytest.raises(ValueError, match="no pictures in ice"):
    wanted.check(found.batch(*data))


def test_no_corrupted_set_gives_no_rows(data):
  run, _ = measure(evaluator(), data)
  assert run.rows == run.notes == ()


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"names": ("rain",)}, r"names is \('rain',\): give some of gauss"),
    ({"names": ("lines",)}, "'lines'.* give .*, saturate$"),
    ({"sets": ()}, r"sets is \(\): give one or more of cifar_c, cifar_c_bar"),
    ({"sets": ("imagenet",)}, r"sets is \('imagenet',\)"),
    (
      {"sets": ("cifar_c_bar",), "folder": "/no/such"},
      "--mode=corrupt or make_cifar10_c_bar.py in facebookresearch",
    ),
    (
      {"severities": (1, 6)},
      r"severities is \(1, 6\): give one or more of 1..5",
    ),
    ({"severities": ()}, r"severities is \(\): give one or more of 1..5"),
    ({"seed": -1}, r"seed is -1: give one from 0 to 2\^32 - 1"),
    ({"folder": "/no/such"}, "/no/such has no corruption with"),
  ],
)
def test_bad_fields(fields, words):
  with pytest.raises((ValueError, FileNotFoundError), match=words):
    evaluator(**fields)
