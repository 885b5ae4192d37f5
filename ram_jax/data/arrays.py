"""User-provided data sets and mixing sets, in .npz files or in folders."""

import dataclasses
import functools
import os
import pathlib
import zipfile

import numpy as np

from ram_jax.contracts import Split
from ram_jax.data import pipeline, sanity

# Archive members that unpack to more than _LARGE bytes and to more than _RATIO
# times their compressed size are rejected: kilobytes can expand to gigabytes.
_LARGE, _RATIO = 2**30, 200
# How to convert arrays of other types and layouts, for error messages.
_IMAGE_ADVICE = (
  "convert [N, 3, H, W] with images.transpose(0, 2, 3, 1), drop transparency "
  "with images[..., :3], convert floats in [0, 1] with "
  "(images * 255).round().astype(numpy.uint8) and others with "
  "images.round().astype(numpy.uint8), and undo any normalization"
)
_LABEL_ADVICE = (
  "convert [N, 1] with labels.squeeze(), one-hot labels with labels.argmax(1), "
  "other types with labels.astype(int), and names to their positions in "
  "numpy.unique of all labels"
)
_PICTURES = 2**26  # maximum bytes of a mixing set
_KEYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclasses.dataclass(frozen=True)
class Source:
  """Images and labels from `numpy.savez`, or from `numpy.save` in a folder.

  The file contains train_images, train_labels, test_images and test_labels; the
  folder contains train_images.npy and so on. Images are uint8 [N, H, W, 3], or
  gray [N, H, W] or [N, H, W, 1]; labels are integers [N] from 0 to K - 1.
  Color images in a folder are memory-mapped and may be larger than memory;
  gray training images are copied.

  Attributes:
    path: the file or folder ('~' is expanded).
    num_classes: number of classes K; 0: largest label + 1, in which case each
      class must have a training image.
    label: name for tables; empty: the file's name.
  """

  path: str
  num_classes: int = 0
  label: str = ""

  def __post_init__(self) -> None:
    path = pathlib.Path(os.path.expanduser(self.path))
    object.__setattr__(self, "label", self.label or path.stem)
    if not self.num_classes:
      object.__setattr__(self, "num_classes", self._count_classes())

  @property
  def mean(self) -> tuple[float, ...]:
    """Mean of the training images, per channel, in [0, 1]."""
    return self._statistics[0]

  @property
  def std(self) -> tuple[float, ...]:
    """Standard deviation of the training images, per channel, in [0, 1]."""
    return self._statistics[1]

  def load(self, split: str) -> Split:
    """Reads one split.

    Args:
      split: 'train' or 'test'.

    Returns:
      Images uint8 [N, H, W, 3] and labels int32 [N].

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, an array is missing, or an array has the wrong
        type or layout.
    """
    return self._images(split), self._labels(split)

  def _count_classes(self) -> int:
    """Largest label + 1; checks that each class has a training image."""
    train, test = (np.unique(self._labels(split)) for split in pipeline.SPLITS)
    known = np.union1d(train, test)
    count = int(known[-1]) + 1
    if len(train) < count or train[0] < 0:
      raise ValueError(
        f"{self.path}: train_labels are {sanity.listed(train)} and "
        f"test_labels {sanity.listed(test)}, so a label is negative, or "
        f"some class from 0 to {count - 1} has no training image: store labels "
        "from 0 to "
        f"{len(known) - 1}, their positions in numpy.unique of all labels, or "
        "give the number of classes (config.dataset.num_classes) if this is "
        "intended"
      )
    return count

  def _images(self, split: str) -> np.ndarray:
    key = f"{split}_images"
    images = found = _read(self.path, key)
    if images.ndim == 3:
      images = images[..., None]
    color = images.ndim == 4 and images.shape[-1] in (1, 3)
    if images.dtype != np.uint8 or not color or not images.size:
      raise ValueError(
        f"{self.path}: {key} is {_described(found)}, expected uint8 "
        f"[N, H, W, 3] or gray [N, H, W], from 0 to 255: {_IMAGE_ADVICE}"
      )
    return np.broadcast_to(images, (*images.shape[:3], 3))  # not copied

  def _labels(self, split: str) -> np.ndarray:
    key = f"{split}_labels"
    labels = _read(self.path, key)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
      raise ValueError(
        f"{self.path}: {key} is {_described(labels)}, expected integers [N] "
        f"from 0: {_LABEL_ADVICE}"
      )
    return pipeline.as_labels(labels, len(labels), f"{self.path}: {key}")

  @functools.cached_property
  def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computed exactly from counts of each value, without float copies."""
    images = self._images("train")
    counts = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), pipeline.CHUNK):
      part = np.moveaxis(images[start : start + pipeline.CHUNK], -1, 0)
      counts += [np.bincount(c.ravel(), minlength=256) for c in part]
    values = np.arange(256) / 255
    mean, std = [], []
    for fraction in counts / counts[0].sum():
      mean.append(float(fraction @ values))
      std.append(float(np.sqrt(fraction @ (values - mean[-1]) ** 2)))
    if not all(std):
      raise ValueError(
        f"{self.path}: a channel of train_images is constant (std {std}), so"
        " it cannot be normalized"
      )
    return tuple(mean), tuple(std)


@dataclasses.dataclass(frozen=True)
class Pictures:
  """A mixing set for PixMix, from `numpy.savez` or `numpy.save` in a folder.

  The file contains `pictures`; the folder, pictures.npy: uint8 [M, h, w, 3], at
  least as large as the training images. Random crops of the pictures are mixed
  into the training images.

  Attributes:
    path: the file or folder ('~' is expanded).
  """

  path: str

  def __post_init__(self) -> None:
    found = self._read
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[-1] != 3:
      raise ValueError(
        f"{self.path}: pictures is {_described(found)}, expected uint8 "
        f"[M, h, w, 3], from 0 to 255: {_IMAGE_ADVICE}"
      )
    if not 0 < found.nbytes <= _PICTURES:
      raise ValueError(
        f"{self.path}: pictures {list(found.shape)} take {found.nbytes} bytes: "
        f"give 1 to {_PICTURES}, because pictures are compiled into the program"
      )

  @functools.cached_property
  def _read(self) -> np.ndarray:
    return np.asarray(_read(self.path, "pictures", ("pictures",)))

  def load(self, size: tuple[int, int]) -> np.ndarray:
    """Reads the pictures.

    Args:
      size: (H, W) of the training images.

    Returns:
      uint8 [M,h,w,3].

    Raises:
      ValueError: if they are smaller than the images.
    """
    found = self._read
    if min(n - m for n, m in zip(found.shape[1:], size, strict=False)) < 0:
      raise ValueError(
        f"{self.path}: pictures are {found.shape[1]}x{found.shape[2]} pixels, "
        f"but the training images are {size[0]}x{size[1]}: give pictures that "
        "are at least as large"
      )
    return found


def _described(array: np.ndarray) -> str:
  """Type and shape, and the range of the values in the first rows."""
  text = f"{array.dtype} {list(array.shape)}"
  if array.size and array.dtype.kind in "biuf":
    first = array[: pipeline.CHUNK].astype(float)
    text += f" from {first.min():.4g} to {first.max():.4g}"
  return text


def _read(name: str, key: str, keys: tuple[str, ...] = _KEYS) -> np.ndarray:
  """Reads one array; rejects pickled ones, which could run code."""
  path = pathlib.Path(os.path.expanduser(name))
  field = "dataset.path" if keys == _KEYS else "pictures.path"
  if not name or not path.exists():
    raise FileNotFoundError(
      f"{name or 'the path'} is missing: {field} must name an .npz file "
      f"with {', '.join(keys)}, or a folder with these as .npy files"
    )
  try:
    found = _found(path)
    if key in found:
      if path.is_dir():
        array = np.load(path / f"{key}.npy", "r", allow_pickle=False)
      else:
        with np.load(path, allow_pickle=False) as arrays:
          array = arrays[key]
      return np.atleast_1d(array).view(np.ndarray)
  # Damaged archives and object arrays raise many types of errors.
  except Exception as error:
    raise ValueError(
      f"{path}: {key} cannot be read ({error!r}): store plain arrays, such as "
      "numpy.array(labels, int) and, for images of the same size, "
      "numpy.stack(images), with numpy.savez, or with numpy.save in a folder"
    ) from error
  raise ValueError(
    f"{path} lacks {key}: it holds {found} but must hold {', '.join(keys)}: "
    "save the arrays under these names"
  )


def _found(path: pathlib.Path) -> list[str]:
  """The names of the arrays in a file or folder."""
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
