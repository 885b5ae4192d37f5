"""Groups runs that differ only in their seeds, and averages over them."""

import collections
import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ram_jax.contracts import Row
from ram_jax.corruptions import BENCHMARK, SETS, SEVERITIES
from ram_jax.report import statistics
from ram_jax.report.statistics import Estimate
from ram_jax.runs import folder as run_folder
from ram_jax.runs import results
from ram_jax.runs.results import Run

# Fields in which runs of one configuration may differ: the seed, names, labels
# and notes, the preset (mean and std are compared), and paths. Data sets and
# weights are identified by fingerprints instead. Mixing sets have none, so
# their paths are compared.
ALONE = ("name", "seed", "weights.initial", "weights.measured")
PLACES = ("folder", "tfds_dir", "path", "label", "preset", "notes")
# Settings that determine a row's position in a table or figure; the others say
# how it was obtained.
COORDINATES = ("epsilon", "corruption", "severity", "y", "x")
# An epsilon given as 8 / 255 or as 0.031373 is the same epsilon.
EPSILON_DIGITS = 6
# Evaluators whose rows are not shown in reports.
HIDDEN = ("attack_check", "autoattack_stage")
# Columns that `frame` always has.
COLUMNS = (*COORDINATES, "attack", "norm", "rms", "ece", "nll", "brier")
# The summary omits epsilons at which no run is above this accuracy, except the
# smallest of each attack.
MAIN_ACCURACY = 0.01
# Columns that `frame` adds, besides `error`.
ADDED = ["group", "config", "seeds", "variant", "details"]
# Largest possible values, if not 1.
MOST = {"nll": math.inf, "brier": 2.0}


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that differ only in their seeds.

  Attributes:
    label: display name, unique among the groups.
    runs: one or more.
  """

  label: str
  runs: tuple[Run, ...]

  @property
  def about(self) -> Mapping[str, Any]:
    """Method, model and data, which are the same for all runs."""
    return self.runs[0].about


def groups(runs: Sequence[Run]) -> tuple[Group, ...]:
  """Groups runs of one configuration and different seeds.

  Args:
    runs: the runs to show together.

  Returns:
    The groups, in the order of their first runs. A run without a configuration
    in its results, or whose seed is already in its group, gets its own group.

  Raises:
    ValueError: if there is no run, or a folder is given twice.
  """
  if not runs:
    raise ValueError("no run to show: give at least one run folder")
  folders = [run.folder.resolve() for run in runs]
  for run, folder in zip(runs, folders, strict=True):
    if folders.count(folder) > 1:
      raise ValueError(
        f"run {str(run.folder)!r} is given twice: give each run once"
      )
  found = collections.defaultdict(list)
  for run in runs:
    seeds = [other.about["seed"] for other in found[_key(run)]]
    fresh = run.about["seed"] not in seeds
    found[_key(run) if fresh else str(run.folder)].append(run)
  members = [tuple(runs) for runs in found.values()]
  return tuple(map(Group, labels(members), members))


def groups_and_rows(
  runs: Sequence[Run],
) -> tuple[tuple[Group, ...], pd.DataFrame]:
  """The `groups` of runs, and their `frame`."""
  found = groups(runs)
  return found, frame(found)


def labels(members: Sequence[Sequence[Run]]) -> tuple[str, ...]:
  """Makes unique names for groups of runs.

  Args:
    members: the runs of each group; a group may be one run.

  Returns:
    For each group its method, with the number of seeds if it is not the same
    for all. If several groups would have the same name, the name of the config
    is added or, if that is not enough, the run's name or its folder.
  """
  result = []
  extra = functools.partial(_extra, alike=len(set(map(len, members))) == 1)
  for runs in members:
    label = runs[0].about["label"]
    same = [other for other in members if other[0].about["label"] == label]
    for part in ("config", "run", "folder") if len(same) > 1 else ("",):
      if len({extra(other, part) for other in same}) == len(same):
        break
    text = extra(runs, part)
    result.append(f"{label} ({text})" if text else label)
  return tuple(result)


def configuration(run: Run) -> dict[str, Any]:
  """Fields that define a run, except its seed; empty if not recorded."""
  return {
    name: value
    for name, value in run_folder.flat(run.head.get("config", {})).items()
    if name not in ALONE
    and (name.split(".")[-1] not in PLACES or ".pictures." in name)
  }


def frame(groups: Sequence[Group]) -> pd.DataFrame:
  """The rows of all groups, as in `results.frame`, with more columns.

  Args:
    groups: the groups.

  Returns:
    A table with these additional columns: `group`, the index into `groups`;
    `config`, the group's label; `seeds`, the number of its runs; `error`,
    1 - `accuracy`; `variant`, a name for how a row was obtained, such as
    "PGD-10 L2"; and `details`, its other settings. Two rows have the same
    variant if and only if their evaluators and settings are equal, except for
    corruption, severity, epsilon and frequency. Never mix numbers of different
    variants.
  """
  runs, owners, origins = [], [], []
  for i, group in enumerate(groups):
    for run in group.runs:
      rows = tuple(row for row in run.rows if row.evaluator not in HIDDEN)
      runs.append(dataclasses.replace(run, rows=rows))
      owners += [(i, group.label, len(group.runs))] * len(rows)
      origins += map(_origin, rows)
  found = results.frame(runs)
  found = found.reindex(columns=found.columns.union(COLUMNS, sort=False))
  names = _variants(dict.fromkeys(origins))
  added = [
    (*owner, names[origin], _details(origin))
    for owner, origin in zip(owners, origins, strict=True)
  ]
  # As Python strings, because names may contain lone surrogates.
  found[ADDED] = pd.DataFrame(added, columns=ADDED, dtype=object)
  found["error"] = 1 - found["accuracy"]
  found["epsilon"] = found["epsilon"].astype(float).round(EPSILON_DIGITS)
  place = ["run", "evaluator", "variant", *COORDINATES]
  return found.drop_duplicates(place).reset_index(drop=True)


def attacks(rows: pd.DataFrame) -> pd.DataFrame:
  """Rows with accuracies under attack, from any evaluator."""
  return rows[rows["epsilon"].notna() & rows["attack"].notna()]


def clean(rows: pd.DataFrame) -> pd.DataFrame:
  """Rows with accuracies on clean test images, one per run."""
  return rows[rows["variant"] == "clean"]


def test_sets(
  rows: pd.DataFrame,
) -> list[tuple[str, pd.DataFrame, Sequence[str]]]:
  """Test sets without an attack, in the order of columns.

  Args:
    rows: rows from `frame`.

  Returns:
    Name, rows, and the corruptions to average over, if any.
  """
  found = [("clean", clean(rows), ())]
  plain = rows[["attack", "corruption", "y"]].isna().all(axis=1)
  others = by_variant(rows[plain & (rows["evaluator"] != "clean")])
  found += [(name, part, ()) for name, part in others.items()]
  sets = {
    "15 corruptions": BENCHMARK,
    "10 corruptions of C-bar": SETS["cifar_c_bar"],
  }
  for title, names in sets.items():
    sources = by_variant(rows[rows["corruption"].isin(names)])
    for source, part in sources.items():
      name = title + f": {source}" * (len(sources) > 1)
      found.append((name, part, names))
  return [x for x in found if len(x[1])]


def attack_columns(
  rows: pd.DataFrame,
) -> Iterator[tuple[str, pd.DataFrame, bool]]:
  """Attacks with epsilon above 0, in the order of columns.

  Args:
    rows: rows from `frame`.

  Yields:
    Name, rows, and whether this is the smallest epsilon of the attack, or some
    run is above `MAIN_ACCURACY`.
  """
  for attack, part in by_variant(attacks(rows)).items():
    positive = part[part["epsilon"] > 0].groupby("epsilon")
    for number, (epsilon, at) in enumerate(positive):
      name = f"eps {epsilon_name(epsilon, at['norm'].iloc[0])}"
      is_main = not number or at["accuracy"].max() > MAIN_ACCURACY
      yield f"{attack}: {name}", at, is_main


def by_variant(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
  """Rows by variant, in order of first appearance."""
  return dict(tuple(rows.groupby("variant", sort=False)))


def series(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
  """Splits rows by group and variant: lines of figures, columns of tables.

  Args:
    rows: rows from `frame`.

  Returns:
    Rows by the group's label, with the variant if there are several, in the
    order of the groups.
  """
  several = len(set(rows["variant"])) > 1
  # By number, because pandas cannot group by labels with lone surrogates.
  return {
    part["config"].iloc[0] + f", {variant}" * several: part
    for (_, variant), part in rows.groupby(["group", "variant"], sort=False)
  }


def estimate(rows: pd.DataFrame, column: str = "accuracy") -> Estimate | None:
  """Unweighted mean over the rows of a group and over its seeds.

  The mean of accuracies, as CIFAR-10-C defines it (Hendrycks and Dietterich
  2019, section 3), not the accuracy on the pooled images.

  Args:
    rows: the same number of rows for each seed.
    column: column to average, with nonnegative numbers.

  Returns:
    The mean: over several seeds with Student's interval, for a single accuracy
    with Wilson's, otherwise without an interval, because rows of the same
    images are not independent. None if there are no rows. Runs with a missing
    number are left out.
  """
  if len(rows) == 1 and column == "accuracy":
    correct, total = int(rows["correct"].iloc[0]), int(rows["total"].iloc[0])
    return Estimate(correct / total, *statistics.wilson(correct, total))
  values = rows.groupby("run")[column].agg(lambda x: x.mean(skipna=False))
  most = MOST.get(column, 1.0)
  return statistics.over_seeds(list(values.dropna()), most)


def shared(rows: pd.DataFrame) -> pd.DataFrame:
  """The rows of corruptions and severities that all runs have.

  Args:
    rows: rows of one group and one variant.

  Returns:
    The same number of rows for each run.
  """
  places = ["corruption", "severity"]
  runs = rows.groupby(places, dropna=False)["run"].transform("nunique")
  return rows[runs == rows["run"].nunique()]


def places(rows: pd.DataFrame) -> set[tuple[str, int]]:
  """The corruptions and severities of rows."""
  return set(zip(rows["corruption"], rows["severity"], strict=True))


def lacking(
  found: set[tuple[str, int]],
  names: Sequence[str],
  levels: Sequence[int] = SEVERITIES,
) -> str:
  """Says how complete a mean is.

  Args:
    found: the corruptions and severities in the mean.
    names: the corruptions that it should contain; empty if it is not a mean.
    levels: the severities that it should contain.

  Returns:
    Text like " [14 of 15]"; empty if nothing is missing.
  """
  if not names or len(found) == len(names) * len(levels):
    return ""
  kinds = len({name for name, _ in found})
  if len(found) == kinds * len(levels):
    return f" [{kinds} of {len(names)}]"
  return f" [{len(found)} of {len(names) * len(levels)} test sets]"


def epsilon_name(epsilon: float, norm: str) -> str:
  """Formats an epsilon: "0.25", or "8/255" in the L-infinity norm."""
  levels = 255 * epsilon
  if norm == "linf" and abs(levels - round(levels)) < 1e-3:
    return f"{round(levels)}/255"
  return f"{epsilon:.4g}"


def _key(run: Run) -> str:
  """Equal for runs of one configuration; the folder if it is unknown."""
  if "config" not in run.head:
    return str(run.folder)
  about = [run.about.get(x) for x in ("label", "model", "step")]
  parts = [about, run.head.get("data"), configuration(run)]
  return json.dumps(parts, sort_keys=True)


def _extra(runs: Sequence[Run], part: str, alike: bool) -> str:
  """The text in the parentheses of a label."""
  count = f"{len(runs)} seeds" if len(runs) > 1 and not alike else ""
  name, seed = (runs[0].about[key] for key in ("name", "seed"))
  config = name.removesuffix(f"-{seed}")
  texts = {"": "", "config": config, "folder": str(runs[0].folder)}
  texts["run"] = name if len(runs) == 1 else config
  return ", ".join(filter(None, (texts[part], count)))


Origin = tuple[tuple[str, Any], ...]


def _origin(row: Row) -> Origin:
  """How a row was obtained: its evaluator and settings except coordinates."""
  settings = {k: v for k, v in row.settings.items() if k not in COORDINATES}
  return (("evaluator", row.evaluator), *sorted(settings.items()))


def _details(origin: Origin) -> str:
  """Settings that names do not show, such as "restarts 1; start sphere"."""
  settings = dict(origin)
  if "images" in settings:
    return "corrupted images"
  if "test_set" in settings:
    return "other images of the same classes"
  if "attack" in settings:
    settings["eps"] = "for pixel values in [0, 1]"
  return "; ".join(
    f"{k.replace('_', ' ')} {v:.3g}" if isinstance(v, float) else f"{k} {v}"
    for k, v in settings.items()
    if k not in ("evaluator", "attack", "norm")
  )


def _variants(origins: Iterable[Origin]) -> dict[Origin, str]:
  """Unique names for origins."""
  by_name = collections.defaultdict(list)
  for origin in origins:
    settings = dict(origin)
    sets = settings.get("images"), settings.get("test_set")
    name = next(filter(None, sets), settings["evaluator"])
    if "attack" in settings:
      norm = str(settings.get("norm", "")).capitalize()
      name = f"{settings['attack']} {norm}"
    by_name[str(name).strip()].append(origin)
  result = {}
  for name, same in by_name.items():
    shared = set.intersection(*map(set, same))
    for origin in same:
      extra = [f"{k} {v}" for k, v in origin if (k, v) not in shared]
      text = ", ".join(extra).replace("_", " ")
      result[origin] = f"{name} ({text})" if extra else name
  return result
