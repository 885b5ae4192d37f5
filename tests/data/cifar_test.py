import hashlib
import os
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from ram_jax.data import cifar, manifest, pipeline

RNG = np.random.default_rng(0)


class Python2Pickler(pickle._Pickler):
  """Writes bytes and str as Python 2 did, as strings without encoding."""

  dispatch = dict(pickle._Pickler.dispatch)

  def save_string(self, value):
    raw = value if isinstance(value, bytes) else value.encode("latin1")
    short = len(raw) < 256
    size = bytes([len(raw)]) if short else struct.pack("<i", len(raw))
    self.write((b"U" if short else b"T") + size + raw)
    self.memoize(value)

  dispatch[bytes] = dispatch[str] = save_string


def dump_python2(value, file):
  Python2Pickler(file, protocol=2).dump(value)


def dump_numpy1(value, file):
  text = pickle.dumps(value, 2).replace(b"numpy._core.", b"numpy.core.")
  file.write(text)


DUMPS = {
  "python2": dump_python2,
  "numpy1": dump_numpy1,
  **{
    f"protocol {p}": lambda value, file, p=p: pickle.dump(value, file, p)
    for p in range(6)
  },
}


def write(root, classes=10, size=4, dump=dump_python2, images=None):
  """Small files in CIFAR's layout; the contents by file name."""
  folder = root / ("cifar-10-batches-py", "cifar-100-python")[classes == 100]
  folder.mkdir(parents=True)
  names = ["train", "test"]
  if classes == 10:
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
  contents = {}
  for name in names:
    data = RNG.integers(0, 256, (size, 3072), np.uint8)
    labels = RNG.integers(0, classes, size).tolist()
    batch = {"data": data, "batch_label": name}
    batch["labels" if classes == 10 else "fine_labels"] = labels
    if classes == 100:
      batch["coarse_labels"] = [0] * size
    with open(folder / name, "wb") as file:
      dump(batch, file)
    contents[name] = (data, labels)
  return folder, contents


