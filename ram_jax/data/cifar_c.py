"""Corrupted test sets: CIFAR-10-C, CIFAR-100-C and similar folders.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019; for CIFAR-10-C-bar, Mintun, Kirillov
and Xie, "On Interaction Between Augmentations and Corruptions in Natural
Corruption Robustness", NeurIPS 2021.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
from typing import Any

import numpy as np

from ram_jax.contracts import Split
from ram_jax.corruptions import SETS, SEVERITIES
from ram_jax.data import generated, manifest, pipeline, tfds

# Names that differ in tensorflow-datasets.
_TFDS = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
_HOMES = {
  10: "https://zenodo.org/records/2535967 (CIFAR-10-C.tar, 2.9 GB)",
  100: "https://zenodo.org/records/3555552 (CIFAR-100-C.tar, 2.9 GB)",
}
_C_BAR = "make_cifar10_c_bar.py in facebookresearch/augmentation-corruption"


@dataclasses.dataclass(frozen=True)
class CorruptedSource:
  """Corrupted test sets from existing files; nothing is downloaded.

  Attributes:
    classes: 10 or 100, for the published sets; the manifest of a generated
      folder states its number of classes.
    folder: folder of the .npy files, or its parent ('~' is expanded); empty:
      use tensorflow-datasets (only CIFAR-10).
    tfds_dir: data folder of tensorflow-datasets, if it is used; empty:
      $TFDS_DATA_DIR, or ~/tensorflow_datasets if that is not set.
    only: requested corruptions; empty: all available ones.
    severities: requested severities, from 1 to 5.
    set_name: key of `corruptions.SETS`.
  """

  classes: int = 10
  folder: str = ""
  tfds_dir: str = ""
  only: tuple[str, ...] = ()
  severities: tuple[int, ...] = SEVERITIES
  set_name: str = "cifar_c"

  def __post_init__(self) -> None:
    if self.classes == 100 and not self.folder:
      raise ValueError(
        "tensorflow-datasets has no CIFAR-100-C: give the folder of its .npy"
        f" files, from {_HOMES[100]}"
      )

  @functools.cached_property
  def _about(self) -> dict[str, Any]:
    """The manifest of a generated folder, or a substitute for other folders."""
    made_with = {"seed": None, "data": {"classes": self.classes}}
    other = {"made_with": made_with, "files": {}, "missing": {}}
    return (manifest.read(self._place) if self.folder else None) or other

  @property
  def num_classes(self) -> int:
    """10 or 100, or the number in the folder's manifest."""
    return self._about["made_with"]["data"]["classes"]

  @property
  def seed(self) -> int | None:
    """Seed of a generated folder; None for other folders."""
    return self._about["made_with"]["seed"]

  @functools.cached_property
  def label(self) -> str:
    """Name for tables, with the origin of the images; may read the files."""
    if self.seed is not None:
      return generated.label(self.seed, self.set_name)
    name = self._published
    if not self.folder:
      return f"{name} (from tensorflow-datasets)"
    if name not in manifest.PUBLISHED:
      return f"{name} (from files)"
    files = [f"{file}.npy" for file in (*self.names(), "labels")]
    original = manifest.is_published(self._place, name, files)
    return name if original else f"{name} (not the original files)"

  def names(self) -> tuple[str, ...]:
    """The requested corruptions, or those with all requested severities.

    Returns:
      Names of corruptions, in the order of the set. With `only`, these are the
      requested ones, even if they are not available.

    Raises:
      FileNotFoundError: there are none; the message says where to get them.
    """
    known = SETS[self.set_name]
    if self.only:
      return tuple(name for name in known if name in self.only)
    if names := tuple(name for name in known if not self._absent(name)):
      return names
    raise FileNotFoundError(
      f"{self._place} has no corruption with all of the severities "
      f"{self.severities}: {self._source}"
    )

  def missing(self) -> dict[str, str]:
    """Reasons for unavailable corruptions by name; empty if `only` is set."""
    why, missing = self._about["missing"], {}
    for name in () if self.only else SETS[self.set_name]:
      if absent := self._absent(name):
        every = len(absent) == len(self.severities)
        what = "it" if every else f"severity {absent[0]}"
        missing[name] = why.get(name, f"{what} is not in {self._place}")
    return missing

  def load(self, corruption: str, severity: int) -> Split:
    """Reads one corruption at one severity.

    Args:
      corruption: one of `names()`.
      severity: 1 to 5.

    Returns:
      Images uint8 [N, H, W, 3], memory-mapped if they are in a .npy file, and
      labels int32 [N], in the order of the test set, which `check` verifies
      using the labels.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: it is damaged or has the wrong content.
    """
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

  def check(self, images: np.ndarray, labels: np.ndarray) -> None:
    """Checks that all requested images exist and belong to this test set.

    Reads the images in .npy files only in folders with a manifest, to verify
    their checksums.

    Args:
      images: uint8 [N, H, W, 3], the clean test set, or its first images.
      labels: int32 [N], in the order of the published test set.

    Raises:
      FileNotFoundError: a requested corruption is missing, or the labels are.
      ValueError: a file is damaged or has the wrong content.
    """
    names = self.names()
    for name in (*names, "labels") if self.seed is not None else ():
      manifest.check(self._place, self._about["files"], f"{name}.npy")
    for name, severity in itertools.product(names, self.severities):
      self._compare(name, severity, images, labels)
    made = self._about["made_with"]["data"]
    # For a part of the test set, only the labels can be compared.
    if self.seed is not None and made["size"] == len(labels):
      current = pipeline.fingerprint(images, labels)
      if made["fingerprint"] != current:
        raise ValueError(
          f"{self._place} was generated from different images"
          f" ({made['label']}, {made['fingerprint'][:19]}...) than the test set"
          f" ({current[:19]}...): {manifest.AGAIN}"
        )

  @property
  def _published(self) -> str:
    """Name of the published folder."""
    bar = "-Bar" if self.set_name == "cifar_c_bar" else ""
    return f"CIFAR-{self.classes}-C{bar}"

  @functools.cached_property
  def _place(self) -> pathlib.Path:
    """The folder of the files, or that of tensorflow-datasets."""
    if not self.folder:
      return tfds.root(self.tfds_dir)
    folder = pathlib.Path(os.path.expanduser(self.folder))
    inner = folder / self._published
    return inner if inner.is_dir() else folder

  def _find(self, corruption: str, severity: int) -> pathlib.Path | None:
    """Path of a corruption: a file, or a folder of tensorflow-datasets."""
    if not self.folder:
      name = f"{_TFDS.get(corruption, corruption)}_{severity}"
      return tfds.find(f"cifar10_corrupted/{name}", self.tfds_dir)
    path = self._place / f"{corruption}.npy"
    made = self._about["files"]
    exists = path.name in made if self.seed is not None else path.is_file()
    return path if exists else None

  def _absent(self, name: str) -> list[int]:
    """The requested severities at which a corruption is not available."""
    return [s for s in self.severities if not self._find(name, s)]

  @property
  def _source(self) -> str:
    """How to get the files."""
    home = (
      f"get the .npy files from {_HOMES[self.classes]}; unpack the archive "
      "with tar -xf"
      if self.set_name == "cifar_c"
      else f"generate the files with --mode=corrupt or {_C_BAR}"
    )
    return manifest.AGAIN if self.seed is not None else home

  def _open(self, path: pathlib.Path, severity: int) -> Split:
    stacked = pipeline.read_array(path, self._source)
    size, rest = divmod(len(stacked), len(SEVERITIES))
    if stacked.dtype != np.uint8 or stacked.ndim != 4 or rest:
      raise ValueError(
        f"{path} is {stacked.dtype} {list(stacked.shape)}, expected uint8"
        " [5 N, H, W, 3], five severities one after another"
      )
    rows = slice((severity - 1) * size, severity * size)
    path = self._place / "labels.npy"
    labels = pipeline.read_array(path, self._source)
    # The published file repeats the labels for each severity.
    labels = labels[rows] if len(labels) == len(stacked) else labels
    return stacked[rows], pipeline.as_labels(labels, size, str(path))

  def _compare(
    self, name: str, severity: int, images: np.ndarray, labels: np.ndarray
  ) -> None:
    """Rejects corrupted images that do not belong to the test set."""
    corrupted, truth = self.load(name, severity)
    what = f"{self._place}, {name} {severity}"
    size, shape = len(labels), list(corrupted.shape[1:])
    if shape != list(images.shape[1:]) or len(corrupted) < size:
      raise ValueError(
        f"{what}, holds {len(corrupted)} images of {shape}, but the test set"
        f" has {size} of {list(images.shape[1:])}: give the folder generated"
        f" from this test set, or evaluate its first {len(corrupted)} images"
        f" (config.evaluate.images)"
      )
    wrong = np.flatnonzero(truth[:size] != labels)
    if len(wrong):
      i = wrong[0]
      raise ValueError(
        f"{what}: the labels differ from those of the test set:"
        f" {len(wrong)} of {size} differ, the first at index {i} ({truth[i]},"
        f" but {labels[i]} in the test set): the folder is from another data"
        " set, or its order was changed"
      )
