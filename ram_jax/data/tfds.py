"""tensorflow-datasets without TensorFlow: reads data sets, prepares CIFAR.

Without TensorFlow, the package can read array_record and parquet files. This
module adds the rest: it reads tfrecord files, the package's default format, and
it prepares CIFAR, for which the package's own code needs TensorFlow. The
package is only imported when a data set is prepared or read.
"""

import contextlib
import functools
import io
import os
import pathlib
import sys
import tarfile
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from ram_jax.contracts import Split

# Seconds to wait for the server before giving up on a download; the package
# itself would retry for minutes.
_PATIENCE = 8


def load(name: str, split: str, data_dir: str = "") -> Split:
  """Reads a data set; downloads and prepares it first if necessary.

  Args:
    name: 'cifar10' or 'cifar100'.
    split: 'train' or 'test'.
    data_dir: the package's data folder; empty for its default.

  Returns:
    Images uint8 [N, 32, 32, 3] and labels int32 [N], in the order of the
    published files, which the field 'id' records.

  Raises:
    FileNotFoundError: it is missing and cannot be downloaded; the message
      names the file to download and where to put it.
    ValueError: a file is damaged.
    ModuleNotFoundError: the package, or one that it needs, is not installed.
  """
  folder = find(name, data_dir)
  if folder is None:
    _prepare(name, root(data_dir))
    folder = find(name, data_dir)
  return read(folder, split, by="id")


def root(data_dir: str = "") -> pathlib.Path:
  """The package's data folder.

  Args:
    data_dir: the folder ('~' is expanded), or empty for the default.

  Returns:
    The folder; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
  """
  default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  return pathlib.Path(os.path.expanduser(data_dir or default))


def find(name: str, data_dir: str = "") -> pathlib.Path | None:
  """Looks for a prepared data set; imports nothing.

  Args:
    name: name, followed by '/' and the configuration if it has one.
    data_dir: the package's data folder; empty for its default.

  Returns:
    Folder of the newest existing version, or None.
  """
  versions = root(data_dir).glob(f"{name}/[0-9]*.*/features.json")
  folders = (path.parent for path in versions)
  return max(
    folders,
    key=lambda f: [int(part) for part in f.name.split(".") if part.isdecimal()],
    default=None,
  )


def sizes(name: str, data_dir: str = "") -> dict[str, int]:
  """How many images a prepared data set should have; `read` verifies it.

  Args:
    name: as in `find`.
    data_dir: as in `find`.

  Returns:
    Numbers by split; empty if `find` finds nothing.

  Raises:
    ValueError: the metadata is damaged.
    ModuleNotFoundError: the package, or one that it needs, is not installed.
  """
  folder = find(name, data_dir)
  if folder is None:
    return {}
  with _opened(folder, "its metadata") as builder:
    return {k: info.num_examples for k, info in builder.info.splits.items()}


def read(folder: pathlib.Path, split: str, by: str) -> Split:
  """Reads one split of a prepared data set.

  Args:
    folder: from `find`.
    split: name of the split.
    by: how to restore the published order, as examples are stored sorted by the
      hash of a key. 'id': by the number in that field. 'index': by the hash,
      assuming that keys count from 0 as in the package's own classes; the
      caller must verify the order.

  Returns:
    Images uint8 [N, H, W, C] and labels int32 [N], in the published order.

  Raises:
    ValueError: a file is damaged, missing, or shorter than the metadata says.
    ModuleNotFoundError: the package, or one that it needs, is not installed.
  """
  with _opened(folder, f"split {split!r}") as builder:
    examples = _examples(builder, split)
    order = np.argsort(_indices(examples, split, by))
    files = [io.BytesIO(example["image"]) for example in examples]
    images = np.stack([np.asarray(Image.open(file)) for file in files])
  labels = np.array([example["label"] for example in examples], np.int32)
  return images[order], labels[order]


def _indices(examples: list[dict[str, Any]], split: str, by: str) -> list[int]:
  """Each stored example's index in the published files."""
  if by == "id":
    if "id" not in examples[0]:
      raise ValueError("there is no field 'id' with the published order")
    # b'train_00039' is the 40th image in the published order.
    return [int(e["id"].rpartition(b"_")[2]) for e in examples]
  from tensorflow_datasets.core import hashing

  return sorted(range(len(examples)), key=hashing.Hasher(split).hash_key)


@contextlib.contextmanager
def _opened(folder: pathlib.Path, part: str) -> Iterator[Any]:
  """The package's builder for a folder; errors are converted to ValueError."""
  tfds = _import()
  try:
    with warnings.catch_warnings(action="ignore"):  # from the package's code
      yield tfds.builder_from_directory(folder)
  except Exception as error:  # the readers raise many types of errors
    raise ValueError(
      f"{folder}: {part} cannot be read ({error!r}): remove this folder and"
      " prepare the data again (for CIFAR-10 and CIFAR-100, this is automatic)"
    ) from error


