"""CIFAR-10 and CIFAR-100, from their python files or tensorflow-datasets."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from ram_jax.data import pipeline, tfds, unpickle


class _Files(NamedTuple):
  """The published archive of one of the two data sets."""

  folder: str
  archive: str
  archive_md5: str
  label_key: str
  splits: dict[str, dict[str, str]]  # split: file: md5
  mean: tuple[float, float, float]
  std: tuple[float, float, float]


# md5 as in torchvision/datasets/cifar.py. Mean and standard deviation of the
# 50,000 training images, each channel, in [0, 1]: the figures usual in the
# field (0.4914 0.4822 0.4465 / 0.2470 0.2435 0.2616) with all their digits.
_FILES = {
  10: _Files(
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
    "labels",
    {
      "train": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
      },
      "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
    },
    (0.49139968, 0.48215841, 0.44653091),
    (0.24703223, 0.24348513, 0.26158784),
  ),
  100: _Files(
    "cifar-100-python",
    "cifar-100-python.tar.gz",
    "eb9058c3a382ffc7106e4002c42a8d85",
    "fine_labels",
    {
      "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
      "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    },
    (0.50707516, 0.48654887, 0.44091784),
    (0.26733429, 0.25643846, 0.27615047),
  ),
}
_HOME = "https://www.cs.toronto.edu/~kriz"
_SIZES = {"train": 50_000, "test": 10_000}  # of both


class _Label:
  """The label given or, where none was, the one that the files deserve."""

  def __get__(self, source: Any, owner: type | None = None) -> str:
    if source is None:
      return ""  # the field's default
    return vars(source)["label"] or source.derived_label

  def __set__(self, source: Any, label: str) -> None:
    vars(source)["label"] = label


@dataclasses.dataclass(frozen=True)
class Source:
  """CIFAR-10 or CIFAR-100, 50,000 training and 10,000 test images.

  Attributes:
    classes: 10 or 100 (fine labels).
    folder: folder of the python files that PyTorch users have, or the folder
      around it ('~' is expanded); empty: tensorflow-datasets.
    tfds_dir: data folder of tensorflow-datasets, where it is used; empty: its
      default, ~/tensorflow_datasets.
    label: name for tables; left empty, it says whether the files are the
      published ones.
  """

  classes: int = 10
  folder: str = ""
  tfds_dir: str = ""
  label: str = _Label()

  def __post_init__(self) -> None:
    if self.classes not in _FILES:
      raise ValueError(
        f"classes {self.classes} is unknown: CIFAR has 10 or 100"
      )

  @property
  def num_classes(self) -> int:
    """10 or 100."""
    return self.classes

  @property
  def mean(self) -> tuple[float, float, float]:
    """Mean of the training images, per channel, in [0, 1]."""
    return _FILES[self.classes].mean

  @property
  def std(self) -> tuple[float, float, float]:
    """Standard deviation of the training images, per channel, in [0, 1]."""
    return _FILES[self.classes].std

  @functools.cached_property
  def derived_label(self) -> str:
    """'CIFAR-10', and a note where a file is not the published one."""
    name = f"CIFAR-{self.classes}"
    return name if self._is_original() else f"{name} (not the original files)"

  @functools.cached_property
  def notes(self) -> tuple[str, ...]:
    """A sentence where there are not as many images as were published."""
    sizes = self._sizes()
    if sizes in ({}, _SIZES):
      return ()
    return (
      "{}: {train:,} training and {test:,} test images, not {:,} and"
      " {:,}".format(self.label, *_SIZES.values(), **sizes),
    )

  def load(self, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split, in the order of the published files.

    Args:
      split: 'train' or 'test'.

    Returns:
      Images uint8 [N, 32, 32, 3] and labels int32 [N].

    Raises:
      FileNotFoundError: a file is missing; the message says where to get it.
      ValueError: a file is damaged or not what it should be.
    """
    if not self.folder:
      return tfds.load(f"cifar{self.classes}", split, self.tfds_dir)
    key = _FILES[self.classes].label_key
    batches = [_read(path, key) for path, _ in self._paths(split)]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)

  def _paths(self, split: str) -> list[tuple[pathlib.Path, str]]:
    """The files of one split, all of which exist, and their md5."""
    files = _FILES[self.classes]
    folder = pathlib.Path(os.path.expanduser(self.folder))
    if (folder / files.folder).is_dir():
      folder = folder / files.folder
    paths = [(folder / name, md5) for name, md5 in files.splits[split].items()]
    for path, _ in paths:
      if not path.is_file():
        raise FileNotFoundError(
          f"{path} is missing: dataset.folder must hold {files.folder}/ with"
          f" {', '.join([*files.splits['train'], *files.splits['test']])};"
          f" get {_HOME}/{files.archive} (md5 {files.archive_md5}) and unpack"
          f" it there with tar -xzf, or leave dataset.folder empty to use"
          " tensorflow-datasets"
        )
    return paths

  def _sizes(self) -> dict[str, int]:
    """Images by split; empty where they are still to be prepared."""
    if not self.folder:
      found = tfds.sizes(f"cifar{self.classes}", self.tfds_dir)
      return found and {split: found.get(split, 0) for split in _SIZES}
    sizes = dict.fromkeys(_SIZES, 0)
    for split in sizes:
      # To evaluate a file of weights, the test images are enough.
      with contextlib.suppress(FileNotFoundError):
        sizes[split] = len(self.load(split)[1])
    return sizes

  def _is_original(self) -> bool:
    if not self.folder:
      # tensorflow-datasets checks the archive itself.
      return self._sizes() in ({}, _SIZES)
    paths = self._paths("train") + self._paths("test")
    return all(_md5(path) == md5 for path, md5 in paths)


def _md5(path: pathlib.Path) -> str:
  with open(path, "rb") as file:
    digest = hashlib.file_digest(
      file, lambda: hashlib.md5(usedforsecurity=False)
    )
  return digest.hexdigest()


def _read(path: pathlib.Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
  """One file: images uint8 [N, 32, 32, 3] and labels int32 [N]."""
  batch = unpickle.load(path)
  if missing := {"data", label_key} - set(batch):
    raise ValueError(
      f"{path} lacks {sorted(missing)}, it holds {sorted(batch)}: is it of the"
      " data set that dataset.classes names?"
    )
  data = batch["data"]
  dtype = getattr(data, "dtype", type(data).__name__)
  if dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
    raise ValueError(
      f"{path}: data is {dtype} {list(np.shape(data))}, expected uint8"
      " [N, 3072] (32 x 32 x 3): get the file again"
    )
  images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
  labels = pipeline.as_labels(
    batch[label_key], len(data), f"{path}: {label_key}"
  )
  return np.ascontiguousarray(images), labels
