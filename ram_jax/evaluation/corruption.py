"""Accuracy on corrupted copies of the test set, such as CIFAR-10-C."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ram_jax import checks, contracts, corruptions, parallel
from ram_jax.contracts import Batch, Cache, Note, Picture, Row
from ram_jax.data.cifar_c import CorruptedSource
from ram_jax.data.generated import Generator
from ram_jax.evaluation import clean, rows
from ram_jax.evaluation.cache import stamp
from ram_jax.models.classifier import Classifier
from ram_jax.runs import metrics

# By set, the `evaluator` of its rows; no mean is taken over both.
KINDS = {"cifar_c": "corruption", "cifar_c_bar": "c_bar"}


@dataclasses.dataclass(frozen=True)
class Evaluator(contracts.Evaluator):
  """Accuracy for every corruption and severity.

  Attributes:
    classes: 10 for CIFAR-10-C, 100 for CIFAR-100-C.
    folder: folder of `.npy` files, published or written by --mode=corrupt.
    tfds_dir: data folder of tensorflow-datasets with `cifar10_corrupted`.
    generate: whether to generate the corrupted images in memory if neither is
      given.
    seed: seed of the generated images; separate from the run's seed, so that
      all runs are evaluated on the same images.
    frost_folder: folder of the photographs for frost; empty: use those of the
      installed package `imagecorruptions`.
    names: corruptions to evaluate; empty: all available ones of `sets`.
    severities: severities to evaluate, from 1 to 5.
    batch_size: examples per batch, over all devices; does not change results.
    sets: keys of `corruptions.SETS`.
  """

  classes: int
  folder: str
  tfds_dir: str
  generate: bool
  seed: int
  frost_folder: str
  names: tuple[str, ...]
  severities: tuple[int, ...]
  batch_size: int
  sets: tuple[str, ...]

  def __post_init__(self) -> None:
    sets, severities = corruptions.SETS, corruptions.SEVERITIES
    known = [n for chosen in sets if chosen in self.sets for n in sets[chosen]]
    checks.check(
      vars(self),
      classes=checks.one_of(10, 100),
      sets=(
        f"one or more of {', '.join(sets)}",
        lambda v: v and {*v} <= sets.keys(),
      ),
      names=(f"some of {', '.join(known)}", lambda v: {*v} <= {*known}),
      severities=("one or more of 1..5", lambda v: v and {*v} <= {*severities}),
      seed=("one from 0 to 2^32 - 1", lambda v: 0 <= v < 2**32),
    )
    for files in self._files():
      files.names()  # raises an error now if there are no files

  def check(self, batch: Batch) -> None:
    """Rejects corrupted images that are damaged or belong to another test set.

    Args:
      batch: the clean test set, `images` uint8 [N,H,W,C] and `labels` int32
        [N].

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged or belongs to another test set, or a
        requested corruption cannot be generated.
    """
    for source in self._sources(batch):
      source.check(**batch)

  def results(
    self, model: Classifier, batch: Batch, key: jax.Array, cache: Cache
  ) -> Iterator[Row | Note | Picture]:
    """Yields a row per corruption and severity.

    Args:
      model: the classifier, on the devices.
      batch: the clean test set, as for `check`.
      key: not used; generated images depend on `seed`.
      cache: stores the results for each corruption and severity.

    Yields:
      See `contracts.Evaluator`; nothing if there is no source of images. If all
      five severities are evaluated, a picture of the first image at every
      severity [5,H,W,C] per corruption.
    """
    del key
    for source in self._sources(batch):
      yield from self._evaluate(model, source, len(batch["labels"]), cache)

  def _evaluate(
    self,
    model: Classifier,
    source: CorruptedSource | Generator,
    size: int,
    cache: Cache,
  ) -> Iterator[Row | Note | Picture]:
    """The results for the first `size` images of a source."""
    names, files = source.names(), stamp(*self._folders())
    most = 0
    pairs = [(name, severity) for name in names for severity in self.severities]
    announced = set()

    def compute(now: int) -> dict[str, Any]:
      name, _ = pairs[now]
      if name not in announced:
        number = names.index(name) + 1
        metrics.announce(f"  {name} ({number} of {len(names)})")
        announced.add(name)
      return self._one(model, source, pairs[now:], size)

    for name in names:
      pictures = []
      for severity in self.severities:
        now = pairs.index((name, severity))
        part = f"{name} {severity} {files}"
        found = cache(part, functools.partial(compute, now))
        settings = {"corruption": name, "severity": severity}
        settings |= {"images": source.label}
        yield rows.row(KINDS[source.set_name], settings, found)
        pictures.append(found["first"])
        most = max(most, found["size"])
      if self.severities == corruptions.SEVERITIES:
        yield Picture(f"corruption/{name}", np.stack(pictures))
    if most > size:
      yield Note(
        f"{source.label}: only the first {size:,} of {most:,} images, to match "
        "the test set"
      )
    made = isinstance(source, CorruptedSource) and source.seed is not None
    if made and most > size:
      yield Note(
        f"{source.label}: only the labels were compared with those of the test "
        "set, because evaluate.images is set",
        "warning",
      )
    if source.seed is not None:
      yield Note("corrupted images: generated, not the published files")
    for name, reason in source.missing().items():
      yield Note(f"{name} was not evaluated: {reason}", "warning")

  def _folders(self) -> tuple[str, str, str]:
    return self.folder, self.tfds_dir, self.frost_folder

  def _one(
    self,
    model: Classifier,
    source: CorruptedSource | Generator,
    pairs: Sequence[tuple[str, int]],
    size: int,
  ) -> dict[str, Any]:
    """Evaluates the first `size` images of the first of `pairs`.

    Meanwhile, the programs for the next pairs are compiled.
    """
    if isinstance(source, Generator):
      for pair in pairs[: parallel.COMPILERS + 1]:
        source.prepare(*pair)
    images, labels = source.load(*pairs[0])
    batch = {"images": images[:size], "labels": labels[:size]}
    first = {"first": np.asarray(images[0]), "size": len(images)}
    return clean.evaluate(model, batch, self.batch_size) | first

  def generators(
    self, images: np.ndarray, labels: np.ndarray
  ) -> list[Generator]:
    """The generators of corruptions of a test set, one for each of `sets`.

    Args:
      images: uint8 [N,H,W,C], the clean test set.
      labels: int32 [N].

    Returns:
      The generators.
    """
    chosen = self.seed, self.frost_folder, self.batch_size, self.names
    return [Generator(images, labels, *chosen, name) for name in self.sets]

  def _sources(self, batch: Batch) -> Sequence[CorruptedSource | Generator]:
    """The images of each of `sets`: files, else generated ones if enabled."""
    if files := self._files():
      return files
    return self.generators(**batch) if self.generate else []

  def _files(self) -> list[CorruptedSource]:
    """The files of each of `sets`, if they are given."""
    if not (self.folder or self.tfds_dir):
      return []
    chosen = self.folder, self.tfds_dir, self.names, self.severities
    return [CorruptedSource(self.classes, *chosen, name) for name in self.sets]
