"""Accuracies in one structure, whoever measured them."""

import collections
import dataclasses
from typing import Any

from ram_jax.report import runs, tables

CIFAR_IMAGES = 10_000


@dataclasses.dataclass(frozen=True)
class Entry:
  """One accuracy.

  Attributes:
    measure: "clean", "adversarial" or "corruption".
    accuracy: in [0, 1]; over several corruptions or severities their mean.
    total: number of different test images.
    epsilon: size of the attack in pixels of [0, 1], for "adversarial".
    attack: its name, such as "PGD-10".
    norm: "l2" or "linf".
    corruptions: names, for "corruption".
    severities: 1 to 5, for "corruption".
  """

  measure: str
  accuracy: float
  total: int = CIFAR_IMAGES
  epsilon: float | None = None
  attack: str | None = None
  norm: str | None = None
  corruptions: tuple[str, ...] = ()
  severities: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    if self.measure == "adversarial" and not _is_within(self.epsilon, 1e9):
      raise ValueError(f"epsilon {self.epsilon!r} is no number of at least 0")
    if not _is_within(self.accuracy, 1):
      percent = _is_within(self.accuracy, 100)
      raise ValueError(
        f"the accuracy of {self.label} is {self.accuracy!r}, not in [0, 1]"
        + (": if that is in percent, divide by 100" if percent else "")
      )

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
    data: name of the test set, such as "CIFAR-10".
    images_assumed: whether the source leaves the number of test images open.
    rounding: half a unit of the last digit given, in [0, 1].
    notes: what a reader must know beside the numbers.
  """

  name: str
  source: str
  entries: tuple[Entry, ...]
  model: str | None = None
  data: str = "CIFAR-10"
  images_assumed: bool = True
  rounding: float = 0.0
  notes: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    if not self.entries:
      raise ValueError(f"{self.source} has no accuracy")
    counts = collections.Counter(entry.key for entry in self.entries)
    for entry in self.entries:
      if counts[entry.key] > 1:
        raise ValueError(f"{entry.label} is given twice")


def corrupted(
  corruption: str, severity: int, accuracy: float, total: int = CIFAR_IMAGES
) -> Entry:
  """Returns the entry of one corruption at one severity."""
  cell = {"corruptions": (corruption,), "severities": (severity,)}
  return Entry("corruption", accuracy, total, **cell)


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
  return isinstance(value, int | float) and 0 <= value <= most
