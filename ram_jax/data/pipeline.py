"""Loads arrays from a source, and computes batch indices from (seed, step)."""

import functools
import hashlib
import pathlib
from typing import Any

import numpy as np

from ram_jax.contracts import Split

SPLITS = ("train", "test")
# Rows per chunk, so that memory-mapped data is not copied all at once.
CHUNK = 256
_LIMITS = {"train": "config.train.images", "test": "config.evaluate.images"}


def load(source: Any, split: str, limit: int = 0) -> Split:
  """Loads one split of a source and checks it.

  Args:
    source: a data source (`load(split)`, `num_classes`, `label`).
    split: 'train' or 'test'.
    limit: use only the first `limit` examples; 0: all.

  Returns:
    Images uint8 [N, H, W, 3] and labels int32 [N].

  Raises:
    ValueError: `check` rejects the arrays, all training images have the same
      class, or `limit` is negative or too large.
  """
  images, labels = source.load(split)
  what = f"{source.label}, split {split!r}"
  check(images, labels, source.num_classes, what)
  if split == "train" and (labels == labels[0]).all():
    raise ValueError(
      f"{what}: every label is {labels[0]}: a classifier needs training images "
      "of two classes or more"
    )
  return limit_examples(source, split, (images, labels), limit)


def limit_examples(source: Any, split: str, data: Split, limit: int) -> Split:
  """The first examples of a split.

  Args:
    source: the data source, for the message.
    split: 'train' or 'test'.
    data: images [N, ...] and labels [N].
    limit: number of examples; 0: all.

  Returns:
    Images and labels.

  Raises:
    ValueError: for a limit that is negative or larger than N.
  """
  images, labels = data
  if not 0 <= limit <= len(images):
    raise ValueError(
      f"{source.label}, split {split!r}: limit {limit} is outside "
      f"0..{len(images)}; give 0 to use every example ({_LIMITS[split]})"
    )
  return (images[:limit], labels[:limit]) if limit else (images, labels)


def check(
  images: np.ndarray, labels: np.ndarray, num_classes: int, what: str
) -> None:
  """Checks the types, shapes and values of images and labels.

  Args:
    images: should be uint8 [N, H, W, 3].
    labels: should be int32 [N], each in 0..num_classes - 1.
    num_classes: number of classes.
    what: name of the data, for the message.

  Raises:
    ValueError: with the first problem.
  """
  is_color = images.ndim == 4 and images.shape[-1] == 3
  if images.dtype != np.uint8 or not is_color or not images.size:
    raise ValueError(
      f"{what}: images are {images.dtype} {list(images.shape)},"
      " expected non-empty uint8 [N, H, W, 3]"
    )
  if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
    raise ValueError(
      f"{what}: labels are {labels.dtype} {list(labels.shape)},"
      f" expected int32 [{len(images)}], one for each image in the same order"
    )
  if num_classes < 2:
    raise ValueError(
      f"{what}: num_classes is {num_classes}: a classifier needs two or more"
    )
  wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if len(wrong):
    raise ValueError(
      f"{what}: label {labels[wrong[0]]} at index {wrong[0]} is outside"
      f" 0..{num_classes - 1} ({num_classes} classes); number of such labels:"
      f" {len(wrong)}"
    )


def as_labels(values: Any, size: int, what: str) -> np.ndarray:
  """Converts labels from a file to int32 [N].

  Args:
    values: list or array.
    size: expected number of labels.
    what: name of the labels, for the message.

  Returns:
    The labels, int32 [size].

  Raises:
    ValueError: they are not `size` 32-bit integers.
  """
  try:
    labels = np.asarray(values)
  except ValueError:  # lists of unequal length
    labels = np.empty(0, object)
  narrow = labels.dtype.kind in "iu" and labels.astype(np.int32)
  if labels.shape != (size,) or not np.array_equal(narrow, labels):
    raise ValueError(
      f"{what} are {labels.dtype} {list(labels.shape)}, expected {size}"
      " integers in the int32 range, one for each image: get the file again"
    )
  return narrow


