"""Runs of one configuration, which are shown as one row, line or panel."""

import collections
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ram_jax.report import statistics
from ram_jax.report.statistics import Estimate
from ram_jax.runs.results import Counts, Run

# What runs of one configuration may differ in: the seed, the name, and where
# data and weights are stored, which are known by their fingerprints.
ALONE = ("name", "seed", "weights.initial", "weights.measured")
PLACES = ("folder", "tfds_dir", "path", "label", "preset", "notes")


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that differ in their seeds alone.

  Attributes:
    label: name for people, different from every other group's shown with it.
    runs: one or more.
  """

  label: str
  runs: tuple[Run, ...]

  @property
  def method(self) -> str:
    """Human name of the runs' method."""
    return self.runs[0].label

  def estimate(
    self,
    measure: Callable[[Mapping[str, Any]], Counts | float | None],
    most: float = 1.0,
  ) -> Estimate | None:
    """A measure of one run, or its mean over the seeds.

    Args:
      measure: takes results; returns counts (correct, total), a number of at
        least 0, or None where it was not measured.
      most: the measure's largest possible value.

    Returns:
      Over several seeds the mean with Student's interval. Of one run the
      value: with Wilson's interval if it is counts, else with none. None where
      no run has it.
    """
    found = [measure(run.results) for run in self.runs]
    found = [value for value in found if value is not None]
    values = [v[0] / v[1] if isinstance(v, tuple) else v for v in found]
    if len(values) > 1:
      return statistics.student(values, most)
    if not values:
      return None
    ends = statistics.wilson(*found[0]) if isinstance(found[0], tuple) else ()
    return Estimate(values[0], *ends)


def groups(runs: Sequence[Run]) -> tuple[Group, ...]:
  """Puts runs of one configuration and different seeds together.

  Args:
    runs: the runs to show together.

  Returns:
    The groups, in the order of their first runs. A run whose results hold no
    configuration, and one whose seed its group has already, stay alone.

  Raises:
    ValueError: no run, or a folder that is given twice.
  """
  if not runs:
    raise ValueError("no run to show: name at least one run folder")
  _reject_repeats(runs)
  found = collections.defaultdict(list)
  for run in runs:
    seeds = [other.results["run"]["seed"] for other in found[_key(run)]]
    fresh = run.results["run"]["seed"] not in seeds
    found[_key(run) if fresh else str(run.folder)].append(run)
  members = [tuple(runs) for runs in found.values()]
  return tuple(map(Group, labels(members), members))


def column(groups: Sequence[Group], run: Run | None) -> int | None:
  """Place of the group that holds a run; None where there is no run.

  Args:
    groups: what is shown.
    run: to look for, by its folder.

  Returns:
    Its index in groups; None too where none of them holds it.
  """
  for i, group in enumerate(groups):
    if run and run.folder.resolve() in [r.folder.resolve() for r in group.runs]:
      return i
  return None


def labels(members: Sequence[Sequence[Run]]) -> tuple[str, ...]:
  """Names groups of runs so that no two names are equal.

  Args:
    members: the runs of each group; a group may be one run.

  Returns:
    For each its method, with the number of seeds where there are several, and
    where several groups would be called the same, the seed, else the run's
    name, else the folder.
  """
  same = collections.defaultdict(list)
  for i, runs in enumerate(members):
    same[runs[0].label].append(i)
  result = [""] * len(members)
  for label, places in same.items():
    extras = _extras([members[i] for i in places])
    for i, extra in zip(places, extras, strict=True):
      result[i] = f"{label} ({extra})" if extra else label
  return tuple(result)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """A nested configuration by dotted names, as `config.json` has it."""
  result = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      result |= flat(value, f"{prefix}{key}.")
    else:
      result[prefix + key] = value
  return result


def _key(run: Run) -> str:
  """Equal for runs of one configuration; the folder where none is known."""
  results = run.results
  if "config" not in results:
    return str(run.folder)
  config = {
    name: value
    for name, value in flat(results["config"]).items()
    if name not in ALONE and name.split(".")[-1] not in PLACES
  }
  about = [results["run"].get(x) for x in ("label", "model", "step")]
  tree = [about, results.get("data"), config]
  return json.dumps(tree, sort_keys=True)


def _reject_repeats(runs: Sequence[Run]) -> None:
  folders = collections.Counter(run.folder.resolve() for run in runs)
  for run in runs:
    if folders[run.folder.resolve()] > 1:
      raise ValueError(
        f"run {str(run.folder)!r} is given twice: name each run once"
      )


def _extras(members: Sequence[Sequence[Run]]) -> list[str]:
  """What stands in parentheses: the shortest that tells the groups apart."""
  if len(members) == 1:
    return [_seeds(members[0])]
  extras = [
    _seeds(runs) or f"seed {runs[0].results['run']['seed']}" for runs in members
  ]
  for name in (lambda run: run.results["run"]["name"], lambda run: run.folder):
    if len(set(extras)) == len(members):
      return extras
    extras = [
      ", ".join(filter(None, (str(name(runs[0])), _seeds(runs))))
      for runs in members
    ]
  return extras


def _seeds(runs: Sequence[Run]) -> str:
  return f"{len(runs)} seeds" if len(runs) > 1 else ""
