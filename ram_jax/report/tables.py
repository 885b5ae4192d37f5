"""Tables of results: accuracies with intervals, and how they were obtained."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ram_jax.contracts import Note
from ram_jax.corruptions import BENCHMARK, CATEGORIES, EXTRA, SEVERITIES
from ram_jax.report import groups as grouping
from ram_jax.report.groups import Group, Series
from ram_jax.report.statistics import Estimate
from ram_jax.report.table import Table
from ram_jax.runs import results
from ram_jax.runs.results import Run

NOT_EVALUATED = "-"
# The summary leaves out an epsilon at which no run is more accurate.
MAIN_ACCURACY = 0.01
EPSILON_TOLERANCE = 1e-6
# Calibration: name for people, largest value.
CALIBRATION = {"rms": ("RMS", 1.0), "ece": ("ECE", 1.0)}
CALIBRATION |= {"nll": ("NLL", math.inf), "brier": ("Brier", 2.0)}
MEANS = {"benchmark": BENCHMARK, "extra": EXTRA, "all": BENCHMARK + EXTRA}
# Facts that become columns where runs differ in them.
SHOWN_FACTS = ("network", "data", "training", "evaluated on", "test set")
INTERVALS = (
  "Accuracy in %, with 95 % intervals: Student's over seeds where there are "
  "several, else Wilson's over test images, which do not cover the choice of "
  "seed; of a mean over corruptions of one run none, as the same images recur."
)
ERRORS = "mCE: mean corruption error over the benchmark's 15, not normalized"
RELATIVE = (
  "relative mCE: for each of the 15 the sum of errors over severities, in % of "
  "that of the baseline, and the mean of these"
)
# A table before it is one: name, cells, whether smaller is better.
Columns = list[tuple[str, Sequence[str], bool | None]]


def summary(runs: Sequence[Run], every_epsilon: bool = False) -> Table:
  """One row per configuration: every accuracy, in percent.

  Args:
    runs: the runs, in the order of the rows; those that differ only in their
      seeds are one row.
    every_epsilon: also those at which no run is above `MAIN_ACCURACY`.

  Returns:
    The table. Its title is what is equal for all runs; what is not is a column.
    The footnotes say how each number was obtained.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  columns: Columns = [("method", [group.label for group in groups], None)]
  known = [facts(group) for group in groups]
  for name in SHOWN_FACTS:
    cells = [row.get(name, NOT_EVALUATED) for row in known]
    if len({*cells} - {NOT_EVALUATED}) > 1:
      columns.append((name, cells, None))
  column = functools.partial(_column, groups)
  if len(clean := grouping.clean(rows)):
    columns.append(("clean", column(clean), False))
  sources = _by_variant(rows[rows["corruption"].isin(BENCHMARK)])
  for source, part in sources.items():
    name = "15 corruptions" + (f": {source}" if len(sources) > 1 else "")
    columns.append((name, column(part, names=BENCHMARK), False))
  hidden = []
  for attack, part in _by_variant(grouping.attacks(rows)).items():
    positive = part[part["epsilon"] > 0].groupby("epsilon")
    for number, (epsilon, at) in enumerate(positive):
      name = f"eps {grouping.epsilon_name(epsilon, at['norm'].iloc[0])}"
      if number and at["accuracy"].max() <= MAIN_ACCURACY and not every_epsilon:
        hidden.append(f"{attack}, {name}")
      else:
        columns.append((f"{attack}: {name}", column(at), False))
  found = [
    ("warning: " if note.level == "warning" else "") + note.text
    for note in notes(groups, rows)
  ]
  if hidden:
    found.append(f"not shown, as no run is above 1 %: {'; '.join(hidden)}")
  return _table(columns, found, lead(groups))


def every_epsilon(runs: Sequence[Run]) -> Table | None:
  """The summary without notes, with the epsilons that it leaves out, if any."""
  table = summary(runs, every_epsilon=True)
  if table.header == summary(runs).header:
    return None
  return dataclasses.replace(table, title="", footnotes=())


def title(groups: Sequence[Group]) -> str:
  """What the runs are of, in a few words."""
  known = [facts(group) for group in groups]
  subjects = {f"{row['network']} on {row['data']}" for row in known}
  return f"Robustness of {' and '.join(sorted(subjects))}"


def lead(groups: Sequence[Group]) -> str:
  """What was run, in a sentence: everything that is equal for all runs."""
  known = pd.DataFrame([facts(g) for g in groups], dtype=object)
  shared = known.drop(columns="test set", errors="ignore").bfill().iloc[0]
  shared = shared[known.nunique() == 1]
  count = sum(len(group.runs) for group in groups)
  return f"ram_jax, {count} run{'s' * (count > 1)}: {', '.join(shared)}."