def read_array(path: pathlib.Path, advice: str) -> np.ndarray:
  """Memory-maps an .npy file, without running code in it.

  Args:
    path: the file.
    advice: how to get the file, for the message.

  Returns:
    The array, with at least one axis.

  Raises:
    FileNotFoundError: the file is missing.
    ValueError: it is damaged, or contains objects.
  """
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing: {advice}")
  try:
    return np.atleast_1d(np.load(path, mmap_mode="r", allow_pickle=False))
  # Truncated files, objects and other content raise many types of errors.
  except Exception as error:
    raise ValueError(
      f"{path} ({path.stat().st_size} bytes) is damaged or not a plain array"
      f" ({error!r}): {advice}"
    ) from error


def fingerprint(images: np.ndarray, labels: np.ndarray) -> str:
  """Identifies data by content, to detect whether two runs use the same data.

  Args:
    images: any array.
    labels: any array.

  Returns:
    'sha256:' and 64 hexadecimal digits, over types, shapes and bytes.
  """
  digest = hashlib.sha256()
  for array in (images, labels):
    digest.update(f"{array.dtype.str} {array.shape};".encode())
    # In chunks, because the array may be memory-mapped or not contiguous.
    for start in range(0, len(array), CHUNK):
      part = array[start : start + CHUNK]
      digest.update(np.ascontiguousarray(part).data)
  return f"sha256:{digest.hexdigest()}"


def describe(images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
  """Size and fingerprint of one split, for results.json.

  Args:
    images: uint8 [N, H, W, 3].
    labels: int32 [N].

  Returns:
    `size` and `fingerprint`.
  """
  return {"size": len(labels), "fingerprint": fingerprint(images, labels)}


# Two epochs are enough for steps that cross from one to the next.
@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
  """The order in which an epoch visits the examples.

  It only depends on (seed, epoch, size). There is no state to save, and a
  resumed run has the same order as an uninterrupted one.

  Args:
    seed: the run's seed, at least 0.
    epoch: epoch, counted from 0.
    size: number of examples.

  Returns:
    A permutation of 0..size-1, int32 [size], read-only.
  """
  # Sort raw random words, because numpy guarantees the stream of a bit
  # generator across versions, but not that of Generator.permutation.
  words = np.random.Philox(np.random.SeedSequence([seed, epoch]))
  order = np.argsort(words.random_raw(size), kind="stable").astype(np.int32)
  order.flags.writeable = False
  return order


def steps_per_epoch(size: int, batch_size: int) -> int:
  """Number of full batches in an epoch; the last partial batch is dropped.

  Args:
    size: number of examples.
    batch_size: examples in a batch, over all devices, at least 1.

  Returns:
    `size // batch_size`, at least 1.

  Raises:
    ValueError: there is no full batch.
  """
  if batch_size < 1 or size < batch_size:
    raise ValueError(
      f"{size} examples are too few for a batch of {batch_size}: give a"
      f" batch_size in 1..{size} (config.train.batch_size) or more training"
      " examples"
    )
  return size // batch_size


def batch_indices(
  seed: int, step: int, count: int, size: int, batch_size: int
) -> np.ndarray:
  """The examples of successive training steps.

  Args:
    seed: the run's seed, at least 0.
    step: first step, counted from 0 over the whole run.
    count: number of steps; they may cross from one epoch to the next.
    size: number of examples.
    batch_size: examples in a batch, over all devices.

  Returns:
    Indices into the data set, int32 [count, batch_size].

  Raises:
    ValueError: there are fewer examples than the batch size.
  """
  per_epoch = steps_per_epoch(size, batch_size)
  rows = np.empty((count, batch_size), np.int32)
  for i in range(count):
    epoch, batch = divmod(step + i, per_epoch)
    start = batch * batch_size
    rows[i] = epoch_order(seed, epoch, size)[start : start + batch_size]
  return rows
