"""CIFAR-10 and CIFAR-100, from their Python files or tensorflow-datasets."""

import contextlib
import dataclasses
import os
import pathlib
from typing import NamedTuple

import numpy as np

from ram_jax.contracts import Split
from ram_jax.data import manifest, pipeline, tfds, unpickle


class _Set(NamedTuple):
  """One of the two data sets."""

  folder: str  # of its Python files, which manifest.PUBLISHED lists
  label_key: str
  mean: tuple[float, float, float]
  std: tuple[float, float, float]


# Mean and standard deviation of the 50,000 training images per channel, in
# [0, 1]. For CIFAR-10, these are the commonly used values (0.4914 0.4822 0.4465
# / 0.2470 0.2435 0.2616) with more digits.
_SETS = {
  10: _Set(
    "cifar-10-batches-py",
    "labels",
    (0.49139968, 0.48215841, 0.44653091),
    (0.24703223, 0.24348513, 0.26158784),
  ),
  100: _Set(
    "cifar-100-python",
    "fine_labels",
    (0.50707516, 0.48654887, 0.44091784),
    (0.26733429, 0.25643846, 0.27615047),
  ),
}
_HOME = "https://www.cs.toronto.edu/~kriz"
_SIZES = {"train": 50_000, "test": 10_000}  # of both data sets


@dataclasses.dataclass(frozen=True)
class Source:
  """CIFAR-10 or CIFAR-100, 50,000 training and 10,000 test images.

  Attributes:
    classes: 10 or 100 (fine labels).
    folder: folder of the Python files, or its parent ('~' is expanded); empty:
      use tensorflow-datasets.
    tfds_dir: data folder of tensorflow-datasets, if it is used; empty:
      $TFDS_DATA_DIR, or ~/tensorflow_datasets if that is not set.
    label: name for tables; empty: CIFAR-10 or CIFAR-100, with a note if the
      files are not the published ones.
  """

  classes: int = 10
  folder: str = ""
  tfds_dir: str = ""
  label: str = ""

  def __post_init__(self) -> None:
    if self.classes not in _SETS:
      raise ValueError(f"classes is {self.classes}: give 10 or 100")
    if not self.label:
      other = "" if self._is_original() else " (not the original files)"
      object.__setattr__(self, "label", f"CIFAR-{self.classes}{other}")

  @property
  def num_classes(self) -> int:
    """10 or 100."""
    return self.classes

  @property
  def mean(self) -> tuple[float, float, float]:
    """Mean of the training images, per channel, in [0, 1]."""
    return _SETS[self.classes].mean

  @property
  def std(self) -> tuple[float, float, float]:
    """Standard deviation of the training images, per channel, in [0, 1]."""
    return _SETS[self.classes].std

  @property
  def notes(self) -> tuple[str, ...]:
    """A note if the numbers of images are not those of the published files."""
    sizes = self._sizes()
    if sizes in ({}, _SIZES):
      return ()
    return (
      "{}: {train:,} training and {test:,} test images, not {:,} and"
      " {:,}".format(self.label, *_SIZES.values(), **sizes),
    )

  def load(self, split: str) -> Split:
    """Reads one split, in the order of the published files.

    Args:
      split: 'train' or 'test'.

    Returns:
      Images uint8 [N, 32, 32, 3] and labels int32 [N].

    Raises:
      FileNotFoundError: a file is missing; the message says where to get it.
      ValueError: a file is damaged or has the wrong content.
    """
    if not self.folder:
      return tfds.load(f"cifar{self.classes}", split, self.tfds_dir)
    batches = [self._read(name) for name in self._files(split)]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)

  def _files(self, split: str) -> list[str]:
    names = manifest.PUBLISHED[_SETS[self.classes].folder]
    return [name for name in names if ("test" in name) == (split == "test")]

  def _folder(self) -> pathlib.Path:
    folder = pathlib.Path(os.path.expanduser(self.folder))
    inner = folder / _SETS[self.classes].folder
    return inner if inner.is_dir() else folder

  def _sizes(self) -> dict[str, int]:
    """Number of images by split; empty if the data is not prepared yet."""
    if not self.folder:
      found = tfds.sizes(f"cifar{self.classes}", self.tfds_dir)
      return found and {split: found.get(split, 0) for split in _SIZES}
    sizes = dict.fromkeys(_SIZES, 0)
    for split in sizes:
      # The test images are sufficient to evaluate a weights file.
      with contextlib.suppress(FileNotFoundError):
        sizes[split] = len(self.load(split)[1])
    return sizes

  def _is_original(self) -> bool:
    if not self.folder:
      # tensorflow-datasets verifies the archive itself.
      return self._sizes() in ({}, _SIZES)
    return manifest.is_published(self._folder(), _SETS[self.classes].folder)

  def _read(self, name: str) -> Split:
    """One file: images uint8 [N, 32, 32, 3] and labels int32 [N]."""
    path, key = self._folder() / name, _SETS[self.classes].label_key
    if not path.is_file():
      raise self._missing(path)
    batch = unpickle.load(path)
    if missing := {"data", key} - set(batch):
      raise ValueError(
        f"{path} lacks {sorted(missing)} but has {sorted(map(str, batch))}: "
        "check that dataset.classes matches the file"
      )
    data = batch["data"]
    dtype = getattr(data, "dtype", type(data).__name__)
    if dtype != np.uint8 or data.shape[1:] != (3072,):
      raise ValueError(
        f"{path}: data is {dtype} {list(np.shape(data))}, expected uint8"
        " [N, 3072] (32 x 32 x 3): get the file again"
      )
    images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = pipeline.as_labels(batch[key], len(data), f"{path}: {key}")
    return np.ascontiguousarray(images), labels

  def _missing(self, path: pathlib.Path) -> FileNotFoundError:
    folder = _SETS[self.classes].folder
    archive = f"cifar-{self.classes}-python.tar.gz"
    return FileNotFoundError(
      f"{path} is missing: dataset.folder must hold {folder}/ with "
      f"{', '.join(manifest.PUBLISHED[folder])}; get {_HOME}/{archive} (md5 "
      f"{manifest.PUBLISHED[''][archive]}) and unpack it there with tar -xzf, "
      "or leave dataset.folder empty to use tensorflow-datasets"
    )