@pytest.mark.parametrize("dump", DUMPS.values(), ids=DUMPS)
def test_every_kind_of_pickle(tmp_path, dump):
  _, contents = write(tmp_path, dump=dump)
  images, labels = pipeline.load(cifar.Source(folder=str(tmp_path)), "train")
  names = [f"data_batch_{i}" for i in range(1, 6)]
  assert labels.tolist() == [y for name in names for y in contents[name][1]]
  # Channel-major, row by row: byte 1024 c + 32 y + x.
  for n, y, x, c in [(0, 0, 0, 0), (5, 3, 30, 1), (19, 31, 31, 2)]:
    data = contents[names[n // 4]][0]
    assert images[n, y, x, c] == data[n % 4, 1024 * c + 32 * y + x]


def test_cifar100_uses_fine_labels(tmp_path):
  folder, contents = write(tmp_path, classes=100)
  source = cifar.Source(classes=100, folder=str(folder))
  for split in ("train", "test"):
    assert pipeline.load(source, split)[1].tolist() == contents[split][1]
  assert source.label == "CIFAR-100 (not the original files)"


def test_home_folder_is_expanded(tmp_path, monkeypatch):
  write(tmp_path / "data")
  monkeypatch.setenv("HOME", str(tmp_path))
  assert len(cifar.Source(folder="~/data").load("test")[0]) == 4


def test_real_pixels_survive_the_python_layout(tmp_path, shared_data):
  with np.load(shared_data / "cifar10_lossless.npz") as real:
    images, labels = real["test_images"], real["test_labels"]
  folder, _ = write(tmp_path, size=1)
  planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
  with open(folder / "test_batch", "wb") as file:
    dump_python2({b"data": planes, b"labels": labels.tolist()}, file)
  actual = pipeline.load(cifar.Source(folder=str(tmp_path)), "test")
  np.testing.assert_array_equal(actual[0], images)
  np.testing.assert_array_equal(actual[1], labels)


def test_statistics_are_near_those_of_a_sample(shared_data):
  with np.load(shared_data / "cifar10_lossless.npz") as real:
    pixels = real["train_images"] / 255
  # 3,805 images whose own means spread by about 0.12: 0.002 each.
  np.testing.assert_allclose(
    cifar.Source().mean, pixels.mean((0, 1, 2)), atol=0.01
  )
  np.testing.assert_allclose(
    cifar.Source().std, pixels.std((0, 1, 2)), atol=0.01
  )


def test_label_says_whether_the_files_are_the_published_ones(
  tmp_path, monkeypatch
):
  folder, _ = write(tmp_path)
  source = cifar.Source(folder=str(tmp_path))
  assert source.label == "CIFAR-10 (not the original files)"
  assert source.notes == (
    "CIFAR-10 (not the original files): 20 training and 4 test images, not"
    " 50,000 and 10,000",
  )
  named = cifar.Source(folder="nowhere", label="CIFAR-10 (JPEG copy)")
  assert named.label == "CIFAR-10 (JPEG copy)"
  assert cifar.Source().label == "CIFAR-10"
  published = manifest.PUBLISHED[folder.name]
  for name in published:
    digest = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setitem(published, name, digest)
  assert source.label == "CIFAR-10 (not the original files)"  # read once
  assert cifar.Source(folder=str(tmp_path)).label == "CIFAR-10"


def test_published_checksums_equal_torchvision():
  sums = "".join(
    md5
    for folder in ("cifar-10-batches-py", "cifar-100-python")
    for md5 in manifest.PUBLISHED[folder].values()
  )
  # crc32 over the eight sums of torchvision/datasets/cifar.py, in its order.
  assert zlib.crc32(sums.encode()) == 0x36F7D2E9


class Hostile:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_does_not_run(tmp_path, protocol):
  folder, _ = write(tmp_path)
  marker = tmp_path / "ran"
  bad = pickle.dumps({"data": Hostile(marker), "labels": [0]}, protocol)
  (folder / "test_batch").write_bytes(bad)
  with pytest.raises(ValueError, match=r"test_batch refers to \w+.system"):
    cifar.Source(folder=str(tmp_path)).load("test")
  assert not marker.exists()
  pickle.loads(bad)  # else this test could not fail
  assert marker.exists()


def test_an_object_array_is_not_built(tmp_path):
  folder, _ = write(tmp_path)
  batch = {"data": np.array([[None]]), "labels": [0]}
  (folder / "test_batch").write_bytes(pickle.dumps(batch))
  with pytest.raises(ValueError, match="type 'O8' are not supported"):
    cifar.Source(folder=str(tmp_path)).load("test")


DATA = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
  ("batch", "message"),
  [
    ([1, 2], "holds a list, expected a dictionary"),
    ({"data": DATA}, r"lacks \['labels'\] but has \['data'\]"),
    ({"data": DATA[:, :99], "labels": [0, 1]}, r"uint8 \[2, 99\], expected"),
    ({"data": DATA.astype(int), "labels": [0, 1]}, r"int64 \[2, 3072\]"),
    ({"data": [1, 2], "labels": [0, 1]}, r"data is list \[2\]"),
    ({"data": DATA, "labels": [0]}, r"int64 \[1\], expected 2 integers"),
    ({"data": DATA, "labels": [0.5, 1.0]}, "float64"),
    ({"data": DATA, "labels": ["cat", "dog"]}, "<U3"),
    ({"data": DATA, "labels": [[0], 1]}, "a list contains lists"),
    ({"data": DATA, "labels": [1, 2**32]}, "labels are int64"),
    ({"data": DATA, "labels": [0, 10]}, "label 10 at index 1 .* 0..9"),
  ],
)
def test_wrong_contents_are_named(tmp_path, batch, message):
  folder, _ = write(tmp_path)
  (folder / "test_batch").write_bytes(pickle.dumps(batch))
  with pytest.raises(ValueError, match=message) as error:
    pipeline.load(cifar.Source(folder=str(tmp_path)), "test")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0, 1, 40, 3000, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
  folder, _ = write(tmp_path)
  path = folder / "data_batch_3"
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(ValueError, match="data_batch_3 is truncated or not a"):
    cifar.Source(folder=str(tmp_path)).load("train")


def test_missing_file_error_says_where_to_get_it(tmp_path):
  folder, _ = write(tmp_path)
  (folder / "data_batch_2").unlink()
  source = cifar.Source(folder=str(tmp_path))
  with pytest.raises(FileNotFoundError, match="data_batch_2 is missing.*kriz"):
    source.load("train")
  assert len(source.load("test")[0]) == 4


def test_wrong_number_of_classes():
  with pytest.raises(ValueError, match="classes is 20: give 10 or 100"):
    cifar.Source(classes=20)


def test_files_are_read_without_tensorflow_datasets(tmp_path):
  write(tmp_path)
  code = (
    "import sys; from ram_jax.data import cifar, digits;"
    f"cifar.Source(folder={str(tmp_path)!r}).load('train');"
    "digits.Source().load('test');"
    "assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
