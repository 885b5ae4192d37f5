import hashlib
import io
import json
import pickle
import re

import numpy as np
import pytest

from ram_jax import corruptions
from ram_jax.data import cifar_c, manifest, pipeline

RNG = np.random.default_rng(0)
SIZE = 3
LABELS = np.array([7, 0, 9])
TEST = np.zeros((SIZE, 32, 32, 3), np.uint8), LABELS.astype(np.int32)


def write(folder, names=("snow", "gaussian_noise"), labels=None):
  folder.mkdir(parents=True)
  contents = {}
  for name in names:
    contents[name] = RNG.integers(0, 256, (5 * SIZE, 32, 32, 3), np.uint8)
    np.save(folder / f"{name}.npy", contents[name])
  np.save(
    folder / "labels.npy", np.tile(LABELS, 5) if labels is None else labels
  )
  return contents


@pytest.mark.parametrize("labels", [None, LABELS.astype(np.uint8)])
@pytest.mark.parametrize("inner", ["", "CIFAR-10-C"])
def test_each_severity_is_its_fifth_of_the_file(tmp_path, labels, inner):
  contents = write(tmp_path / "c" / inner, labels=labels)
  source = cifar_c.CorruptedSource(folder=str(tmp_path / "c"))
  source.check(*TEST)
  assert source.names() == ("gaussian_noise", "snow")
  assert source.label == "CIFAR-10-C (not the original files)"
  assert source.seed is None
  for name, stacked in contents.items():
    for severity in range(1, 6):
      images, actual = source.load(name, severity)
      rows = range((severity - 1) * SIZE, severity * SIZE)
      np.testing.assert_array_equal(images, stacked[rows])
      np.testing.assert_array_equal(actual, LABELS)
      assert actual.dtype == np.int32


def test_published_files_are_recognized_by_their_md5(tmp_path, monkeypatch):
  for classes in (10, 100):
    table = manifest.PUBLISHED[f"CIFAR-{classes}-C"]
    assert set(table) == {f"{n}.npy" for n in (*corruptions.NAMES, "labels")}
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in table.values())
    assert len(set(table.values())) == 20
  write(tmp_path / "c")
  md5 = {
    path.name: hashlib.md5(path.read_bytes()).hexdigest()
    for path in (tmp_path / "c").glob("*.npy")
  }
  monkeypatch.setitem(manifest.PUBLISHED, "CIFAR-10-C", md5)
  where = {"folder": str(tmp_path / "c")}
  assert cifar_c.CorruptedSource(**where).label == "CIFAR-10-C"
  monkeypatch.setitem(md5, "labels.npy", "0" * 32)
  assert "not the original" in cifar_c.CorruptedSource(**where).label
  missing = cifar_c.CorruptedSource(**where).missing()
  assert len(missing) == 17 and missing["frost"].startswith("it is not in /")


def test_names_are_those_of_the_package():
  from tensorflow_datasets.image_classification import cifar10_corrupted

  table = cifar10_corrupted._CORRUPTIONS_TO_FILENAMES
  assert sorted(f"{name}.npy" for name in corruptions.NAMES) == sorted(
    table.values()
  )
  benchmark = [table[name] for name in cifar10_corrupted.BENCHMARK_CORRUPTIONS]
  assert [f"{name}.npy" for name in corruptions.NAMES[:15]] == benchmark
  for name in corruptions.NAMES:
    reference = cifar_c._TFDS.get(name, name)
    assert table[reference] == f"{name}.npy"


