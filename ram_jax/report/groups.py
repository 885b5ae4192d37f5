"""Runs that differ only in their seeds, and estimates over them."""

import collections
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ram_jax.contracts import Row
from ram_jax.report import statistics
from ram_jax.report.statistics import Estimate
from ram_jax.runs import results
from ram_jax.runs.results import Run

# What runs of one configuration may differ in: the seed, the name, and where
# data and weights are stored, which are known by their fingerprints.
ALONE = ("name", "seed", "weights.initial", "weights.measured")
PLACES = ("folder", "tfds_dir", "path", "label", "preset", "notes")
# Settings that place a row in a table or a figure; the others say how it was
# obtained.
COORDINATES = ("epsilon", "corruption", "severity", "y", "x")
# An epsilon given as 8 / 255 or as 0.031373 is the same epsilon.
EPSILON_DIGITS = 6
# Columns that `frame` has for runs without such rows, too.
COLUMNS = (*COORDINATES, "attack", "norm", "wave_norm")
CALIBRATION = ("rms", "ece", "nll", "brier")


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that differ only in their seeds.

  Attributes:
    label: name for people, different from that of every other group.
    runs: one or more.
  """

  label: str
  runs: tuple[Run, ...]

  @property
  def about(self) -> Mapping[str, Any]:
    """Method, model and data, which are the same for all runs."""
    return self.runs[0].about


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
  """Rows of one group and one variant: a line of a figure, a column.

  Attributes:
    label: the group's, with the variant where there are several.
    group: whose rows they are.
    variant: how they were obtained, as in `frame`.
    rows: part of `frame`, possibly empty.
  """

  label: str
  group: Group
  variant: str
  rows: pd.DataFrame


def groups(runs: Sequence[Run]) -> tuple[Group, ...]:
  """Groups runs of one configuration and different seeds.

  Args:
    runs: the runs to show together.

  Returns:
    The groups, in the order of their first runs. A run whose results have no
    configuration, and one whose seed its group has already, stay alone.

  Raises:
    ValueError: no run, or a folder that is given twice.
  """
  if not runs:
    raise ValueError("no run to show: name at least one run folder")
  folders = collections.Counter(run.folder.resolve() for run in runs)
  for run in runs:
    if folders[run.folder.resolve()] > 1:
      raise ValueError(
        f"run {str(run.folder)!r} is given twice: name each run once"
      )
  found = collections.defaultdict(list)
  for run in runs:
    seeds = [other.about["seed"] for other in found[_key(run)]]
    fresh = run.about["seed"] not in seeds
    found[_key(run) if fresh else str(run.folder)].append(run)
  members = [tuple(runs) for runs in found.values()]
  return tuple(map(Group, labels(members), members))


def labels(members: Sequence[Sequence[Run]]) -> tuple[str, ...]:
  """Names groups of runs so that no two names are equal.

  Args:
    members: the runs of each group; a group may be one run.

  Returns:
    For each its method, with the number of seeds where there are several, and
    where several groups would be called the same, the seed, else the run's
    name, else the folder.
  """
  result = []
  for runs in members:
    label = runs[0].about["label"]
    same = [other for other in members if other[0].about["label"] == label]
    for part in ("seed", "name", "folder") if len(same) > 1 else ("",):
      if len({_extra(other, part) for other in same}) == len(same):
        break
    text = _extra(runs, part)
    result.append(f"{label} ({text})" if text else label)
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


def frame(groups: Sequence[Group]) -> pd.DataFrame:
  """The rows of all groups, as `results.frame`, with more columns.

  Args:
    groups: the groups.

  Returns:
    In addition `group`, the index into `groups`; `error`, 1 - `accuracy`;
    `variant`, a name for how a row was obtained, such as "PGD-10 L2"; and
    `details`, its other settings. Two rows have the same variant if and only if
    their settings are equal, but for corruption, severity, epsilon and
    frequency: numbers of different variants must not be mixed.
  """
  runs = [run for group in groups for run in group.runs]
  found = results.frame(runs)
  columns = dict.fromkeys((*found.columns, *COLUMNS, *CALIBRATION))
  found = found.reindex(columns=list(columns))
  owners = [i for i, group in enumerate(groups) for _ in group.runs]
  found["group"] = [owners[run] for run in found["run"]]
  origins = [_origin(row) for run in runs for row in run.rows]
  names = _variants(dict.fromkeys(origins))
  # Text as Python's, since a name may have halves of characters.
  variants = [(names[origin], _details(origin)) for origin in origins]
  added = ["variant", "details"]
  found[added] = pd.DataFrame(variants, columns=added, dtype=object)
  found["error"] = 1 - found["accuracy"]
  found["epsilon"] = found["epsilon"].astype(float).round(EPSILON_DIGITS)
  place = ["run", "evaluator", "variant", *COORDINATES]
  return found.drop_duplicates(place).reset_index(drop=True)


def attacks(rows: pd.DataFrame) -> pd.DataFrame:
  """Accuracies under attack, from any evaluator; not checks of an attack."""
  attacked = rows["epsilon"].notna() & rows["attack"].notna()
  return rows[attacked & (rows["evaluator"] != "attack_check")]


def clean(rows: pd.DataFrame) -> pd.DataFrame:
  """Accuracies on unchanged test images, one row per run."""
  return rows[rows["variant"] == "clean"]


def series(groups: Sequence[Group], rows: pd.DataFrame) -> list[Series]:
  """Splits rows by group and variant.

  Args:
    groups: as given to `frame`.
    rows: part of what it returned.

  Returns:
    Those that have rows, in the order of the groups.
  """
  parts = dict(tuple(rows.groupby(["group", "variant"], sort=False)))
  several = len({variant for _, variant in parts}) > 1
  return [
    Series(
      f"{groups[i].label}, {variant}" if several else groups[i].label,
      groups[i],
      variant,
      part,
    )
    for (i, variant), part in sorted(parts.items(), key=lambda x: x[0][0])
  ]


def estimate(
  rows: pd.DataFrame, column: str = "accuracy", most: float = 1.0
) -> Estimate | None:
  """Mean of one group's rows, each alike, and over its seeds.

  The mean of accuracies, as CIFAR-10-C defines it (Hendrycks and Dietterich
  2019, section 3), not the accuracy of the pooled images.

  Args:
    rows: as many for each seed.
    column: of the numbers, at least 0.
    most: the largest value possible.

  Returns:
    Over several seeds with Student's interval; a single accuracy with Wilson's;
    else without an interval, as rows of the same images are not independent.
    None without rows. A run that lacks one of its numbers does not count.
  """
  if len(rows) == 1 and column == "accuracy":
    correct, total = int(rows["correct"].iloc[0]), int(rows["total"].iloc[0])
    return Estimate(correct / total, *statistics.wilson(correct, total))
  values = rows.groupby("run")[column].agg(lambda x: x.mean(skipna=False))
  return over_seeds(list(values.dropna()), most)


def over_seeds(
  values: Sequence[float], most: float = math.inf
) -> Estimate | None:
  """Mean with Student's interval; a single value without; None of nothing."""
  if len(values) > 1:
    return statistics.student(values, most)
  return Estimate(values[0]) if values else None