def facts(group: Group) -> dict[str, str]:
  """What a group is of, by name, as far as it is known."""
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
    "training": f"{epochs} epochs" if epochs else steps and f"{steps} steps",
    "seeds": f"seed{'s' * (len(group.runs) > 1)} {seeds}",
    "evaluated on": images and f"{images:,} test images",
    "test set": test.get("fingerprint", "")[:19],
    "device": device and f"{device.get('count')} x {device.get('kind')}",
  }
  return {name: str(value) for name, value in found.items() if value}


def notes(groups: Sequence[Group], rows: pd.DataFrame) -> tuple[Note, ...]:
  """How the numbers were obtained; notes of some runs name these.

  Args:
    groups: what is shown.
    rows: of `groups.frame`.

  Returns:
    Without repetition, warnings first, then what the intervals are.
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
    baseline: one of them; cells get the difference to its configuration.

  Returns:
    Tables by title: of each corruption, of means over several, and of each
    severity; none where no run was evaluated on corruptions. Where a mean lacks
    corruptions or severities, the cell says how many it has.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  rows = rows[rows["evaluator"] == "corruption"]
  if rows.empty:
    return {}
  shown = grouping.series(groups, rows)
  bases = {s.variant: s for s in shown if baseline in s.group.runs}
  kinds = {name: kind for kind, names in CATEGORIES.items() for name in names}
  found = rows.groupby("corruption", sort=False)["severity"].unique()
  each = [name for name in kinds if name in found]
  each += [name for name in found.index if name not in kinds]
  single = [(n, kinds.get(n, "other"), {"names": (n,)}) for n in each]
  means = [
    (kind, str(len(names)), {"names": names})
    for kind, names in (MEANS | CATEGORIES).items()
  ]
  means.append(("mCE", "15", {"names": BENCHMARK, "column": "error"}))
  levels = [
    (name, str(level), {"names": (name,), "levels": (level,)})
    for name in each
    for level in sorted(found[name])
  ]
  table = functools.partial(_corruption_table, shown, bases)
  return {
    "Each corruption": table("corruption", "category", single),
    "Categories of corruptions and mCE": _with_relative_errors(
      table("mean over", "corruptions", means), shown, bases
    ),
    "Each corruption and severity": table("corruption", "severity", levels),
  }


def calibration(runs: Sequence[Run]) -> Table | None:
  """How far confidences are from accuracies, clean and corrupted.

  Args:
    runs: the runs, in the order of the rows.

  Returns:
    One row per configuration; None where no run has these numbers.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  sources = _by_variant(rows[rows["corruption"].isin(BENCHMARK)])
  parts = [("clean", grouping.clean(rows), ())]
  for source, part in sources.items():
    name = source if len(sources) > 1 else "15 corruptions"
    parts.append((name, part, BENCHMARK))
  columns: Columns = [("method", [group.label for group in groups], None)]
  for source, part, names in parts:
    for key, (name, most) in CALIBRATION.items():
      if part[key].notna().any():
        cells = _column(groups, part, names, key, most, 1, 3)
        columns.append((f"{source}: {name}", cells, True))
  lines = (
    "RMS: root mean square calibration error in adaptive bins of 100; ECE: "
    "expected calibration error; both in [0, 1]. NLL: negative log likelihood, "
    "nats. Brier: squared error of the probabilities, in [0, 2]. Smaller is "
    "better in all",
  )
  return _table(columns, lines) if len(columns) > 1 else None


def floors(
  run: Run, required: Sequence[tuple[str, float | None, str, float]]
) -> Table:
  """Compares accuracies of a run with required ones, in percent.

  Args:
    run: an evaluated run.
    required: (measure, epsilon, bound, value) each, for example
      ("clean", None, "at least", 0.92) or ("adversarial", 8.0, "at most",
      0.02); value in [0, 1].

  Returns:
    Rows of measure, required value, evaluated value and "met" or "NOT MET".
    What was not evaluated is not met; of several attacks there is a row each.

  Raises:
    ValueError: a requirement that is not of this form.
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
    means = part.groupby("variant", sort=False)["accuracy"].mean()
    found = dict(means) or {"": None}
    for variant, accuracy in found.items():
      name = {"corruption": "corruption mean"}.get(measure, measure)
      name += f", eps {epsilon:.4g}" if epsilon is not None else ""
      name += f" ({variant})" if len(found) > 1 else ""
      met, text = False, "not measured"
      if accuracy is not None:
        text = f"{100 * accuracy:.2f}"
        met = accuracy >= value if bound == "at least" else accuracy <= value
      wanted = f"{bound} {100 * value:.2f}"
      table.append((name, wanted, text, "met" if met else "NOT MET"))
  return Table(("accuracy (%)", "required", "measured", ""), tuple(table))


def profile(found: Mapping[str, Any]) -> Table:
  """Shows where the time of a training goes.

  Args:
    found: content of profile.json.

  Returns:
    A row for each part, the largest first but for the last two.
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
    "host: the devices wait",
    f"without tracing a step takes "
    f"{1000 * found['untraced_seconds'] / steps:.2f} ms",
  )
  return Table(("part", "ms per step", "share"), tuple(rows), lines)


