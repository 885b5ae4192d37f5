"""CIFAR-10-C, CIFAR-100-C and folders like them: corrupted test sets.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np

from ram_jax.data import checksums, generated, manifest, pipeline, tfds
from ram_jax.data.generated import NAMES, SEVERITIES

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
    if self.classes not in _HOMES:
      raise ValueError(
        f"classes {self.classes} is unknown: CIFAR-C has 10 or 100"
      )
    if self.classes == 100 and not self.folder:
      raise ValueError(
        "tensorflow-datasets has no CIFAR-100-C: give the folder of its .npy"
        f" files, from {_HOMES[100]}"
      )

  @functools.cached_property
  def made_here(self) -> dict[str, Any] | None:
    """The manifest of a folder that this program wrote; None of others."""
    return manifest.read(self._folder()) if self.folder else None

  @property
  def num_classes(self) -> int:
    """10 or 100, or what the folder's manifest says."""
    if self.made_here:
      return self.made_here["made_with"]["data"]["classes"]
    return self.classes

  @property
  def seed(self) -> int | None:
    """Of a folder that was made here; None of others."""
    return self.made_here and self.made_here["made_with"]["seed"]

  @functools.cached_property
  def label(self) -> str:
    """Name for tables, with where the images came from; reads every file."""
    if self.made_here:
      return generated.label(self.seed)
    name = f"CIFAR-{self.classes}-C"
    if not self.folder:
      return f"{name} (from tensorflow-datasets)"
    published = checksums.PUBLISHED[self.classes]
    original = all(
      manifest.digest(self._folder() / f"{name}.npy", "md5")
      == f"md5:{published[name]}"
      for name in (*self.names(), "labels")
    )
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
    names = tuple(name for name in NAMES if not self._absent(name))
    if names:
      return names
    wanted = ", ".join(map(str, self.severities))
    at = "" if self.folder else f" at severity {wanted} (all of them)"
    raise FileNotFoundError(
      f"no corruption is in {self._place()}{at}: give the folder of the .npy"
      f" files, from {_HOMES[self.classes]}, unpacked with tar -xf"
    )

  def missing(self) -> dict[str, str]:
    """Why corruptions are not there, by name, where all are wanted."""
    if self.only:
      return {}
    why = self.made_here["missing"] if self.made_here else {}
    missing = {}
    for name in NAMES:
      if absent := self._absent(name):
        what = "it" if absent == self.severities else f"severity {absent[0]}"
        missing[name] = why.get(name, f"{what} is not in {self._place()}")
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
    generated.check_choice((corruption,), (severity,))
    images, labels = self._view(corruption, severity)
    return np.array(images), labels

  def check(
    self,
    images: np.ndarray | None = None,
    labels: np.ndarray | None = None,
  ) -> None:
    """Checks all that is wanted, and that it is of this test set.

    Reads the images of .npy files only in folders with a manifest, for their
    checksums.

    Args:
      images: uint8 [N, H, W, 3], the clean test set, or its first images; None:
        the files are checked by themselves.
      labels: int32 [N], in the order of the published test set.

    Raises:
      FileNotFoundError: there is no corruption at all, or no labels.
      ValueError: a file is damaged or not what it should be.
    """
    if self.made_here:
      for name in (*self.names(), "labels"):
        manifest.check(self._folder(), self.made_here["files"], f"{name}.npy")
    for name in self.names():
      for severity in self.severities:
        there, truth = self._view(name, severity)
        if images is not None:
          self._compare(there, truth, images, labels, f"{name} {severity}")
    if images is not None and self.made_here:
      self._compare_fingerprint(images, labels)

  def _compare(
    self,
    there: np.ndarray,
    truth: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    what: str,
  ) -> None:
    size, what = len(labels), f"{self._place()}, {what}"
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

  def _compare_fingerprint(
    self, images: np.ndarray, labels: np.ndarray
  ) -> None:
    data = self.made_here["made_with"]["data"]
    ours = pipeline.fingerprint(images, labels)
    # Of a part of the test set only the labels can be compared.
    if data["size"] == len(labels) and data["fingerprint"] != ours:
      raise ValueError(
        f"{self._folder()} was made from other images ({data['label']},"
        f" {data['fingerprint'][:19]}...) than the test set's"
        f" ({ours[:19]}...): {manifest.AGAIN}"
      )

  def _absent(self, name: str) -> tuple[int, ...]:
    """The wanted severities at which a corruption is not there."""
    if self.folder:
      there = (self._folder() / f"{name}.npy").is_file()
      if self.made_here:
        there = f"{name}.npy" in self.made_here["files"]
      return () if there else self.severities
    found = [tfds.find(_tfds_name(name, s), self.tfds_dir) for s in SEVERITIES]
    return tuple(s for s in self.severities if not found[s - 1])

  def _place(self) -> pathlib.Path:
    return self._folder() if self.folder else tfds.root(self.tfds_dir)

  def _folder(self) -> pathlib.Path:
    folder = pathlib.Path(os.path.expanduser(self.folder))
    inner = folder / f"CIFAR-{self.classes}-C"
    return inner if inner.is_dir() else folder

  def _view(
    self, corruption: str, severity: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """As `load`, but images of .npy files stay on the disk."""
    if self.folder:
      images, labels = self._open(corruption, severity)
    else:
      images, labels = self._load_tfds(corruption, severity)
    what = f"{self._place()}, {corruption} {severity}"
    pipeline.check(images, labels, self.num_classes, what)
    return images, labels

  def _open(
    self, corruption: str, severity: int
  ) -> tuple[np.ndarray, np.ndarray]:
    path = self._folder() / f"{corruption}.npy"
    stacked = self._read(path)
    size, rest = divmod(len(stacked), len(SEVERITIES))
    shape = [32, 32, 3]
    if self.made_here:
      shape = self.made_here["made_with"]["data"]["image"]
    if stacked.dtype != np.uint8 or [*stacked.shape[1:]] != shape or rest:
      raise ValueError(
        f"{path} is {stacked.dtype} {list(stacked.shape)}, expected uint8"
        f" [5 N, {', '.join(map(str, shape))}], five severities one after"
        " another"
      )
    rows = slice((severity - 1) * size, severity * size)
    path = self._folder() / "labels.npy"
    labels = self._read(path)
    # The published file repeats the labels for each severity.
    labels = labels[rows] if len(labels) == len(stacked) else labels
    return stacked[rows], pipeline.as_labels(labels, size, str(path))

  def _read(self, path: pathlib.Path) -> np.ndarray:
    """Opens a file without reading it, and without running what is in it."""
    source = f"get it from {_HOMES[self.classes]}"
    if self.made_here:
      source = manifest.AGAIN
    if not path.is_file():
      raise FileNotFoundError(f"{path} is missing: {source}")
    try:
      return np.atleast_1d(np.load(path, mmap_mode="r", allow_pickle=False))
    # Truncated, of objects, or no array at all: each fails in its own way.
    except Exception as error:
      raise ValueError(
        f"{path} ({path.stat().st_size} bytes) is damaged or no plain array"
        f" ({error!r}): {source}"
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
    return tfds.read(folder, "test", by="index")


def _tfds_name(corruption: str, severity: int) -> str:
  name = _TFDS_NAMES.get(corruption, corruption)
  return f"cifar10_corrupted/{name}_{severity}"
