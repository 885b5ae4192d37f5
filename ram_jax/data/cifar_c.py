"""CIFAR-10-C and CIFAR-100-C: the test images, corrupted by their authors.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019.
"""

import dataclasses
import pathlib

import numpy as np

from ram_jax.data import pipeline, tfds

# The 15 of the benchmark, then the four meant for validation.
NAMES = (
  "gaussian_noise",
  "shot_noise",
  "impulse_noise",
  "defocus_blur",
  "glass_blur",
  "motion_blur",
  "zoom_blur",
  "snow",
  "frost",
  "fog",
  "brightness",
  "contrast",
  "elastic_transform",
  "pixelate",
  "jpeg_compression",
  "speckle_noise",
  "gaussian_blur",
  "spatter",
  "saturate",
)
SEVERITIES = (1, 2, 3, 4, 5)
_TFDS_NAMES = {
  "glass_blur": "frosted_glass_blur",
  "elastic_transform": "elastic",
}
_HOMES = {
  10: "https://zenodo.org/records/2535967 (CIFAR-10-C.tar, 2.9 GB)",
  100: "https://zenodo.org/records/3555552 (CIFAR-100-C.tar, 2.9 GB)",
}


@dataclasses.dataclass(frozen=True)
class CorruptedSource:
  """The published corrupted test sets; nothing is downloaded.

  Attributes:
    classes: 10 or 100.
    folder: folder of the .npy files, or the folder around it ('~' is
      expanded); empty: what tensorflow-datasets has prepared (only CIFAR-10).
    tfds_dir: data folder of tensorflow-datasets, where it is used; empty: its
      default, ~/tensorflow_datasets.
  """

  classes: int = 10
  folder: str = ""
  tfds_dir: str = ""

  def __post_init__(self) -> None:
    if self.classes not in _HOMES:
      raise ValueError(
        f"classes {self.classes} is unknown: CIFAR-C has 10 or 100"
      )
    if self.classes == 100 and not self.folder:
      raise ValueError(
        "tensorflow-datasets has no CIFAR-100-C: give the folder of its .npy"
        f" files, from {_HOMES[100]}"
      )

  @property
  def num_classes(self) -> int:
    """10 or 100."""
    return self.classes

  @property
  def label(self) -> str:
    """Name for tables, with where the images came from."""
    origin = ".npy files" if self.folder else "tensorflow-datasets"
    return f"CIFAR-{self.classes}-C (from {origin})"

  def names(self) -> tuple[str, ...]:
    """The corruptions that are there, at all severities.

    Returns:
      Some of `NAMES`, in its order.

    Raises:
      FileNotFoundError: there is none; the message says where to get them.
    """
    names = tuple(name for name in NAMES if self._has(name))
    if names:
      return names
    place = self._folder() if self.folder else tfds.root(self.tfds_dir)
    raise FileNotFoundError(
      f"no corruption is in {place}: give the folder of the .npy files, from"
      f" {_HOMES[self.classes]}, unpacked with tar -xf"
    )

  def load(
    self, corruption: str, severity: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Reads one corruption at one severity.

    Args:
      corruption: one of `names()`.
      severity: 1 to 5.

    Returns:
      Images uint8 [N, 32, 32, 3] and labels int32 [N]: in the order of the
      test set from .npy files, shuffled by tensorflow-datasets.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: there is no such corruption or severity, or a file is
        damaged or not what it should be.
    """
    if corruption not in NAMES:
      raise ValueError(
        f"corruption {corruption!r} is unknown: choose from {', '.join(NAMES)}"
      )
    if severity not in SEVERITIES:
      raise ValueError(f"severity {severity} is unknown: choose from 1..5")
    images, labels = self._view(corruption, severity)
    return np.array(images), labels

  def _has(self, name: str) -> bool:
    if self.folder:
      return (self._folder() / f"{name}.npy").is_file()
    names = [_tfds_name(name, severity) for severity in SEVERITIES]
    return all(tfds.find(name, self.tfds_dir) for name in names)

  def _folder(self) -> pathlib.Path:
    folder = pathlib.Path(self.folder).expanduser()
    inner = folder / f"CIFAR-{self.classes}-C"
    return inner if inner.is_dir() else folder

  def check(self) -> None:
    """Checks every .npy file without reading the images, within a second.

    Raises:
      FileNotFoundError: there is no corruption at all, or no labels.
      ValueError: a file is damaged or not what it should be.
    """
    for name in self.names():
      for severity in SEVERITIES if self.folder else ():
        self._view(name, severity)

  def _view(
    self, corruption: str, severity: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """As `load`, but images of .npy files stay on the disk."""
    if self.folder:
      images, labels = self._open(corruption, severity)
    else:
      images, labels = self._load_tfds(corruption, severity)
    what = f"{self.label}, {corruption} {severity}"
    pipeline.check(images, labels, self.classes, what)
    return images, labels

  def _open(
    self, corruption: str, severity: int
  ) -> tuple[np.ndarray, np.ndarray]:
    path = self._folder() / f"{corruption}.npy"
    stacked = self._read(path)
    size, rest = divmod(len(stacked), len(SEVERITIES))
    if stacked.dtype != np.uint8 or stacked.shape[1:] != (32, 32, 3) or rest:
      raise ValueError(
        f"{path} is {stacked.dtype} {list(stacked.shape)}, expected uint8"
        " [5 N, 32, 32, 3], five severities one after another"
      )
    rows = slice((severity - 1) * size, severity * size)
    path = self._folder() / "labels.npy"
    labels = self._read(path)
    # The published file repeats the labels for each severity.
    labels = labels[rows] if len(labels) == len(stacked) else labels
    return stacked[rows], pipeline.as_labels(labels, size, str(path))

  def _read(self, path: pathlib.Path) -> np.ndarray:
    """Opens a file without reading it, and without running what is in it."""
    if not path.is_file():
      raise FileNotFoundError(
        f"{path} is missing: get it from {_HOMES[self.classes]}"
      )
    try:
      return np.atleast_1d(np.load(path, mmap_mode="r", allow_pickle=False))
    # Truncated, of objects, or no array at all: each fails in its own way.
    except Exception as error:
      raise ValueError(
        f"{path} ({path.stat().st_size} bytes) is damaged or no plain array"
        f" ({error!r}): get it from {_HOMES[self.classes]}"
      ) from error

  def _load_tfds(
    self, corruption: str, severity: int
  ) -> tuple[np.ndarray, np.ndarray]:
    name = _tfds_name(corruption, severity)
    folder = tfds.find(name, self.tfds_dir)
    if folder is None:
      raise FileNotFoundError(
        f"{name} is not in {tfds.root(self.tfds_dir)}: prepare it with"
        " tensorflow-datasets, or give the folder of the .npy files, from"
        f" {_HOMES[self.classes]}"
      )
    return tfds.read(folder, "test")


def _tfds_name(corruption: str, severity: int) -> str:
  name = _TFDS_NAMES.get(corruption, corruption)
  return f"cifar10_corrupted/{name}_{severity}"