def fields(runs: Sequence[Run], differing: bool = False) -> Table | None:
  """Where numbers come from: versions, devices, data, times, configuration.

  Args:
    runs: the runs.
    differing: only fields of the configuration, but for the seed, in which the
      columns differ.

  Returns:
    One row per field of results.json, one column per configuration, with the
    values of its runs; None without rows.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = grouping.groups(runs)
  known = [[grouping.flat(run.head) for run in g.runs] for g in groups]
  names = sorted({n for same in known for tree in same for n in tree})
  rows = []
  for name in names:
    values = [[tree.get(name, NOT_EVALUATED) for tree in g] for g in known]
    texts = [
      [v if v and type(v) is str else json.dumps(v) for v in g] for g in values
    ]
    cells = [" / ".join(dict.fromkeys(same)) for same in texts]
    place, _, field = name.partition(".")
    shown = place == "config" and field not in grouping.ALONE
    if not differing or (shown and len(set(cells)) > 1):
      rows.append((field if differing else name, *cells))
  header = ("field", *(group.label for group in groups))
  return Table(header, tuple(rows)) if rows else None


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
  """Places of the best of several numbers; incomplete means do not count."""
  numbers = {
    i: float(cell.split()[0])
    for i, cell in enumerate(cells)
    if cell != NOT_EVALUATED and "[" not in cell
  }
  if len(set(numbers.values())) < 2:
    return []
  wanted = (min if smaller else max)(numbers.values())
  return [i for i, number in numbers.items() if number == wanted]


def _corruption_table(
  shown: Sequence[Series],
  bases: Mapping[str, Series],
  first: str,
  second: str,
  sets: Iterable[tuple[str, str, Mapping[str, Any]]],
) -> Table:
  """A row for each (name, place, options of `_cell`)."""
  rows, best = [], set()
  for name, place, options in sets:
    cells = []
    for s in shown:
      base = bases.get(s.variant)
      other = base.rows if base and base is not s else None
      cells.append(_cell(s.group, s.rows, base=other, **options))
    smaller = options.get("column") == "error"
    best |= {(len(rows), j + 2) for j in _best(cells, smaller)}
    rows.append((name.replace("_", " "), place, *cells))
  lines = [INTERVALS]
  if bases:
    label = next(iter(bases.values())).group.label
    lines.append(f"with a sign: difference to {label} in points")
  header = (first, second, *(s.label for s in shown))
  return Table(header, tuple(rows), tuple(lines), best=frozenset(best))


def _with_relative_errors(
  table: Table, shown: Sequence[Series], bases: Mapping[str, Series]
) -> Table:
  rows, lines = table.rows, [*table.footnotes, ERRORS]
  if bases:
    cells = [_relative(s, bases.get(s.variant)) for s in shown]
    rows += (("relative mCE", "15", *cells),)
    lines.append(RELATIVE)
  return dataclasses.replace(table, rows=rows, footnotes=tuple(lines))


def _by_variant(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
  return dict(tuple(rows.groupby("variant", sort=False)))


def _column(
  groups: Sequence[Group], rows: pd.DataFrame, *options: Any, **named: Any
) -> list[str]:
  """A cell for each group, with options of `_cell`."""
  return [
    _cell(group, rows[rows["group"] == i], *options, **named)
    for i, group in enumerate(groups)
  ]


def _cell(
  group: Group,
  rows: pd.DataFrame,
  names: Sequence[str] = (),
  column: str = "accuracy",
  most: float = 1.0,
  factor: float = 100,
  digits: int = 1,
  levels: Sequence[int] = SEVERITIES,
  base: pd.DataFrame | None = None,
) -> str:
  """A number of a group, such as "65.6 (63.5-67.7)".

  Args:
    group: the runs.
    rows: its rows.
    names: corruptions to average over; none: one row per run.
    column: of the number.
    most: its largest possible value.
    factor: to the unit shown.
    digits: behind the point.
    levels: severities to average over.
    base: the baseline's rows; the difference to it is shown where both are
      means over the same corruptions and severities.
  """
  rows = _selected(rows, names, levels)
  found = grouping.estimate(rows, column, most)
  more = []
  if found and base is not None:
    base = _selected(base, names, levels)
    if _places(base) == _places(rows):
      difference = found.value - grouping.estimate(base, column, most).value
      more = [f"{factor * difference:+z.1f}"]  # z makes +0.0 of -0.0
  sets = rows.groupby("run")["corruption"].agg(["nunique", "size"])
  lacking = _lacking(sets["nunique"].min(), sets["size"].min(), names, levels)
  return _text(found, group, factor, digits, more) + (lacking if found else "")


def _places(rows: pd.DataFrame) -> set[tuple[str, int]]:
  return set(zip(rows["corruption"], rows["severity"], strict=True))


def _selected(
  rows: pd.DataFrame, names: Sequence[str], levels: Sequence[int] = SEVERITIES
) -> pd.DataFrame:
  if not names:
    return rows
  return rows[rows["corruption"].isin(names) & rows["severity"].isin(levels)]


def _text(
  estimate: Estimate | None,
  group: Group,
  factor: float = 100,
  digits: int = 1,
  more: Iterable[str] = (),
) -> str:
  """A number with its interval and other details in parentheses."""
  if estimate is None:
    return NOT_EVALUATED
  details = []
  if estimate.low is not None:
    low, high = factor * estimate.low, factor * estimate.high
    details.append(f"{low:.{digits}f}-{high:.{digits}f}")
  if estimate.seeds < len(group.runs):
    details.append(f"{estimate.seeds} of {len(group.runs)} seeds")
  details += more
  # 52.85 of 1057 / 2000, which times 100 is a little less.
  value = f"{round(factor * estimate.value, 9):.{digits}f}"
  return value + (f" ({'; '.join(details)})" if details else "")


def _lacking(
  kinds: int, sets: int, names: Sequence[str], levels: Sequence[int]
) -> str:
  """Such as " [14 of 15]" where a mean lacks corruptions or severities."""
  if not names or sets == len(names) * len(levels):
    return ""
  if sets == kinds * len(levels):
    return f" [{kinds} of {len(names)}]"
  return f" [{sets} of {len(names) * len(levels)} test sets]"


def _relative(shown: Series, base: Series | None) -> str:
  """Mean corruption error relative to a baseline's, in percent.

  For each corruption the sum of errors over severities, divided by the
  baseline's, and the mean of these ratios (Hendrycks and Dietterich 2019,
  section 4, there with AlexNet as the baseline). Only what both have counts.
  """
  if base is None:
    return NOT_EVALUATED
  errors, others = (
    _selected(s.rows, BENCHMARK).pivot(
      index=["corruption", "severity"], columns="run", values="error"
    )
    for s in (shown, base)
  )
  both = errors.assign(base=others.mean(axis=1, skipna=False)).dropna()
  sums = both.groupby("corruption").sum()
  sums = sums[sums["base"] > 0]
  ratios = sums.drop(columns="base").div(sums["base"], axis=0).mean().dropna()
  found = grouping.over_seeds(list(ratios))
  sets = int(both.index.get_level_values(0).isin(sums.index).sum())
  lacking = _lacking(len(sums), sets, BENCHMARK, SEVERITIES)
  return _text(found, shown.group) + (lacking if found else "")


def _methods(groups: Sequence[Group], rows: pd.DataFrame) -> list[Note]:
  """How the numbers were obtained, and warnings where they do not compare."""
  found = []
  if len({facts(group).get("test set") for group in groups} - {None}) > 1:
    found.append("the runs were evaluated on different test images")
  for variant, part in _by_variant(rows).items():
    totals = part.groupby("group")["total"].agg(lambda x: str(sorted(set(x))))
    if totals.nunique() > 1:
      found.append(f"{variant}: evaluated on different numbers of test images")
  found = [Note(f"{text}: do not compare them", "warning") for text in found]
  for variant, part in _by_variant(rows[rows["details"] != ""]).items():
    images = ", ".join(f"{n:,}" for n in sorted(part["total"].unique()))
    text = f"{variant}: {part['details'].iloc[0]}; on {images} test images"
    found.append(Note(text))
  return found
