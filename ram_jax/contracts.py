"""Interfaces between the parts of the package; docs/design.md has the others.

Each plug-in module defines a class with a fixed name: `Method`, `Augment`,
`Attack`, `Model`, `Source`, `Pictures` or `Evaluator`. Only evaluators need to
inherit from their interface, which provides a default `check`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import jax
import numpy as np

# (name, images [B,H,W,C]) in the order in which BatchNorm's running statistics
# are updated: a tuple, as JAX sorts the keys of a dictionary.
Views = tuple[tuple[str, jax.Array], ...]
# Arrays by name, such as `images` [B,H,W,C] and `labels` [B] of a batch.
Arrays = dict[str, jax.Array]
# What a method trains on: its views, and the targets of its loss (classes [B]
# or probabilities [B,K]).
Viewed = tuple[Views, jax.Array]
Logits = tuple[jax.Array, ...]  # [B,K] for each view, in order
Loss = tuple[jax.Array, Arrays]  # loss [B], and metrics [B] by name
# Arrays on the host, such as `images` uint8 [N,H,W,C] and `labels` int32 [N].
Batch = dict[str, np.ndarray]
# Images uint8 [N,H,W,C] and labels int32 [N].
Split = tuple[np.ndarray, np.ndarray]
Setting = str | int | float
# Images [B,H,W,C] in [0,1] -> logits [B,K]; a pytree, so that it can be passed
# to jitted functions. `models.classifier.Classifier` is one.
Model = Callable[[jax.Array], jax.Array]
# (name, compute) -> the result of `compute` (numbers, strings, numeric arrays,
# and lists and dictionaries of these), or the value that was stored before an
# interruption, if there is one.
Cache = Callable[[str, Callable[[], Any]], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """One accuracy: how many of a set of test images were classified correctly.

  Attributes:
    evaluator: kind of evaluation, such as "clean" or "adversarial".
    settings: how the row was obtained, such as attack, norm and epsilon, or
      corruption, severity and images. They identify the row among those of its
      evaluator.
    total: number of images.
    correct_count: how many of them were classified correctly.
    correct: which ones, bool [total] in the order of the test set; None if not
      stored.
    values: further numbers, all finite, such as `rms`, `ece`, `nll` and `brier`
      (`evaluation/calibration.py`), or `not_finite`, the number of images with
      non-finite logits, which count as misclassified.
  """

  evaluator: str
  settings: Mapping[str, Setting]
  total: int
  correct_count: int
  correct: np.ndarray | None = None
  values: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @property
  def key(self) -> str:
    """Name of the row, such as "corruption/corruption=fog/severity=3"."""
    pairs = sorted(self.settings.items())
    return "/".join([self.evaluator, *(f"{k}={v}" for k, v in pairs)])


@dataclasses.dataclass(frozen=True)
class Note:
  """A fact, in one sentence, that is needed to interpret the numbers.

  Attributes:
    text: the sentence.
    level: "info" for how numbers were obtained, "warning" for anything that may
      make them wrong or not comparable.
  """

  text: str
  level: Literal["info", "warning"] = "info"


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
  """Images for a figure.

  Attributes:
    name: group and name, such as "corruption/fog".
    images: uint8 [n,H,W,C].
  """

  name: str
  images: np.ndarray


class Source(Protocol):
  """A data set.

  Attributes:
    label: name for tables.
    num_classes: number of classes.
    mean: mean of each channel, for the normalization; pixels in [0,1].
    std: standard deviation of each channel, likewise.
  """

  label: str
  num_classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]

  def load(self, split: str) -> Split:
    """Loads the "train" or "test" split."""
    ...


class Evaluator(Protocol):
  """An evaluation of a model on the test set."""

  def check(self, batch: Batch) -> None:
    """Rejects data that cannot be evaluated, before anything is computed.

    Args:
      batch: the test set, `images` uint8 [N,H,W,C] and `labels` int32 [N].

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged, or does not match these images.
    """

  def results(
    self, model: Model, batch: Batch, key: jax.Array, cache: Cache
  ) -> Iterator[Row | Note | Picture]:
    """Evaluates the model.

    Args:
      model: the classifier, on the devices.
      batch: the test set, as for `check`.
      key: source of randomness, together with an example's position; the
        corruption evaluator uses its own seed instead.
      cache: called for every expensive part.

    Yields:
      Rows, notes and pictures; no two rows of a run have the same key.
    """
    ...
