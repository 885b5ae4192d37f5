import hashlib
import io
import json
import shutil
import socket
import sys
import tarfile
import time
import urllib.request

import numpy as np
import pytest
from array_record.python import array_record_module

from ram_jax.data import cifar, pipeline, tfds

RNG = np.random.default_rng(0)
SIZES = {"train": 20, "test": 7}


def archive(classes):
  """A small archive in the layout of the published one, and its contents."""
  rows = {
    split: RNG.integers(0, 256, (size, 3072), np.uint8)
    for split, size in SIZES.items()
  }
  labels = {
    split: RNG.integers(0, classes, size, np.uint8)
    for split, size in SIZES.items()
  }
  raw = {split: np.c_[labels[split][:, None], rows[split]] for split in SIZES}
  names = "".join(f"class_{i}\n" for i in range(classes)).encode()
  if classes == 10:
    files = {
      f"data_batch_{i}.bin": raw["train"][4 * i - 4 : 4 * i].tobytes()
      for i in range(1, 6)
    }
    files |= {"test_batch.bin": raw["test"].tobytes()}
    files |= {"batches.meta.txt": names}
    folder = "cifar-10-batches-bin"
  else:
    coarse = b"".join(b"super_%d\n" % i for i in range(20))
    files = {
      f"{split}.bin": np.insert(raw[split], 0, 19, axis=1).tobytes()
      for split in SIZES
    }
    files |= {"coarse_label_names.txt": coarse, "fine_label_names.txt": names}
    folder = "cifar-100-binary"
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
    for name, content in files.items():
      info = tarfile.TarInfo(f"{folder}/{name}")
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  return buffer.getvalue(), rows, labels


def publish(monkeypatch, classes, raw):
  """Makes the archive the one whose sum the package knows."""
  from tensorflow_datasets.core import utils
  from tensorflow_datasets.core.download import checksums
  from tensorflow_datasets.image_classification import cifar as stock

  name = f"cifar-{classes}-binary.tar.gz"
  info = checksums.UrlInfo(
    size=utils.Size(len(raw)),
    checksum=hashlib.sha256(raw).hexdigest(),
    filename=name,
  )
  url = f"https://www.cs.toronto.edu/~kriz/{name}"
  monkeypatch.setattr(
    getattr(stock, f"Cifar{classes}"), "url_infos", {url: info}
  )


@pytest.fixture(autouse=True)
def offline(monkeypatch):
  """No test reaches a network: the proxy is a port that nobody serves."""
  for name in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
  monkeypatch.delenv("no_proxy", raising=False)
  monkeypatch.delenv("NO_PROXY", raising=False)
  # urllib reads the environment when it is first used.
  monkeypatch.setattr(urllib.request, "_opener", None)


def place(data_dir, classes, raw):
  manual = data_dir / "downloads" / "manual"
  manual.mkdir(parents=True)
  (manual / f"cifar-{classes}-binary.tar.gz").write_bytes(raw)


@pytest.fixture(params=[10, 100])
def prepared(request, tmp_path, monkeypatch):
  classes = request.param
  raw, rows, labels = archive(classes)
  publish(monkeypatch, classes, raw)
  place(tmp_path, classes, raw)
  source = cifar.Source(classes=classes, tfds_dir=str(tmp_path))
  first = pipeline.load(source, "train")
  return source, first, rows, labels, tmp_path


def assert_published_order(source, rows, labels):
  for split in SIZES:
    images, ours = pipeline.load(source, split)
    np.testing.assert_array_equal(ours, labels[split])
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    np.testing.assert_array_equal(planes, rows[split])


def test_prepares_from_the_archive_once_and_reads(prepared):
  source, first, rows, labels, data_dir = prepared
  np.testing.assert_array_equal(first[1], labels["train"])
  shutil.rmtree(data_dir / "downloads")  # the prepared files are enough
  assert_published_order(source, rows, labels)
  assert source.label == f"CIFAR-{source.classes}"
  assert "tensorflow" not in sys.modules


def test_the_package_itself_reads_what_was_prepared(prepared):
  import tensorflow_datasets

  source, _, _, labels, data_dir = prepared
  name = f"cifar{source.classes}"
  stock = tensorflow_datasets.builder(name, data_dir=data_dir)
  examples = list(
    stock.as_data_source(
      "test", decoders={"image": tensorflow_datasets.decode.SkipDecoding()}
    )
  )
  ids = [int(e["id"].removeprefix(b"test_")) for e in examples]
  # Stored shuffled, so that the order above was rebuilt and not met.
  assert sorted(ids) == list(range(7)) != ids
  assert [e["label"] for e in examples] == labels["test"][ids].tolist()
  assert stock.info.features["label"].names[9] == "class_9"