def norm_name(norm: str) -> str:
  """How a norm is written for people: "L2" for "l2", "Linf" for "linf"."""
  return norm[:1].upper() + norm[1:]


def epsilon_name(epsilon: float, norm: str) -> str:
  """An attack's epsilon for people: "0.25", in the L-infinity norm "8/255"."""
  levels = 255 * epsilon
  if norm == "linf" and abs(levels - round(levels)) < 1e-3:
    return f"{round(levels)}/255"
  return f"{epsilon:.4g}"


def _key(run: Run) -> str:
  """Equal for runs of one configuration; the folder where none is known."""
  if "config" not in run.head:
    return str(run.folder)
  config = {
    name: value
    for name, value in flat(run.head["config"]).items()
    if name not in ALONE and name.split(".")[-1] not in PLACES
  }
  about = [run.about.get(x) for x in ("label", "model", "step")]
  return json.dumps([about, run.head.get("data"), config], sort_keys=True)


def _extra(runs: Sequence[Run], part: str) -> str:
  """What is in the parentheses of a label."""
  count = f"{len(runs)} seeds" if len(runs) > 1 else ""
  about, folder = runs[0].about, runs[0].folder
  texts = {"name": about["name"], "folder": str(folder), "": ""}
  texts["seed"] = "" if count else f"seed {about['seed']}"
  return ", ".join(filter(None, (texts[part], count)))


Origin = tuple[tuple[str, Any], ...]


def _origin(row: Row) -> Origin:
  """How a row was obtained: its evaluator and settings, but for its place."""
  settings = {k: v for k, v in row.settings.items() if k not in COORDINATES}
  return (("evaluator", row.evaluator), *sorted(settings.items()))


def _details(origin: Origin) -> str:
  """Settings that are in no name, such as "restarts 1; start sphere"."""
  settings = dict(origin)
  if "images" in settings:
    return "corrupted images"
  if "attack" in settings:
    settings["eps"] = "in units of pixels in [0, 1]"
  return "; ".join(
    f"{k.replace('_', ' ')} {v:.3g}" if isinstance(v, float) else f"{k} {v}"
    for k, v in settings.items()
    if k not in ("evaluator", "attack", "norm")
  )


def _variants(origins: Sequence[Origin]) -> dict[Origin, str]:
  """Names for origins, different for different ones."""
  by_name = collections.defaultdict(list)
  for origin in origins:
    settings = dict(origin)
    name = settings.get("images", settings["evaluator"])
    if "attack" in settings:
      name = f"{settings['attack']} {norm_name(str(settings.get('norm', '')))}"
    by_name[str(name).strip()].append(origin)
  result = {}
  for name, same in by_name.items():
    shared = set.intersection(*map(set, same))
    for origin in same:
      extra = [f"{k} {v}" for k, v in origin if (k, v) not in shared]
      text = ", ".join(extra).replace("_", " ")
      result[origin] = f"{name} ({text})" if extra else name
  return result
