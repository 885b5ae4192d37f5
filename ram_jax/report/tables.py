"""Tables of results: accuracies with intervals, and their provenance."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ram_jax.contracts import Note
from ram_jax.corruptions import BENCHMARK, CATEGORIES, EXTRA, SETS, SEVERITIES
from ram_jax.report import groups as grouping
from ram_jax.report import statistics
from ram_jax.report.groups import Group
from ram_jax.report.statistics import Estimate
from ram_jax.report.table import Table
from ram_jax.runs import folder as run_folder
from ram_jax.runs import results
from ram_jax.runs.results import Run

NOT_EVALUATED = "-"
EPSILON_TOLERANCE = 1e-6
# Evaluators whose mean accuracies are shown while a sweep runs.
PROGRESS = ("clean", "corruption", "adversarial")
CALIBRATION = {"rms": "RMS", "ece": "ECE", "nll": "NLL", "brier": "Brier"}
MEANS = {"benchmark": BENCHMARK, "extra": EXTRA, "all": BENCHMARK + EXTRA}
C_BAR = SETS["cifar_c_bar"]
# Facts that become columns if the runs differ in them.
SHOWN_FACTS = ("network", "data", "training", "evaluated on", "test set")
INTERVALS = (
  "Accuracy in %, with 95 % intervals: Student's t over seeds if there are "
  "several, otherwise Wilson's over test images, which do not cover variation "
  "between seeds; means over corruptions of a single run have no interval, "
  "because they use the same images repeatedly."
)
ERRORS = (
  "mCE: mean corruption error over the benchmark's 15 corruptions, not "
  "normalized"
)
RELATIVE = (
  "normalized mCE: mean over the 15 corruptions of the sum of errors over "
  "severities, in % of the baseline's sum; without an interval if the baseline "
  "has several seeds, because its mean varies, too"
)
# Columns of a table: name, cells, whether smaller is better (None: no numbers).
Columns = list[tuple[str, Sequence[str], bool | None]]
# Cell: (rows, rows of the baseline or None) -> text. Line: name, second cell,
# Cell, whether smaller is better.
Cell = Callable[[pd.DataFrame, pd.DataFrame | None], str]
Line = tuple[str, str, Cell, bool | None]


def summary(runs: Sequence[Run], every_epsilon: bool = False) -> Table:
  """One row per configuration: its main accuracies, in percent.

  Args:
    runs: the runs, in the order of the rows; runs that differ only in their
      seeds share a row.
    every_epsilon: include epsilons at which no run is above
      `groups.MAIN_ACCURACY`.

  Returns:
    The table. Its title contains the facts that all runs have in common;
    those of `SHOWN_FACTS` in which they differ are columns. The footnotes say
    how each number was obtained.

  Raises:
    ValueError: if there is no run, or a run is given twice.
  """
  groups, rows = grouping.groups_and_rows(runs)
  columns: Columns = [("method", [group.label for group in groups], None)]
  known = [facts(group) for group in groups]
  for name in SHOWN_FACTS:
    cells = [row.get(name, NOT_EVALUATED) for row in known]
    if len({*cells} - {NOT_EVALUATED}) > 1:
      columns.append((name, cells, None))
  column = functools.partial(_column, groups)
  for name, part, names in grouping.test_sets(rows):
    columns.append((name, column(part, names=names), False))
  hidden = []
  for name, part, is_main in grouping.attack_columns(rows):
    if is_main or every_epsilon:
      columns.append((name, column(part), False))
    else:
      hidden.append(name.replace(": ", ", "))
  found = [
    "warning: " * (note.level == "warning") + note.text
    for note in notes(groups, rows)
  ]
  if hidden:
    found.append(f"not shown, because no run is above 1 %: {'; '.join(hidden)}")
  return _table(columns, found, lead(groups))


def every_epsilon(runs: Sequence[Run]) -> Table | None:
  """The summary with all epsilons, without notes; None if it is the same."""
  table = summary(runs, every_epsilon=True)
  if table.header == summary(runs).header:
    return None
  return dataclasses.replace(table, title="", footnotes=())


def title(groups: Sequence[Group]) -> str:
  """Title with networks and data sets."""
  known = [facts(group) for group in groups]
  found = {f"{row['network']} on {row['data']}" for row in known}
  if len({row["data"] for row in known}) == 1:
    networks = sorted({row["network"] for row in known})
    found = [f"{' and '.join(networks)} on {known[0]['data']}"]
  return f"Robustness of {' and '.join(sorted(found))}"


def lead(groups: Sequence[Group]) -> str:
  """Summary of what was run: everything that all runs have in common."""
  known = pd.DataFrame([facts(g) for g in groups], dtype=object)
  shared = known.drop(columns="test set", errors="ignore").bfill().iloc[0]
  shared = shared[known.nunique() == 1]
  count = sum(len(group.runs) for group in groups)
  return f"ram_jax, {count} run{'s' * (count > 1)}: {', '.join(shared)}."


def facts(group: Group) -> dict[str, str]:
  """Known facts about a group, by name."""
  run = group.runs[0]
  about, device = run.about, run.head.get("device", {})
  test = run.head.get("data", {}).get("test", {})
  clean = next((row.total for row in run.rows if row.evaluator == "clean"), 0)
  images = test.get("size", clean)
  epochs, steps = about.get("epochs"), about.get("step")
  seeds = ", ".join(str(run.about["seed"]) for run in group.runs)
  found = {
    "network": about["model"],
    "data": about["data_label"],
    "training": _count(epochs, "epoch") or _count(steps, "step"),
    "seeds": f"seed{'s' * (len(group.runs) > 1)} {seeds}",
    "evaluated on": images and f"{images:,} test images",
    "test set": test.get("fingerprint", "")[:19],
    "device": device and f"{device.get('count')} x {device.get('kind')}",
  }
  return {name: str(value) for name, value in found.items() if value}


def _count(number: int | None, unit: str) -> str:
  return f"{number} {unit}{'s' * (number != 1)}" if number else ""


def notes(groups: Sequence[Group], rows: pd.DataFrame) -> tuple[Note, ...]:
  """How the numbers were obtained; notes on only some runs name those runs.

  Args:
    groups: the groups that are shown.
    rows: rows from `groups.frame`.

  Returns:
    Notes without repetition, warnings first.
  """
  owners: dict[Note, dict[str, None]] = {}
  for group in groups:
    for run in group.runs:
      for note in run.notes:
        owners.setdefault(note, {})[group.label] = None
  found = [Note(INTERVALS), *_methods(groups, rows)]
  for note, who in owners.items():
    some = f"{', '.join(who)}: " if len(who) < len(groups) else ""
    found.append(Note(some + note.text, note.level))
  return tuple(sorted(found, key=lambda note: note.level != "warning"))


def corruptions(
  runs: Sequence[Run], baseline: Run | None = None
) -> dict[str, Table]:
  """Accuracies on corruptions in percent, one column per configuration.

  Args:
    runs: the runs, in the order of the columns.
    baseline: one of the runs; cells contain the difference from its
      configuration.

  Returns:
    Tables by title: each corruption, means over several, each severity, and
    CIFAR-10-C-bar; tables without results are omitted. If a mean lacks
    corruptions or severities, the cell says how many it includes.

  Raises:
    ValueError: if there is no run, or a run is given twice.
  """
  groups, rows = grouping.groups_and_rows(runs)
  base = [i for i, group in enumerate(groups) if baseline in group.runs]
  kinds = {name: kind for kind, names in CATEGORIES.items() for name in names}
  found = rows[rows["evaluator"] == "corruption"]
  found = found.groupby("corruption", sort=False)["severity"].unique()
  each = sorted(found.index, key=[*kinds, *found.index].index)

  single = [_line(n, kinds.get(n, "other"), names=(n,)) for n in each]
  means = [
    _line(kind, str(len(names)), names=names)
    for kind, names in (MEANS | CATEGORIES).items()
  ]
  means.append(_line("mCE", "15", names=BENCHMARK, column="error"))
  if base:
    means.append(("normalized mCE", "15", _relative, None))
  notes = (ERRORS, RELATIVE) if base else (ERRORS,)
  levels = [
    _line(name, str(level), names=(name,), levels=(level,))
    for name in each
    for level in sorted(found[name])
  ]
  others = [_line(name, "1", names=(name,)) for name in C_BAR]
  others.append(_line("mean", "10", names=C_BAR))
  table = functools.partial(_corruption_table, rows, base)
  tables = {
    "Each corruption": table("corruption", "category", single),
    "Categories of corruptions and mCE": table(
      "mean over", "corruptions", means, notes
    ),
    "Each corruption and severity": table("corruption", "severity", levels),
    "CIFAR-10-C-bar": table(
      "mean over", "corruptions", others, evaluator="c_bar"
    ),
  }
  return {name: table for name, table in tables.items() if table}


def calibration(runs: Sequence[Run]) -> Table | None:
  """Calibration of the confidences, on clean and corrupted images.

  Args:
    runs: the runs, in the order of the rows.

  Returns:
    One row per configuration; None if no run has these numbers.

  Raises:
    ValueError: if there is no run, or a run is given twice.
  """
  groups, rows = grouping.groups_and_rows(runs)
  columns: Columns = [("method", [group.label for group in groups], None)]
  for test_set, part, names in grouping.test_sets(rows):
    for key, name in CALIBRATION.items():
      if part[key].notna().any():
        cells = _column(groups, part, names=names, column=key)
        columns.append((f"{test_set}: {name}", cells, True))
  lines = (
    "RMS: root mean square calibration error in adaptive bins of 100 images; "
    "ECE: expected calibration error; both in [0, 1]. NLL: negative "
    "log-likelihood, in nats. Brier: squared error of the probabilities, in "
    "[0, 2]. Smaller is better for all of them",
  )
  return _table(columns, lines) if len(columns) > 1 else None


def floors(
  run: Run, required: Sequence[tuple[str, float | None, str, float]]
) -> Table:
  """Compares accuracies of a run with required accuracies, in percent.

  Args:
    run: an evaluated run.
    required: (metric, epsilon, bound, value) each, for example
      ("clean", None, "at least", 0.92) or ("adversarial", 8.0, "at most",
      0.02); value in [0, 1].

  Returns:
    One row per requirement and attack: metric, required value, accuracy, and
    "met" or "NOT MET"; "NOT MET" if the metric was not evaluated.

  Raises:
    ValueError: if a requirement does not have this form.
  """
  results.check_floors(required)
  rows = grouping.frame([Group("", (run,))])
  table = []
  for measure, epsilon, bound, value in required:
    near = (rows["epsilon"] - (epsilon or 0)).abs() <= EPSILON_TOLERANCE
    part = {
      "clean": grouping.clean(rows),
      "corruption": rows[rows["corruption"].isin(BENCHMARK)],
      "adversarial": grouping.attacks(rows[near]),
    }[measure]
    found = dict(part.groupby("variant", sort=False)["accuracy"].mean())
    for variant, accuracy in (found or {"": math.nan}).items():
      name = measure
      if measure == "corruption":
        name = "mean of 15 corruptions"
        name += grouping.lacking(grouping.places(part), BENCHMARK)
      name += f", eps {epsilon:.4g}" if epsilon is not None else ""
      name += f" ({variant})" if len(found) > 1 else ""
      text = f"{100 * accuracy:.2f}" if found else "not evaluated"
      met = accuracy >= value if bound == "at least" else accuracy <= value
      wanted = f"{bound} {100 * value:.2f}"
      table.append((name, wanted, text, "met" if met else "NOT MET"))
  return Table(("metric (%)", "required", "accuracy", ""), tuple(table))


def profile(found: Mapping[str, Any]) -> Table:
  """Shows how the time of a training step is spent.

  Args:
    found: content of profile.json.

  Returns:
    One row per part, the largest first, then "other", "host" and "all".
  """
  parts, seconds, steps = found["parts"], found["seconds"], found["steps"]
  named = sorted(parts.keys() - {"other", "host"}, key=parts.get, reverse=True)
  rows = [
    (name, f"{1000 * parts[name] / steps:.2f}", f"{parts[name] / seconds:.1%}")
    for name in (*named, "other", "host")
  ]
  rows.append(("all", f"{1000 * seconds / steps:.2f}", "100.0%"))
  device = found["device"]
  lines = (
    f"{steps} steps in {found['dispatches']} dispatches on "
    f"{device['count']} x {device['kind']}",
    f"attributed to a part: {found['attributed']:.1%} of the devices' time",
    "host: the devices wait for the host",
    f"without tracing, a step takes "
    f"{1000 * found['untraced_seconds'] / steps:.2f} ms",
  )
  return Table(("part", "ms per step", "fraction"), tuple(rows), lines)


def sweep(
  rows: Sequence[tuple[str, str, Run | None, float | None]],
  minutes_left: float | None,
) -> Table:
  """Shows the progress of a sweep.

  Args:
    rows: name, state, results (None: not yet) and seconds of each run.
    minutes_left: estimated time for the remaining runs; None: unknown.

  Returns:
    One row per run, with means over the benchmark's 15 corruptions and over the
    attacks with epsilon above 0.
  """
  cells = []
  for name, state, run, seconds in rows:
    found = dict.fromkeys(PROGRESS, NOT_EVALUATED)
    if run:
      table = grouping.frame([Group("", (run,))])
      others = table["corruption"].notna() & ~table["corruption"].isin(
        BENCHMARK
      )
      table = table[
        ~others & (table["epsilon"].isna() | (table["epsilon"] > 0))
      ]
      for kind, mean in table.groupby("evaluator")["accuracy"].mean().items():
        found[kind] = f"{100 * mean:.1f}"
    means = (found[kind] for kind in PROGRESS)
    minutes = NOT_EVALUATED if seconds is None else f"{seconds / 60:.1f}"
    cells.append((name, state, *means, minutes))
  left = () if minutes_left is None else (f"minutes left: {minutes_left:.1f}",)
  header = ("run", "state", *(f"{kind} %" for kind in PROGRESS), "minutes")
  return Table(header, tuple(cells), left)


def fields(runs: Sequence[Run], differing: bool = False) -> Table | None:
  """Provenance: versions, devices, data, times, configuration.

  Args:
    runs: the runs.
    differing: only show fields of the configuration in which the columns
      differ, except `groups.ALONE`.

  Returns:
    One row per field of results.json, one column per configuration, with the
    values of its runs; None if there are no rows.

  Raises:
    ValueError: if there is no run, or a run is given twice.
  """
  groups = grouping.groups(runs)
  known = [[run_folder.flat(run.head) for run in g.runs] for g in groups]
  names = sorted({n for same in known for tree in same for n in tree})
  rows = []
  for name in names:
    values = [[tree.get(name, NOT_EVALUATED) for tree in g] for g in known]
    cells = [" / ".join(dict.fromkeys(map(_in_words, g))) for g in values]
    place, _, field = name.partition(".")
    shown = place == "config" and field not in grouping.ALONE
    if not differing or (shown and len(set(cells)) > 1):
      rows.append((field if differing else name, *cells))
  header = ("field", *(group.label for group in groups))
  return Table(header, tuple(rows)) if rows else None


def _in_words(value: Any) -> str:
  return value if value and type(value) is str else json.dumps(value)


def _table(
  columns: Columns, footnotes: Sequence[str] = (), title: str = ""
) -> Table:
  """Builds a table from columns, in which the best numbers are emphasized."""
  names, cells, smaller = zip(*columns, strict=True)
  best = frozenset(
    (i, j)
    for j, column in enumerate(cells)
    if smaller[j] is not None
    for i in _best(column, smaller[j])
  )
  rows = tuple(zip(*cells, strict=True))
  return Table(names, rows, tuple(footnotes), title, best)


def _best(cells: Sequence[str], smaller: bool = False) -> list[int]:
  """Indices of the best numbers; incomplete means are ignored."""
  numbers = {
    i: float(cell.split()[0])
    for i, cell in enumerate(cells)
    if cell != NOT_EVALUATED and "[" not in cell
  }
  if len(set(numbers.values())) < 2:
    return []
  wanted = (min if smaller else max)(numbers.values())
  return [i for i, number in numbers.items() if number == wanted]


def _line(name: str, second: str, **options: Any) -> Line:
  """A line of `_corruption_table`, with options of `_cell`."""
  cell = functools.partial(_cell, **options)
  return name, second, cell, options.get("column") == "error"


def _corruption_table(
  rows: pd.DataFrame,
  base: Sequence[int],
  first: str,
  second: str,
  lines: Iterable[Line],
  footnotes: Sequence[str] = (),
  evaluator: str = "corruption",
) -> Table | None:
  """Makes a row for each line and a column for each series of an evaluator."""
  rows = rows[rows["evaluator"] == evaluator]
  if rows.empty:
    return None
  bases = grouping.by_variant(rows[rows["group"].isin(base)])
  shown = grouping.series(rows)
  pairs = [(x, bases.get(x["variant"].iloc[0])) for x in shown.values()]
  table, best = [], set()
  for name, place, cell, smaller in lines:
    cells = [cell(*pair) for pair in pairs]
    if smaller is not None:
      best |= {(len(table), j + 2) for j in _best(cells, smaller)}
    table.append((name.replace("_", " "), place, *cells))
  notes = [INTERVALS]
  if bases:
    label = next(iter(bases.values()))["config"].iloc[0]
    notes.append(f"with a sign: difference from {label} in percentage points")
  header, notes = (first, second, *shown), (*notes, *footnotes)
  return Table(header, tuple(table), notes, best=frozenset(best))


def _column(
  groups: Sequence[Group], rows: pd.DataFrame, **options: Any
) -> list[str]:
  """A cell for each group, with options of `_cell`."""
  parts = (rows[rows["group"] == i] for i in range(len(groups)))
  return [_cell(part, **options) for part in parts]


def _cell(
  rows: pd.DataFrame,
  base: pd.DataFrame | None = None,
  names: Sequence[str] = (),
  levels: Sequence[int] = SEVERITIES,
  column: str = "accuracy",
) -> str:
  """A number of a group, such as "65.6 (63.5-67.7)".

  Args:
    rows: rows of the group.
    base: rows of the baseline; the difference is shown if both are means over
      the same corruptions and severities.
    names: corruptions to average over; empty: one row per run.
    levels: severities to average over.
    column: column of the number.
  """
  others = rows if base is None else base
  is_base = set(others["config"]) == set(rows["config"])
  if names:
    rows, others = (
      grouping.shared(
        x[x["corruption"].isin(names) & x["severity"].isin(levels)]
      )
      for x in (rows, others)
    )
  found = grouping.estimate(rows, column)
  if not found:
    return NOT_EVALUATED
  more = []
  places = grouping.places(rows)
  if not is_base and grouping.places(others) == places:
    difference = found.value - grouping.estimate(others, column).value
    more = [f"{100 * difference:+z.1f}"]  # z turns -0.0 into +0.0
  factor, digits = (1, 3) if column in CALIBRATION else (100, 1)
  text = _text(found, rows, factor, digits, more)
  return text + grouping.lacking(places, names, levels)


def _text(
  found: Estimate,
  rows: pd.DataFrame,
  factor: float = 100,
  digits: int = 1,
  more: Iterable[str] = (),
) -> str:
  """A number with its interval and other details in parentheses."""
  details = []
  if found.low is not None:
    low, high = factor * found.low, factor * found.high
    details.append(f"{low:.{digits}f}-{high:.{digits}f}")
  if found.seeds < (seeds := rows["seeds"].iloc[0]):
    details.append(f"{found.seeds} of {seeds} seeds")
  details += more
  # 1057 / 2000 is shown as 52.9, although 100 times this quotient is slightly
  # below 52.85 in floating point.
  value = f"{round(factor * found.value, 9):.{digits}f}"
  return value + (f" ({'; '.join(details)})" if details else "")


def _relative(rows: pd.DataFrame, base: pd.DataFrame | None) -> str:
  """Mean corruption error relative to a baseline's, in percent.

  The mean over corruptions of the sum of errors over severities, divided by the
  baseline's sum (Hendrycks and Dietterich 2019, section 4, with AlexNet as
  their baseline). Uses only test sets on which both were evaluated.
  """
  if base is None:
    return NOT_EVALUATED
  errors, others = (
    x[x["corruption"].isin(BENCHMARK) & x["severity"].isin(SEVERITIES)].pivot(
      index=["corruption", "severity"], columns="run", values="error"
    )
    for x in (rows, base)
  )
  both = errors.assign(base=others.mean(axis=1, skipna=False)).dropna()
  sums = both.groupby("corruption").sum()
  sums = sums[sums["base"] > 0]
  ratios = sums.drop(columns="base").div(sums["base"], axis=0).mean().dropna()
  found = statistics.over_seeds(list(ratios))
  if not found:
    return NOT_EVALUATED
  if others.shape[1] > 1:
    # It would leave out the variation of the baseline; `pairs.over_seeds` does
    # not.
    found = dataclasses.replace(found, low=None, high=None)
  places = {place for place in both.index if place[0] in sums.index}
  return _text(found, rows) + grouping.lacking(places, BENCHMARK)


def _trained_on(group: Group) -> str | None:
  data = group.runs[0].head.get("data", {})
  return data.get("train", {}).get("fingerprint")


def _methods(groups: Sequence[Group], rows: pd.DataFrame) -> list[Note]:
  """How the numbers were obtained; warns if they are not comparable."""
  found = []
  if len({facts(group).get("test set") for group in groups} - {None}) > 1:
    found.append("the runs were evaluated on different test images")
  for variant, part in grouping.by_variant(rows).items():
    totals = part.groupby("group")["total"].agg(lambda x: str(sorted(set(x))))
    if totals.nunique() > 1:
      found.append(f"{variant}: evaluated on different numbers of test images")
  found = [Note(f"{text}: do not compare them", "warning") for text in found]
  if len({_trained_on(group) for group in groups} - {None}) > 1:
    found.append(Note("the runs were trained on different images", "warning"))
  for variant, part in grouping.by_variant(rows[rows["details"] != ""]).items():
    images = ", ".join(f"{n:,}" for n in sorted(part["total"].unique()))
    # Variants with equal names have other settings in parentheses.
    named = variant.partition(" (")[2].removesuffix(")").split(", ")
    details = [x for x in part["details"].iloc[0].split("; ") if x not in named]
    text = "; ".join([*details, f"on {images} test images"])
    found.append(Note(f"{variant}: {text}"))
  return found
