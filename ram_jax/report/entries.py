"""Accuracies in one structure, whoever measured them."""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ram_jax.report import tables
from ram_jax.runs import results as runs

# What folders and RobustBench's files call data sets -> what tables do.
DATA_SETS = {
  "cifar10": "CIFAR-10",
  "cifar100": "CIFAR-100",
  "imagenet": "ImageNet",
}
NORMS = {"l2": "l2", "linf": "linf"}
# Test images. Those of ImageNet are often not all used.
IMAGES = {"CIFAR-10": 10_000, "CIFAR-100": 10_000}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One accuracy.

  Attributes:
    measure: "clean", "adversarial" or "corruption".
    accuracy: in [0, 1]; over several corruptions or severities their mean.
    total: number of different test images; None where it is unknown.
    epsilon: size of the attack in pixels of [0, 1], for "adversarial".
    attack: its name, such as "PGD-10".
    norm: "l2" or "linf".
    corruptions: names, for "corruption".
    severities: 1 to 5, for "corruption".
  """

  measure: str
  accuracy: float
  total: int | None = None
  epsilon: float | None = None
  attack: str | None = None
  norm: str | None = None
  corruptions: tuple[str, ...] = ()
  severities: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    if self.measure == "adversarial" and not _is_within(self.epsilon, 1e9):
      raise ValueError(
        f"epsilon {self.epsilon!r:.60} is no number of at least 0"
      )
    if not _is_within(self.accuracy, 1):
      percent = _is_within(self.accuracy, 100)
      raise ValueError(
        f"the accuracy of {self.label} is {self.accuracy!r:.60}, not in [0, 1]"
        + (": if that is in percent, divide by 100" if percent else "")
      )
    if self.total is not None and not _is_count(self.total):
      raise ValueError(f"{self.total!r:.60} is no number of test images")

  @property
  def is_cell(self) -> bool:
    """Whether it is of one corruption at one severity."""
    return len(self.corruptions) == len(self.severities) == 1

  @property
  def is_mean(self) -> bool:
    """Whether it is over several corruptions or severities."""
    return self.measure == "corruption" and not self.is_cell

  @property
  def label(self) -> str:
    """What was measured, in words."""
    if self.measure == "adversarial":
      norm = tables.norm_name(self.norm)
      return f"{norm} eps {self.epsilon:.4g} ({self.attack})"
    if self.is_cell:
      return f"{self.corruptions[0]}, severity {self.severities[0]}"
    return {"corruption": "corruption mean"}.get(self.measure, self.measure)

  @property
  def setting(self) -> tuple[Any, ...]:
    """Equal where the same is asked, whoever attacks."""
    # An epsilon given as 8 / 255 or as 0.031373 is the same epsilon.
    epsilon = None if self.epsilon is None else round(self.epsilon, 5)
    corrupted = (self.corruptions, self.severities)
    return (self.measure, self.norm, epsilon, *corrupted)

  @property
  def key(self) -> tuple[Any, ...]:
    """Equal where the same was measured in the same way."""
    return (*self.setting, self.attack)


@dataclasses.dataclass(frozen=True)
class Reference:
  """Accuracies of one model.

  Attributes:
    name: short, for tables and file names.
    source: where the numbers are from.
    entries: what was measured, nothing twice.
    model: the network; None where the source does not say.
    data: name of the test set, such as "CIFAR-10"; None where it is unknown.
    images_assumed: whether the source leaves the number of test images open.
    rounding: half a unit of the last digit given, in [0, 1].
    notes: what a reader must know beside the numbers.
  """

  name: str
  source: str
  entries: tuple[Entry, ...]
  model: str | None = None
  data: str | None = None
  images_assumed: bool = True
  rounding: float = 0.0
  notes: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    texts = [self.name, self.source, *self.notes]
    texts += [text for text in (self.model, self.data) if text is not None]
    for text in texts:
      if not isinstance(text, str):
        raise ValueError(f"{text!r:.60} is no text")
    if not _is_within(self.rounding, 1):
      raise ValueError(f"rounding {self.rounding!r:.60} is not in [0, 1]")
    if not self.entries:
      raise ValueError(f"{self.source} has no accuracy")
    counts = collections.Counter(entry.key for entry in self.entries)
    for entry in self.entries:
      if counts[entry.key] > 1:
        raise ValueError(f"{entry.label} is given twice")


def corrupted(
  corruption: str, severity: int, accuracy: float, total: int | None = None
) -> Entry:
  """Returns the entry of one corruption at one severity."""
  cell = {"corruptions": (corruption,), "severities": (severity,)}
  return Entry("corruption", accuracy, total, **cell)


def named(text: str, names: Mapping[str, str]) -> str | None:
  """The one of the names that a text spells: CIFAR-100 or cifar100."""
  return names.get(re.sub(r"[^a-z0-9]", "", text.lower()))


def of_folder(path: pathlib.Path, names: Mapping[str, str]) -> str | None:
  """The one after which a folder near a file is called: cifar10/Linf/FILE."""
  folder = path.parent.resolve()
  return named(folder.name, names) or named(folder.parent.name, names)


def of_data(
  name: str,
  source: str,
  entries: Sequence[Entry],
  data: str | None,
  **about: Any,
) -> Reference:
  """A reference, with all test images of its data as the accuracies' totals."""
  total = IMAGES.get(data)
  counted = tuple(dataclasses.replace(e, total=total) for e in entries)
  return Reference(name, source, counted, data=data, **about)


def of_run(run: runs.Run) -> Reference:
  """A run of ours in this structure.

  Args:
    run: with its results.

  Returns:
    The structure; an attack of epsilon 0 that equals the clean accuracy is
    left out.
  """
  results, about = run.results, run.results["run"]
  notes = list(results.get("notes", ()))
  clean = runs.clean(results)
  entries = [Entry("clean", clean[0] / clean[1], clean[1])] if clean else []
  attack = results.get("adversarial", {}).get("attack", {})
  for epsilon, (correct, total) in runs.adversarial(results).items():
    if epsilon > 0 or (correct, total) != clean:
      how = (epsilon, attack["name"], attack["norm"])
      entries.append(Entry("adversarial", correct / total, total, *how))
  corruption = results.get("corruption", {})
  if "label" in corruption:
    notes.append(f"corrupted images: {corruption['label']}")
  for row in corruption.get("by_corruption", []):
    numbers = (row["correct"] / row["total"], row["total"])
    entries.append(corrupted(row["corruption"], row["severity"], *numbers))
  return Reference(
    about["name"],
    str(run.folder / "results.json"),
    tuple(entries),
    about["model"],
    about["data_label"],
    images_assumed=False,
    notes=tuple(notes),
  )


def _is_within(value: Any, most: float) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and 0 <= value <= most


def _is_count(value: Any) -> bool:
  return type(value) is int and value > 0
