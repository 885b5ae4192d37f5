"""CIFAR-10-C, CIFAR-100-C and folders like them: corrupted test sets.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
from typing import Any

import numpy as np

from ram_jax.corruptions import NAMES, SEVERITIES, check_choice
from ram_jax.data import generated, manifest, pipeline, tfds

# Where tensorflow-datasets has other names.
_TFDS = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
_HOMES = {
  10: "https://zenodo.org/records/2535967 (CIFAR-10-C.tar, 2.9 GB)",
  100: "https://zenodo.org/records/3555552 (CIFAR-100-C.tar, 2.9 GB)",
}


@dataclasses.dataclass(frozen=True)
class CorruptedSource:
  """Corrupted test sets that were made before; nothing is downloaded.

  Attributes:
    classes: 10 or 100, of the published sets; a folder that was made here says
      itself how many there are.
    folder: folder of the .npy files, or the folder around it ('~' is
      expanded); empty: what tensorflow-datasets has prepared (only CIFAR-10).
    tfds_dir: data folder of tensorflow-datasets, where it is used; empty: its
      default, ~/tensorflow_datasets.
    only: corruptions that are wanted; empty: all that are there.
    severities: those that are wanted, some of 1 to 5.
  """

  classes: int = 10
  folder: str = ""
  tfds_dir: str = ""
  only: tuple[str, ...] = ()
  severities: tuple[int, ...] = SEVERITIES

  def __post_init__(self) -> None:
    if self.classes == 100 and not self.folder:
      raise ValueError(
        "tensorflow-datasets has no CIFAR-100-C: give the folder of its .npy"
        f" files, from {_HOMES[100]}"
      )

  @functools.cached_property
  def _about(self) -> dict[str, Any]:
    """The manifest of a folder that was made here, or what stands for it."""
    made_with = {"seed": None, "data": {"classes": self.classes}}
    other = {"made_with": made_with, "files": {}, "missing": {}}
    return (manifest.read(self._place) if self.folder else None) or other

  @property
  def num_classes(self) -> int:
    """10 or 100, or what the folder's manifest says."""
    return self._about["made_with"]["data"]["classes"]

  @property
  def seed(self) -> int | None:
    """Of a folder that was made here; None of others."""
    return self._about["made_with"]["seed"]

  @property
  def is_generated(self) -> bool:
    """Whether this program wrote the folder."""
    return self.seed is not None

  @functools.cached_property
  def label(self) -> str:
    """Name for tables, with where the images came from; reads every file."""
    if self.is_generated:
      return generated.label(self.seed)
    name = f"CIFAR-{self.classes}-C"
    if not self.folder:
      return f"{name} (from tensorflow-datasets)"
    files = [f"{file}.npy" for file in (*self.names(), "labels")]
    original = manifest.is_published(self._place, name, files)
    return name if original else f"{name} (not the original files)"

  def names(self) -> tuple[str, ...]:
    """The corruptions that are there, at the severities that are wanted.

    Returns:
      Some of `NAMES`, in its order; those in `only`, there or not.

    Raises:
      FileNotFoundError: there is none; the message says where to get them.
    """
    if self.only:
      return tuple(name for name in NAMES if name in self.only)
    if names := tuple(name for name in NAMES if not self._absent(name)):
      return names
    wanted = ", ".join(map(str, self.severities))
    at = "" if self.folder else f" at severity {wanted} (all of them)"
    raise FileNotFoundError(
      f"no corruption is in {self._place}{at}: {self._source}"
    )

  def missing(self) -> dict[str, str]:
    """Why corruptions are not there, by name, where all are wanted."""
    why, missing = self._about["missing"], {}
    for name in () if self.only else NAMES:
      if absent := self._absent(name):
        every = len(absent) == len(self.severities)
        what = "it" if every else f"severity {absent[0]}"
        missing[name] = why.get(name, f"{what} is not in {self._place}")
    return missing

  def load(
    self, corruption: str, severity: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Reads one corruption at one severity.

    Args:
      corruption: one of `names()`.
      severity: 1 to 5.

    Returns:
      Images uint8 [N, H, W, 3] and labels int32 [N], in the order of the
      test set, which `check` verifies by the labels.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: there is no such corruption or severity, or a file is
        damaged or not what it should be.
    """
    check_choice((corruption,), (severity,))
    images, labels = self._view(corruption, severity)
    return np.array(images), labels

  def check(self, images: np.ndarray, labels: np.ndarray) -> None:
    """Checks all that is wanted, and that it is of this test set.

    Reads the images of .npy files only in folders with a manifest, for their
    checksums.

    Args:
      images: uint8 [N, H, W, 3], the clean test set, or its first images.
      labels: int32 [N], in the order of the published test set.

    Raises:
      FileNotFoundError: there is no corruption at all, or no labels.
      ValueError: a file is damaged or not what it should be.
    """
    names = self.names()
    for name in (*names, "labels") if self.is_generated else ():
      manifest.check(self._place, self._about["files"], f"{name}.npy")
    for name, severity in itertools.product(names, self.severities):
      what = f"{self._place}, {name} {severity}"
      _compare(*self._view(name, severity), images, labels, what)
    made = self._about["made_with"]["data"]
    # Of a part of the test set only the labels can be compared.
    if self.is_generated and made["size"] == len(labels):
      theirs, ours = made["fingerprint"], pipeline.fingerprint(images, labels)
      if theirs != ours:
        raise ValueError(
          f"{self._place} was made from other images ({made['label']},"
          f" {theirs[:19]}...) than the test set's ({ours[:19]}...): "
          f"{manifest.AGAIN}"
        )

  @functools.cached_property
  def _place(self) -> pathlib.Path:
    """The folder of the files, or that of tensorflow-datasets."""
    if not self.folder:
      return tfds.root(self.tfds_dir)
    folder = pathlib.Path(os.path.expanduser(self.folder))
    inner = folder / f"CIFAR-{self.classes}-C"
    return inner if inner.is_dir() else folder

  def _find(self, corruption: str, severity: int) -> pathlib.Path | None:
    """What holds a corruption: a file, or a folder of tensorflow-datasets."""
    if not self.folder:
      name = f"{_TFDS.get(corruption, corruption)}_{severity}"
      return tfds.find(f"cifar10_corrupted/{name}", self.tfds_dir)
    path = self._place / f"{corruption}.npy"
    made = self._about["files"]
    there = path.name in made if self.is_generated else path.is_file()
    return path if there else None

  def _absent(self, name: str) -> list[int]:
    """The wanted severities at which a corruption is not there."""
    return [s for s in self.severities if not self._find(name, s)]

  def _view(
    self, corruption: str, severity: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """As `load`, but images of .npy files stay on the disk."""
    path = self._find(corruption, severity)
    if path is None:
      raise FileNotFoundError(
        f"{corruption} {severity} is not in {self._place}: {self._source}"
      )
    if self.folder:
      data = self._open(path, severity)
    else:
      data = tfds.read(path, "test", by="index")
    what = f"{self._place}, {corruption} {severity}"
    pipeline.check(*data, self.num_classes, what)
    return data

  @property
  def _source(self) -> str:
    """Where files are to be had."""
    home = (
      f"get the .npy files from {_HOMES[self.classes]}, unpack with tar -xf"
    )
    return manifest.AGAIN if self.is_generated else home

  def _open(
    self, path: pathlib.Path, severity: int
  ) -> tuple[np.ndarray, np.ndarray]:
    stacked = self._read(path)
    size, rest = divmod(len(stacked), len(SEVERITIES))
    if stacked.dtype != np.uint8 or stacked.ndim != 4 or rest:
      raise ValueError(
        f"{path} is {stacked.dtype} {list(stacked.shape)}, expected uint8"
        " [5 N, H, W, 3], five severities one after another"
      )
    rows = slice((severity - 1) * size, severity * size)
    path = self._place / "labels.npy"
    labels = self._read(path)
    # The published file repeats the labels for each severity.
    labels = labels[rows] if len(labels) == len(stacked) else labels
    return stacked[rows], pipeline.as_labels(labels, size, str(path))

  def _read(self, path: pathlib.Path) -> np.ndarray:
    """Opens a file without reading it, and without running what is in it."""
    if not path.is_file():
      raise FileNotFoundError(f"{path} is missing: {self._source}")
    try:
      return np.atleast_1d(np.load(path, mmap_mode="r", allow_pickle=False))
    # Truncated, of objects, or no array at all: each fails in its own way.
    except Exception as error:
      raise ValueError(
        f"{path} ({path.stat().st_size} bytes) is damaged or no plain array"
        f" ({error!r}): {self._source}"
      ) from error


def _compare(
  there: np.ndarray,
  truth: np.ndarray,
  images: np.ndarray,
  labels: np.ndarray,
  what: str,
) -> None:
  """Rejects corrupted images that are not those of a test set."""
  size = len(labels)
  if there.shape[1:] != images.shape[1:] or len(there) < size:
    raise ValueError(
      f"{what}, holds {len(there)} images of {list(there.shape[1:])}, the"
      f" test set {size} of {list(images.shape[1:])}: give the folder made"
      f" from this test set, or measure its first {len(there)} images"
      f" (config.evaluate.images)"
    )
  wrong = np.flatnonzero(truth[:size] != labels)
  if len(wrong):
    i = wrong[0]
    raise ValueError(
      f"{what}: the labels are not the test set's in its order:"
      f" {len(wrong)} of {size} differ, the first at index {i} ({truth[i]}"
      f" there, {labels[i]} in the test set): the folder is of another data"
      " set, or its order was changed"
    )