@pytest.mark.parametrize(
  ("stacked", "message"),
  [
    (np.zeros((4, 32, 32, 3), np.uint8), r"\[4, 32, 32, 3\], expected"),
    (np.zeros((5, 32, 32), np.uint8), r"uint8 \[5, 32, 32\], expected"),
    (np.zeros((5, 32, 32, 3)), "float64"),
    (np.uint8(3), r"uint8 \[1\], expected"),
    (
      np.zeros((10, 32, 32, 3), np.uint8),
      r"labels.npy are .* expected 2 integ",
    ),
    (np.zeros((0, 32, 32, 3), np.uint8), "labels.npy are .* expected 0"),
  ],
)
def test_wrong_arrays_are_named(tmp_path, stacked, message):
  write(tmp_path / "c")
  np.save(tmp_path / "c" / "fog.npy", stacked)
  with pytest.raises(ValueError, match=message):
    cifar_c.CorruptedSource(folder=str(tmp_path / "c")).load("fog", 1)


@pytest.mark.parametrize(
  ("labels", "message"),
  [
    (np.array([1, 2, 10]), "fog 1: label 10 at index 2 is outside 0..9"),
    (np.zeros(3), "labels.npy are float64"),
    (np.zeros((15, 2), int), r"int64 \[3, 2\]"),
  ],
)
def test_wrong_labels_are_named(tmp_path, labels, message):
  write(tmp_path / "c", ["fog"], labels)
  source = cifar_c.CorruptedSource(folder=str(tmp_path / "c"))
  for read in (lambda: source.check(*TEST), lambda: source.load("fog", 1)):
    with pytest.raises(ValueError, match=message):
      read()


def saved(array):
  buffer = io.BytesIO()
  np.save(buffer, array, allow_pickle=True)
  return buffer.getvalue()


@pytest.mark.parametrize(
  "raw",
  [
    b"",
    b"no array",
    saved(np.zeros((5, 32, 32, 3), np.uint8))[:-1],
    saved(np.array([None])),
    pickle.dumps([1]),
  ],
  ids=["empty", "text", "truncated", "objects", "pickle"],
)
def test_a_damaged_file_is_named(tmp_path, raw):
  write(tmp_path / "c")
  (tmp_path / "c" / "fog.npy").write_bytes(raw)
  source = cifar_c.CorruptedSource(folder=str(tmp_path / "c"))
  for read in (lambda: source.check(*TEST), lambda: source.load("fog", 1)):
    with pytest.raises(
      ValueError, match="fog.npy .* damaged or not a plain arr.*zen"
    ):
      read()


def test_missing_data_is_named(tmp_path):
  write(tmp_path / "c", ["fog"])
  source = cifar_c.CorruptedSource(folder=str(tmp_path / "c"))
  with pytest.raises(FileNotFoundError, match="snow 1 is not in .*zenodo"):
    source.load("snow", 1)
  (tmp_path / "c" / "labels.npy").unlink()
  with pytest.raises(FileNotFoundError, match="labels.npy is missing"):
    source.load("fog", 1)
  for options in ({"folder": str(tmp_path)}, {"tfds_dir": str(tmp_path)}):
    with pytest.raises(FileNotFoundError, match="no corruption with.*zenodo"):
      cifar_c.CorruptedSource(**options).names()


def test_cifar_100_c_needs_a_folder():
  with pytest.raises(ValueError, match="no CIFAR-100-C: give the folder"):
    cifar_c.CorruptedSource(classes=100)


SIDES = (4, 6, 3)  # of images that CIFAR has not, in 300 classes


@pytest.fixture
def made(tmp_path):
  """A folder as written by --mode=corrupt, and its test set."""
  images = RNG.integers(0, 256, (SIZE, *SIDES), np.uint8)
  labels = np.array([299, 0, 7], np.int32)
  for name in ("fog", "snow"):
    np.save(tmp_path / f"{name}.npy", np.concatenate([images] * 5))
  np.save(tmp_path / "labels.npy", np.tile(labels, 5))
  data = {"label": "Mine", "classes": 300, "image": SIDES}
  described = {
    "schema": 1,
    "made_with": {
      "seed": 7,
      "data": data | pipeline.describe(images, labels),
    },
    "files": {
      path.name: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
      for path in tmp_path.glob("*.npy")
    },
    "missing": {"frost": "no photographs"},
  }
  (tmp_path / "manifest.json").write_text(json.dumps(described))
  return tmp_path, images, labels


