"""Sanity checks for data that is valid but probably not what was intended."""

from collections.abc import Mapping

import numpy as np

from ram_jax.contracts import Split

# If no pixel is brighter, the images are probably not scaled to 0..255.
_DARK = 63


def warnings(test: Split, train: Split | None = None) -> list[str]:
  """Finds probable mistakes in the data of a run.

  Args:
    test: images uint8 [N, H, W, 3] and labels int32 [N].
    train: the same for the training data, None if it is not loaded.

  Returns:
    One sentence per warning.

  Raises:
    ValueError: if test and training images differ in size or scale.
  """
  splits = {"training": train, "test": test} if train else {"test": test}
  images = {name: split[0] for name, split in splits.items()}
  if len({array.shape[1:3] for array in images.values()}) > 1:
    shown = [
      f"{k} images are {x.shape[1]} x {x.shape[2]}" for k, x in images.items()
    ]
    raise ValueError(f"{' but '.join(shown)}: resize them to the same size")
  found = _scale_warnings(images)
  for name, (_, labels) in splits.items():
    if (labels == labels[0]).all():
      found.append(
        f"all {len(labels)} {name} images in use are of class {labels[0]}"
      )
  if train:
    unseen = np.setdiff1d(test[1], train[1])
    if count := int(np.isin(test[1], unseen).sum()):
      found.append(
        f"{count} of {len(test[1])} test images are of classes without a "
        f"training image: {listed(unseen)}"
      )
  return found


def subset_warnings(labels: np.ndarray, counts: Mapping[str, int]) -> list[str]:
  """Finds subsets that lack classes, because the test set is not shuffled.

  Args:
    labels: labels of the test set, int32 [N].
    counts: number of images in each subset, by the field that sets it. A subset
      consists of the first images of the test set; 0: all.

  Returns:
    At most one sentence. A subset lacks classes if it has fewer than a random
    one would have: the number of missing classes exceeds three times the
    expected number plus one.
  """
  share = np.bincount(labels) / len(labels)
  share = share[share > 0]
  found = {}
  for name, count in counts.items():
    if 0 < count < len(labels):
      missing = len(share) - len(np.unique(labels[:count]))
      if missing > 1 + 3 * np.sum((1 - share) ** count):
        found[name] = f"{len(share) - missing} in the first {count} ({name})"
  if not found:
    return []
  return [
    f"the test images are not in random order: of {len(share)} classes, there "
    f"are only {', '.join(found.values())}, so results on these images are not "
    "representative: shuffle the test set"
  ]


def _scale_warnings(splits: dict[str, np.ndarray]) -> list[str]:
  """Checks that pixels use the range 0..255 in all splits."""
  largest = {name: int(images.max()) for name, images in splits.items()}
  dark = {name: value for name, value in largest.items() if value <= _DARK}
  if not dark:
    return []
  shown = [f"{value} in the {name} images" for name, value in dark.items()]
  found = f"the largest pixel value is {' and '.join(shown)}, out of 255"
  if min(dark.values()) > 1:
    return [f"{found}: if that is white, store images scaled to 0..255"]
  scale = (
    "probably cast from [0, 1] without scaling: use "
    "(images * 255).round().astype(numpy.uint8)"
  )
  if max(largest.values()) > 1:
    raise ValueError(f"{found}, so the splits differ in scale: {scale}")
  return [f"{found}: {scale}"]


def listed(values: np.ndarray, count: int = 10) -> str:
  """The first values of an array, separated by commas."""
  more = ", ..." if len(values) > count else ""
  return ", ".join(map(str, values[:count])) + more
