import contextlib
import hashlib
import io
import json
import pathlib
import shutil
import socket
import sys
import tarfile
import time
import types
import urllib.request

import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image

import main as program
from ram_jax.data import cifar, cifar_c, pipeline, tfds
from ram_jax.evaluation import calibration, clean
from ram_jax.report import page
from ram_jax.runs import results as runs
from ram_jax.training import loop as train
from tests import found

RNG = np.random.default_rng(0)
SIZES = {"train": 20, "test": 7}
NUMBERS = dict.fromkeys(calibration.NAMES, 0.0)


def archive(classes, sizes=SIZES):
  """A small archive in the layout of the published one, and its contents."""
  rows = {
    split: RNG.integers(0, 256, (size, 3072), np.uint8)
    for split, size in sizes.items()
  }
  labels = {
    split: RNG.integers(0, classes, size, np.uint8)
    for split, size in sizes.items()
  }
  raw = {split: np.c_[labels[split][:, None], rows[split]] for split in sizes}
  names = "".join(f"class_{i}\n" for i in range(classes)).encode()
  if classes == 10:
    files = {
      f"data_batch_{i}.bin": part.tobytes()
      for i, part in enumerate(np.split(raw["train"], 5), start=1)
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
  """Makes the package expect the checksum of this archive."""
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
  """Prevents network access: the proxy is a closed port."""
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
    images, actual = pipeline.load(source, split)
    np.testing.assert_array_equal(actual, labels[split])
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    np.testing.assert_array_equal(planes, rows[split])


def test_prepares_from_the_archive_once_and_reads(prepared, monkeypatch):
  source, first, rows, labels, data_dir = prepared
  np.testing.assert_array_equal(first[1], labels["train"])
  shutil.rmtree(data_dir / "downloads")  # the prepared files are enough
  assert_published_order(source, rows, labels)
  monkeypatch.setattr(cifar, "_SIZES", SIZES)
  again = cifar.Source(classes=source.classes, tfds_dir=str(data_dir))
  assert (again.label, again.notes) == (f"CIFAR-{source.classes}", ())
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


def test_every_image_is_prepared_on_other_systems(tmp_path, monkeypatch):
  # More than are written, and more than are read, at once.
  raw, rows, labels = archive(10, {"train": 1005, "test": 7})
  publish(monkeypatch, 10, raw)
  place(tmp_path, 10, raw)
  monkeypatch.setattr(tfds.sys, "platform", "darwin")
  source = cifar.Source(tfds_dir=str(tmp_path))
  assert_published_order(source, rows, labels)
  assert not list(tmp_path.glob("cifar10/*/*.array_record*"))


def to_tfrecord(folder):
  """Rewrites a prepared folder as the package does with TensorFlow."""
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
def test_without_network_the_error_says_which_file_to_get(tmp_path, classes):
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


def test_unresponsive_server_times_out(tmp_path, monkeypatch):
  monkeypatch.setattr(tfds, "_PATIENCE", 0.3)
  with socket.create_server(("127.0.0.1", 0)) as server:
    proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(FileNotFoundError, match="timed out"):
      tfds.load("cifar10", "train", str(tmp_path))


def test_another_archive_is_rejected(tmp_path):
  place(tmp_path, 10, archive(10)[0])
  with pytest.raises(ValueError, match="wrong checksum.*remove that file"):
    tfds.load("cifar10", "train", str(tmp_path))


@pytest.mark.parametrize("name", ["tensorflow_datasets", "importlib_resources"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, name):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ModuleNotFoundError, match=f"{name}.*pip install"):
    tfds.load("cifar10", "train", str(tmp_path))


IMAGES = RNG.integers(0, 256, (301, 32, 32, 3), np.uint8)
CLASSES = RNG.integers(0, 10, 301)
CLASSES[:2] = 3, 8


class Records:
  """Replaces the tfrecord writer of the package, without TensorFlow."""

  def __init__(self, path):
    self._file = open(path, "wb")  # noqa: SIM115

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._file.close()

  def write(self, record):
    size = len(record).to_bytes(8, "little")
    self._file.write(size + b"sum1" + record + b"sum2")

  def flush(self):
    self._file.flush()


def prepare(
  data_dir, name, images, labels, form="array_record", shards=1, ids=True
):
  """Prepares a test set as the package's class does: the same keys and writer.

  Args:
    data_dir: the package's data folder.
    name: 'cifar10', or a corruption and its severity.
    images: uint8 [N, 32, 32, 3].
    labels: [N].
    form: the package's name of the file format.
    shards: number of files.
    ids: whether examples of 'cifar10' have the field 'id'.
  """
  import tensorflow_datasets as package
  from tensorflow_datasets.core import file_adapters
  from tensorflow_datasets.image_classification import cifar as stock
  from tensorflow_datasets.image_classification import cifar10_corrupted

  is_clean = name == "cifar10"
  base = stock.Cifar10 if is_clean else cifar10_corrupted.Cifar10Corrupted
  config = {} if is_clean else {"config": name}

  class Builder(base, skip_registration=True):
    name = base.name

    def _info(self):
      info = super()._info()
      if is_clean and not ids:
        del info.features._feature_dict["id"]
      return info

    def _split_generators(self, downloads):
      splits = ("train", "test")[1 - is_clean :]
      return {split: self._rows() for split in splits}

    def _rows(self):
      for i, image in enumerate(images):
        row = {"image": Image.fromarray(image), "label": int(labels[i])}
        yield i, row | ({"id": f"test_{i:05d}"} if is_clean and ids else {})

  with pytest.MonkeyPatch.context() as patch:
    writer = types.SimpleNamespace(TFRecordWriter=Records)
    patch.setattr(file_adapters, "tf", types.SimpleNamespace(io=writer))
    Builder(data_dir=data_dir, **config).download_and_prepare(
      file_format=form,
      download_config=package.download.DownloadConfig(num_shards=shards),
    )


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
def test_the_order_of_corrupted_images_is_restored(tmp_path, form):
  prepare(tmp_path, "frosted_glass_blur_2", IMAGES, CLASSES, form, shards=3)
  assert len(list(tmp_path.glob(f"*/*/*/*test.{form}*-of-00003"))) == 3
  source = cifar_c.CorruptedSource(tfds_dir=str(tmp_path), severities=(2,))
  assert source.names() == ("glass_blur",)
  images, labels = source.load("glass_blur", 2)
  np.testing.assert_array_equal(images, IMAGES)
  np.testing.assert_array_equal(labels, CLASSES)
  with pytest.raises(FileNotFoundError, match="fog 3 is not in .*zenodo"):
    source.load("fog", 3)


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
  """Runs the program on what tmp_path/data holds: its exit code and stderr.

  The network calls an image right if its first byte is even.
  """

  def evaluated(model, batch, batch_size):
    del model, batch_size
    return {"correct": batch["images"][:, 0, 0, 0] % 2 == 0, "values": NUMBERS}

  nothing = types.SimpleNamespace(step=0, params={}, batch_stats={})
  monkeypatch.setattr(train, "build", lambda *args: None)
  monkeypatch.setattr(train, "check_memory", lambda *args: None)
  monkeypatch.setattr(train, "fit", lambda *args: nothing)
  monkeypatch.setattr(clean, "evaluate", evaluated)
  monkeypatch.setattr(page, "draw", lambda folder: None)
  root = pathlib.Path(program.__file__).parent
  config = tmp_path / "mine.py"
  config.write_text("""
from configs import standard

def get_config(argument=""):
  config = standard.get_config("smoke")
  config.train.images = config.evaluate.images = 0
  with config.unlocked():
    del config.evaluators["adversarial"]
    del config.evaluators["fourier"]
  return config
""")

  def call(*overrides):
    data = tmp_path / "data"
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.chdir(root):
      code = program.main(
        [
          f"--config={config}",
          f"--workdir={tmp_path / 'run'}",
          f"--config.dataset.tfds_dir={data}",
          f"--config.evaluators.corruption.tfds_dir={data}",
          *(f"--config.{text}" for text in overrides),
        ]
      )
    return code, err.getvalue()

  return call


def test_the_first_images_are_the_first_of_the_test_set(evaluate, tmp_path):
  data = tmp_path / "data"
  prepare(data, "cifar10", IMAGES[:40], CLASSES)
  prepare(data, "fog_1", IMAGES[:40], CLASSES)
  prepare(data, "fog_5", IMAGES[:40] ^ 1, CLASSES)
  prepare(data, "snow_1", IMAGES[:40], CLASSES)
  code, err = evaluate(
    "evaluate.images=8", "evaluators.corruption.severities=5,1"
  )
  assert code == 0, err
  even = IMAGES[:8, 0, 0, 0] % 2 == 0
  shown = runs.load(tmp_path / "run")
  fogs = {s: found.row(shown, "corruption", severity=s).key for s in (1, 5)}
  correct = shown.correct
  assert correct.keys() == {"clean", *fogs.values()}
  np.testing.assert_array_equal(correct["clean"], even)
  np.testing.assert_array_equal(correct[fogs[1]], even)
  np.testing.assert_array_equal(correct[fogs[5]], ~even)
  missing = found.notes(shown, "warning")
  assert f"snow was not evaluated: severity 5 is not in {data}" in missing
  assert f"frost was not evaluated: it is not in {data}" in missing
  assert not any("fog was" in text for text in missing)


def test_other_numbers_of_images_are_noted(evaluate, tmp_path):
  prepare(tmp_path / "data", "cifar10", IMAGES[:40], CLASSES)
  prepare(tmp_path / "data", "fog_1", IMAGES, CLASSES)
  code, err = evaluate("evaluators.corruption.severities=1,")
  assert code == 0, err
  shown = runs.load(tmp_path / "run")
  label = "CIFAR-10 (not the original files)"
  assert shown.about["data_label"] == label
  data = f"{label}: 40 training and 40 test images, not 50,000 and 10,000"
  corrupted = (
    "CIFAR-10-C (from tensorflow-datasets): only the first 40 of 301 images,"
    " to match the test set"
  )
  assert {data, corrupted} <= set(found.notes(shown))
  assert f"note: {data}\n" in err


def corrupted_with(size=40, labels=CLASSES, form="array_record"):
  return lambda data: prepare(data, "fog_1", IMAGES[:size], labels, form)


@pytest.mark.parametrize(
  ("harm", "words"),
  [
    (
      corrupted_with(32),
      "data, fog 1, holds 32 images of [32, 32, 3], but the test"
      " set has 40 of [32, 32, 3]: give the folder generated from this test"
      " set, or evaluate its first 32 images (config.evaluate.images)",
    ),
    (
      corrupted_with(labels=CLASSES[[1, 0, *range(2, 301)]]),
      "data, fog 1: the labels differ from those of the test"
      " set: 2 of 40 differ, the first at index 0 (8, but 3 in the test",
    ),
    # Of parquet the package's own writer skips what is beyond the first 100.
    (
      corrupted_with(301, form="parquet"),
      "fog_1/1.0.0: split 'test' cannot be read (ValueError('200 examples,"
      " expected 301'))",
    ),
    (
      lambda data: prepare(data, "fog_2", IMAGES[:40], CLASSES),
      "has no corruption with all of the severities (1,): get the .npy files",
    ),
    (
      lambda data: prepare(data, "cifar10", IMAGES[:40], CLASSES, ids=False),
      "split 'train' cannot be read (ValueError(\"there is no field 'id' with"
      ' the published order")): remove this folder',
    ),
  ],
  ids=["fewer", "labels", "parquet", "severity", "no id"],
)
def test_other_images_are_rejected(evaluate, tmp_path, harm, words):
  harm(tmp_path / "data")
  if not (tmp_path / "data" / "cifar10").exists():
    prepare(tmp_path / "data", "cifar10", IMAGES[:40], CLASSES)
  code, err = evaluate("evaluators.corruption.severities=1,")
  *_, line = err.splitlines()
  assert code == 2 and line.startswith("error: ") and words in line, line


@pytest.mark.parametrize("form", ["array_record", "parquet", "tfrecord"])
def test_fewer_images_than_the_metadata_say(tmp_path, form):
  prepare(tmp_path, "cifar10", IMAGES[:9], CLASSES, form)
  folder = tfds.find("cifar10", str(tmp_path))
  assert len(tfds.read(folder, "test", by="id")[0]) == 9
  path = folder / "dataset_info.json"
  path.write_text(path.read_text().replace('"9"', '"10"'))
  with pytest.raises(ValueError, match="'test' cannot be read"):
    tfds.read(folder, "test", by="id")