def test_generated_folder_describes_itself(made):
  folder, images, labels = made
  source = cifar_c.CorruptedSource(folder=str(folder))
  source.check(images, labels)
  source.check(images[:2], labels[:2])
  assert source.names() == ("snow", "fog") and source.num_classes == 300
  assert source.label == "test images corrupted by ram_jax, seed 7"
  assert source.seed == 7
  np.testing.assert_array_equal(source.load("fog", 5)[0], images)
  missing = source.missing()
  assert missing["frost"] == "no photographs" and len(missing) == 17
  # Whole, but not yet in the manifest: an interrupted run makes it again.
  np.save(folder / "frost.npy", np.concatenate([images] * 5))
  assert "frost" not in cifar_c.CorruptedSource(folder=str(folder)).names()
  wanted = cifar_c.CorruptedSource(folder=str(folder), only=("fog",))
  assert wanted.names() == ("fog",) and wanted.missing() == {}


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda i, k: (i, k[::-1]), "test set: 2 of 3 differ, the first at index"),
    (
      lambda i, k: (255 - i, k),
      r"different images \(Mine, sha256:.*--mode=corrupt",
    ),
    (lambda i, k: (i[:, :3], k), r"3 images of \[4, 6, 3\], but the test set"),
    (
      lambda i, k: (np.concatenate([i, i]), np.concatenate([k, k])),
      r"the test set has 6 of .* first 3 images \(config.evaluate.images\)",
    ),
  ],
  ids=["order", "pixels", "shape", "size"],
)
def test_another_test_set_is_rejected(made, change, words):
  folder, *data = made
  source = cifar_c.CorruptedSource(folder=str(folder))
  with pytest.raises(ValueError, match=words):
    source.check(*change(*data))


def test_wrong_order_is_detected_at_any_severity(tmp_path):
  labels = np.tile(LABELS, 5)
  labels[-2:] = labels[-2:][::-1]
  contents = write(tmp_path / "c", ["fog"], labels)
  source = cifar_c.CorruptedSource(folder=str(tmp_path / "c"))
  with pytest.raises(ValueError, match=r"first at index 1 \(9, but 0 in the"):
    source.check(contents["fog"][:SIZE], LABELS.astype(np.int32))


@pytest.mark.parametrize(
  ("harm", "words"),
  [
    (
      lambda f: (f / "fog.npy").unlink(),
      "fog.npy is missing or does not .*: generate it again",
    ),
    (
      lambda f: (f / "fog.npy").write_bytes((f / "snow.npy").read_bytes()[:-1]),
      r"fog.npy .* does not have the SHA-256 in its manifest.*--mode=corrupt",
    ),
    (
      lambda f: (f / "manifest.json").write_text("{"),
      "is damaged or not a ma",
    ),
    (
      lambda f: (f / "manifest.json").write_text("[1]"),
      "damaged or not a man",
    ),
    (
      lambda f: (f / "manifest.json").write_text('{"schema": 2}'),
      "its schema is 2, not 1",
    ),
    (
      lambda f: (f / "manifest.json").write_text(
        (f / "manifest.json").read_text().replace("fingerprint", "print")
      ),
      "KeyError.*fingerprint.*delete the folder, and generate it again",
    ),
  ],
  ids=["gone", "damaged", "half", "list", "schema", "field"],
)
def test_damage_to_a_generated_folder_is_named(made, harm, words):
  folder, images, labels = made
  harm(folder)
  source = cifar_c.CorruptedSource(folder=str(folder))
  with pytest.raises((ValueError, FileNotFoundError), match=words):
    source.check(images, labels)


def test_digests_equal_hashlib(tmp_path):
  (tmp_path / "x").write_bytes(b"abc")
  # The published test vectors of "abc".
  assert manifest.digest(tmp_path / "x", "md5") == (
    "md5:900150983cd24fb0d6963f7d28e17f72"
  )
  assert manifest.digest(tmp_path / "x").startswith("sha256:ba7816bf8f01cfea")