def _examples(builder: Any, split: str) -> list[dict[str, Any]]:
  """The examples of a split in stored order, with encoded images."""
  info = builder.info.splits[split]
  # Images are decoded by Pillow, regardless of the package's choice.
  raw = {"image": _import().decode.SkipDecoding()}
  if builder.info.file_format.value == "tfrecord":
    decode = functools.partial(
      builder.info.features.deserialize_example_np, decoders=raw
    )
    examples = [decode(r) for path in info.filepaths for r in _records(path)]
  else:
    source = builder.as_data_source(split, decoders=raw)
    examples = source.__getitems__(range(len(source)))
  if not examples or len(examples) != info.num_examples:
    raise ValueError(f"{len(examples)} examples, expected {info.num_examples}")
  return examples


def _records(path: str | os.PathLike) -> Iterator[bytes]:
  """The records of a tfrecord file: length, checksum, bytes, checksum."""
  with open(path, "rb") as file:
    while header := file.read(12):
      size = int.from_bytes(header[:8], "little")
      record = file.read(size + 4)
      if len(record) != size + 4:
        raise ValueError(f"{path} is truncated")
      yield record[:-4]


def _prepare(name: str, data_dir: pathlib.Path) -> None:
  """Downloads CIFAR if necessary and prepares it as the package would."""
  tfds = _import()
  from tensorflow_datasets.core.download import download_manager
  from tensorflow_datasets.image_classification import cifar

  stock = {"cifar10": cifar.Cifar10, "cifar100": cifar.Cifar100}[name]
  with tfds.core.registered.skip_registration():
    own = {"name": name, "url_infos": stock.url_infos}
    builder = type("Builder", (_Archive, stock), own)(data_dir=data_dir)
  downloads = data_dir / "downloads"
  manual = downloads / "manual"
  ((url, known),) = stock.url_infos.items()
  advice = (
    f"put {known.filename} ({int(known.size)} bytes, sha256 {known.checksum},"
    f" from {url}) into {manual}, or set dataset.folder to"
    " the folder of the Python files"
  )
  stem = known.filename.removesuffix(".tar.gz")
  # The package names downloads by URL and checksum, and adds an INFO file.
  here = (manual / known.filename, *downloads.rglob(f"*{stem}*.INFO.json"))
  try:
    if not any(path.exists() for path in here):
      request = urllib.request.Request(url, method="HEAD")
      urllib.request.urlopen(request, timeout=_PATIENCE).close()
    with warnings.catch_warnings(action="ignore"):
      builder.download_and_prepare(
        file_format="array_record" if sys.platform == "linux" else "parquet",
        download_config=tfds.download.DownloadConfig(manual_dir=manual),
      )
  except OSError as error:
    raise FileNotFoundError(
      f"{name} is not in {data_dir} and could not be prepared ({error}):"
      f" {advice}"
    ) from error
  except download_manager.NonMatchingChecksumError as error:
    reason = " ".join(str(error).split())
    raise ValueError(f"{reason}; remove that file and {advice}") from error


class _Archive:
  """Builder methods without TensorFlow, and a workaround for parquet."""

  def _example_writer(self) -> Any:
    writer = super()._example_writer()
    write = writer.write
    # For parquet, the package (4.9.10) writes only part of an iterator.
    writer.write = lambda path, examples: write(path, list(examples))
    return writer

  def _split_generators(self, downloads: Any) -> dict[str, Iterator]:
    info = self._cifar_info
    with tarfile.open(downloads.download(info.url)) as tar:
      files = {
        file.name.removeprefix(info.prefix): tar.extractfile(file).read()
        for file in tar
        if file.isfile()
      }
    for key, file in zip(info.label_keys, info.label_files, strict=True):
      self.info.features[key].names = files[file].decode().split()
    splits = {"train": info.train_files, "test": info.test_files}
    return {
      split: self._rows(split, b"".join(files[name] for name in names))
      for split, names in splits.items()
    }

  def _rows(self, split: str, raw: bytes) -> Iterator:
    """Parses rows of label bytes and 3,072 channel-major bytes."""
    keys = self._cifar_info.label_keys
    rows = np.frombuffer(raw, np.uint8).reshape(-1, len(keys) + 3072)
    for index, row in enumerate(rows):
      labels = dict(zip(keys, row[: len(keys)].tolist(), strict=True))
      pixels = row[len(keys) :].reshape(3, 32, 32).transpose(1, 2, 0)
      # Only Pillow images are encoded without TensorFlow.
      image = Image.fromarray(np.ascontiguousarray(pixels))
      yield index, labels | {"id": f"{split}_{index:05d}", "image": image}


def _import() -> Any:
  """The package, or an error that says what to install."""
  try:
    # The package needs importlib_resources, but does not declare it.
    import importlib_resources  # noqa: F401
    import tensorflow_datasets
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f"{error.name} is not installed: pip install tensorflow-datasets"
      " importlib_resources, or set dataset.folder to the folder of the"
      " Python files"
    ) from error
  return tensorflow_datasets
