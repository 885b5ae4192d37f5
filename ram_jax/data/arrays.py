"""A data set of one's own: four arrays in an .npz file or in a folder."""

import dataclasses
import functools
import os
import pathlib
import zipfile

import numpy as np

from ram_jax.data import pipeline

# What unpacks to more than this, and to more than so many times its size in the
# file, is no photograph: a few kilobytes can claim terabytes.
_LARGE, _RATIO = 2**30, 200
_KEYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclasses.dataclass(frozen=True)
class Source:
  """Images and labels from `numpy.savez`, or from `numpy.save` in a folder.

  The file holds train_images, train_labels, test_images and test_labels, the
  folder train_images.npy and so on: images uint8 [N, H, W, 3], or grey
  [N, H, W] or [N, H, W, 1], and integer labels [N]. Images in a folder are
  mapped: they are read where they are used, and need not fit in memory.

  Attributes:
    path: the file or folder ('~' is expanded).
    num_classes: number of classes; 0: one more than the largest label.
    label: name for tables; empty: the file's name.
  """

  path: str
  num_classes: int = 0
  label: str = ""

  def __post_init__(self) -> None:
    if self.num_classes < 0:
      raise ValueError(
        f"num_classes is {self.num_classes}: give how many classes there are, "
        "or 0 for one more than the largest label"
      )
    path = pathlib.Path(os.path.expanduser(self.path))
    object.__setattr__(self, "label", self.label or path.stem)
    if not self.num_classes:
      largest = max(self._labels(split).max() for split in pipeline.SPLITS)
      object.__setattr__(self, "num_classes", int(largest) + 1)

  @property
  def mean(self) -> tuple[float, ...]:
    """Mean of the training images, per channel, in [0, 1]."""
    return self._statistics[0]

  @property
  def std(self) -> tuple[float, ...]:
    """Standard deviation of the training images, per channel, in [0, 1]."""
    return self._statistics[1]

  def load(self, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split.

    Args:
      split: 'train' or 'test'.

    Returns:
      Images uint8 [N, H, W, 3] and labels int32 [N].

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, lacks an array, or an array is not what it
        should be.
    """
    images, labels = self._images(split), self._labels(split)
    if len(images) != len(labels):
      raise ValueError(
        f"{self.path}: {len(images)} {split}_images but {len(labels)}"
        f" {split}_labels"
      )
    return images, labels

  def _images(self, split: str) -> np.ndarray:
    key = f"{split}_images"
    images = _read(self.path, key)
    if images.ndim == 3:
      images = images[..., None]
    colour = images.ndim == 4 and images.shape[-1] in (1, 3)
    if images.dtype != np.uint8 or not colour or not images.size:
      raise ValueError(
        f"{self.path}: {key} is {images.dtype} {list(images.shape)}, expected"
        " uint8 [N, H, W, 3] or [N, H, W]"
      )
    return np.broadcast_to(images, (*images.shape[:3], 3))  # not copied

  def _labels(self, split: str) -> np.ndarray:
    key = f"{split}_labels"
    labels = _read(self.path, key)
    if not labels.size:
      raise ValueError(f"{self.path}: {key} is empty")
    return pipeline.as_labels(labels, len(labels), f"{self.path}: {key}")

  @functools.cached_property
  def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Exact, from counts of each value: no copy of the images as floats."""
    images = self._images("train")
    counts = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), pipeline.CHUNK):
      part = np.moveaxis(images[start : start + pipeline.CHUNK], -1, 0)
      counts += [np.bincount(c.ravel(), minlength=256) for c in part]
    values = np.arange(256) / 255
    mean, std = [], []
    for share in counts / counts[0].sum():
      mean.append(float(share @ values))
      std.append(float(np.sqrt(share @ (values - mean[-1]) ** 2)))
    if not all(std):
      raise ValueError(
        f"{self.path}: a channel of train_images is constant (std {std}), so"
        " it cannot be normalised"
      )
    return tuple(mean), tuple(std)


def _read(name: str, key: str) -> np.ndarray:
  """One array; never a pickled one, which could run code."""
  path = pathlib.Path(os.path.expanduser(name))
  if not name or not path.exists():
    raise FileNotFoundError(
      f"{name or 'the path'} is missing: dataset.path must name an .npz file "
      f"with {', '.join(_KEYS)}, or a folder with these as .npy files"
    )
  try:
    found = _found(path)
    if key in found:
      if path.is_dir():
        mapped = np.load(path / f"{key}.npy", "r", allow_pickle=False)
        return np.atleast_1d(mapped).view(np.ndarray)
      with np.load(path, allow_pickle=False) as arrays:
        return np.atleast_1d(arrays[key])
  # A damaged archive fails in any of several ways, an object array in another.
  except Exception as error:
    raise ValueError(
      f"{path}: {key} cannot be read ({error!r}): write plain arrays with"
      " numpy.savez, or with numpy.save into a folder"
    ) from error
  raise ValueError(
    f"{path} lacks {key}: it must hold {', '.join(_KEYS)} and holds {found}"
  )


def _found(path: pathlib.Path) -> list[str]:
  """The arrays of a file or folder by name."""
  if path.is_dir():
    return sorted(file.stem for file in path.glob("*.npy"))
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      packed = max(info.compress_size, 1)
      if info.file_size > max(_LARGE, _RATIO * packed):
        raise ValueError(
          f"{info.filename} would unpack from {packed} to {info.file_size} "
          "bytes"
        )
    return sorted(n.removesuffix(".npy") for n in archive.namelist())