def test_reads_parquet(tmp_path, monkeypatch):
  raw, rows, labels = archive(10)
  publish(monkeypatch, 10, raw)
  place(tmp_path, 10, raw)
  monkeypatch.setattr(tfds.sys, "platform", "darwin")
  source = cifar.Source(tfds_dir=str(tmp_path))
  assert_published_order(source, rows, labels)
  assert list(tmp_path.glob("cifar10/*/*.parquet*"))


def to_tfrecord(folder):
  """Rewrites a prepared folder as the package does where TensorFlow is."""
  path = folder / "dataset_info.json"
  info = json.loads(path.read_text()) | {"fileFormat": "tfrecord"}
  path.write_text(json.dumps(info))
  for old in list(folder.glob("*.array_record-*")):
    reader = array_record_module.ArrayRecordReader(str(old))
    with open(str(old).replace("array_record", "tfrecord"), "wb") as file:
      for record in reader.read_all():
        size = len(record).to_bytes(8, "little")
        file.write(size + b"sum1" + record + b"sum2")
    reader.close()
    old.unlink()


def test_reads_what_tensorflow_wrote(prepared):
  source, _, rows, labels, data_dir = prepared
  folder = tfds.find(f"cifar{source.classes}", str(data_dir))
  to_tfrecord(folder)
  assert_published_order(source, rows, labels)
  (path,) = folder.glob("*test.tfrecord*")
  whole = path.read_bytes()
  path.write_bytes(whole[:-9])
  with pytest.raises(ValueError, match="'test' cannot be read.*truncated"):
    source.load("test")
  path.write_bytes(whole[: 16 + int.from_bytes(whole[:8], "little")])
  with pytest.raises(ValueError, match="1 examples, expected 7"):
    source.load("test")


def test_newest_version_of_a_prepared_set(tmp_path):
  for version in ("3.0.2", "3.0.10", "3.0.9.incompleteABC", "incomplete.3.1.0"):
    (tmp_path / "cifar10" / version).mkdir(parents=True)
    (tmp_path / "cifar10" / version / "features.json").touch()
  found = tfds.find("cifar10", str(tmp_path))
  assert found == tmp_path / "cifar10" / "3.0.10"
  assert tfds.find("cifar100", str(tmp_path)) is None


def test_data_folder(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  assert tfds.root() == tmp_path / "tensorflow_datasets"
  assert tfds.root("~/here") == tmp_path / "here"
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "there"))
  assert tfds.root() == tmp_path / "there"


@pytest.mark.parametrize("classes", [10, 100])
def test_without_network_it_says_at_once_what_to_put_where(tmp_path, classes):
  start = time.monotonic()
  with pytest.raises(FileNotFoundError) as error:
    cifar.Source(classes=classes, tfds_dir=str(tmp_path)).load("train")
  assert time.monotonic() - start < 10
  message = str(error.value)
  # Sizes as tensorflow-datasets publishes them.
  size = {10: "170052171", 100: "168513733"}[classes]
  for part in (
    f"cifar-{classes}-binary.tar.gz ({size} bytes, sha256 ",
    f"from https://www.cs.toronto.edu/~kriz/cifar-{classes}-binary.tar.gz",
    str(tmp_path / "downloads" / "manual"),
    "dataset.folder",
  ):
    assert part in message
  assert "\n" not in message


def test_a_silent_network_is_given_up(tmp_path, monkeypatch):
  monkeypatch.setattr(tfds, "_PATIENCE", 0.3)
  with socket.create_server(("127.0.0.1", 0)) as server:
    proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(FileNotFoundError, match="timed out"):
      tfds.load("cifar10", "train", str(tmp_path))


def test_another_archive_is_refused(tmp_path):
  place(tmp_path, 10, archive(10)[0])
  with pytest.raises(ValueError, match="wrong checksum.*remove that file"):
    tfds.load("cifar10", "train", str(tmp_path))


@pytest.mark.parametrize("name", ["tensorflow_datasets", "importlib_resources"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, name):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ModuleNotFoundError, match=f"{name}.*pip install"):
    tfds.load("cifar10", "train", str(tmp_path))
