"""Tables of results: accuracies with intervals, and how they were obtained."""

import json
from collections.abc import Callable, Mapping, Sequence
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
CALIBRATION = {
  "rms": ("RMS", 1.0),
  "ece": ("ECE", 1.0),
  "nll": ("NLL", float("inf")),
  "brier": ("Brier", 2.0),
}
SETS = {
  "15 benchmark": BENCHMARK,
  "4 extra": EXTRA,
  "all 19": (*BENCHMARK, *EXTRA),
  **CATEGORIES,
}
# Facts that become columns where runs differ in them.
SHOWN_FACTS = ("network", "data", "training", "evaluated on", "test set")
# Fields that other tables or the notes show.
SHOWN_ELSEWHERE = ("name", "seed", "weights.notes")
# Digits that tell fingerprints apart.
DIGITS = 12
Measure = Callable[[pd.DataFrame], Estimate | None]


def summary(runs: Sequence[Run], every_epsilon: bool = False) -> Table:
  """One row per configuration: every accuracy, in percent.

  Args:
    runs: the runs, in the order of the rows; those that differ only in their
      seeds are one row.
    every_epsilon: also those at which no run reaches `MAIN_ACCURACY`.

  Returns:
    The table. Its title is what is equal for all runs; what is not is a column.
    The footnotes say how each number was obtained.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  columns = [("method", [group.label for group in groups])]
  described = [facts(group) for group in groups]
  for name in SHOWN_FACTS:
    cells = [row.get(name, NOT_EVALUATED) for row in described]
    if len(set(cells)) > 1:
      columns.append((name, cells))
  first = len(columns)
  if len(found := grouping.clean(rows)):
    columns.append(("clean", _column(groups, found)))
  sources = _by_variant(rows[rows["corruption"].isin(BENCHMARK)])
  for source, part in sources.items():
    name = "15 corruptions" + (f": {source}" if len(sources) > 1 else "")
    parts = [part[part["group"] == i] for i in range(len(groups))]
    pairs = zip(groups, parts, strict=True)
    columns.append((name, [_mean(*pair, BENCHMARK) for pair in pairs]))
  hidden = []
  for attack, part in _by_variant(grouping.attacks(rows)).items():
    for number, (name, at) in enumerate(_epsilons(part)):
      is_main = number == 0 or at["accuracy"].max() > MAIN_ACCURACY
      if every_epsilon or is_main:
        columns.append((f"{attack}: eps {name}", _column(groups, at)))
      else:
        hidden.append(f"{attack}, eps {name}")
  found = notes(groups, rows)
  if hidden:
    text = f"not shown, as no run is above 1 %: {'; '.join(hidden)}"
    found = (*found, Note(text))
  lines = [f"warning: {n.text}" for n in found if n.level == "warning"]
  lines += [n.text for n in found if n.level != "warning"]
  return _table(columns, lines, lead(groups), range(first, len(columns)))


def lead(groups: Sequence[Group]) -> str:
  """What was run, in a sentence: everything that is equal for all runs."""
  first, *others = [facts(group) for group in groups]
  shared = [
    value
    for name, value in first.items()
    if name != "test set" and all(row.get(name) == value for row in others)
  ]
  count = sum(len(group.runs) for group in groups)
  return f"{count} run{'s' * (count > 1)}: {', '.join(shared)}"


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
    "test set": _fingerprint(test),
    "device": device and f"{device.get('count')} x {device.get('kind')}",
  }
  return {name: str(value) for name, value in found.items() if value}


def notes(groups: Sequence[Group], rows: pd.DataFrame) -> tuple[Note, ...]:
  """How the numbers were obtained; notes of some runs name these.

  Args:
    groups: what is shown.
    rows: of `groups.frame`.

  Returns:
    Warnings first, without repetition.
  """
  owners: dict[Note, dict[str, None]] = {}
  for group in groups:
    for run in group.runs:
      for note in (*_methods(run, rows), *run.notes):
        owners.setdefault(note, {})[group.label] = None
  found = [Note(_interval_note(groups)), *_mixed(groups, rows)]
  for note, who in sorted(
    owners.items(), key=lambda x: len(x[1]), reverse=True
  ):
    some = f"({', '.join(who)}) " if len(who) < len(groups) else ""
    found.append(Note(some + note.text, note.level))
  return tuple(sorted(found, key=lambda note: note.level != "warning"))


def corruptions(
  runs: Sequence[Run],
  baseline: Run | None = None,
  each_severity: bool = False,
) -> Table | None:
  """Accuracy in percent for each corruption, or corruption and severity.

  Args:
    runs: the runs, in the order of the columns.
    baseline: one of them; cells get the difference to its configuration.
    each_severity: not the mean over severities.

  Returns:
    One row per corruption that some run has, in the benchmark's order; None
    without any.

  Raises:
    ValueError: no run, or a run given twice.
  """
  columns = _corruption_series(runs)
  if not columns:
    return None
  base = _baseline(columns, baseline)
  table = []
  for category, names in categories(columns).items():
    for name in names:
      parts = [s.rows[s.rows["corruption"] == name] for s in columns]
      for level in _levels(parts) if each_severity else [None]:
        place = str(level) if each_severity else category
        cells = _corruption_cells(columns, parts, base, level)
        table.append((name.replace("_", " "), place, *cells))
  header = ("corruption", "severity" if each_severity else "category")
  header += tuple(s.label for s in columns)
  lines = [_interval_note([s.group for s in columns])]
  if not each_severity:
    lines = ["mean accuracy in % over severities 1 to 5"]
  if base is not None:
    label = columns[base].label
    lines.append(f"signed: difference to {label} in points")
  best = frozenset(
    (i, j + 2) for i, row in enumerate(table) for j in _best(row[2:])
  )
  return Table(header, tuple(table), tuple(lines), best=best)


def corruption_means(
  runs: Sequence[Run], baseline: Run | None = None
) -> Table | None:
  """Mean accuracies over groups of corruptions, and mean errors, in percent.

  Args:
    runs: the runs, in the order of the rows.
    baseline: one of them, to which errors are relative.

  Returns:
    One row per configuration; None without corruptions. Where some corruptions
    of a mean were not evaluated, the cell says how many were.

  Raises:
    ValueError: no run, or a run given twice.
  """
  shown = _corruption_series(runs)
  if not shown:
    return None
  columns = [("method", [s.label for s in shown])]
  columns += [
    (name, [_mean(s.group, s.rows, names) for s in shown])
    for name, names in SETS.items()
  ]
  errors = [_mean(s.group, s.rows, BENCHMARK, error=True) for s in shown]
  columns.append(("mCE", errors))
  lines = [
    "mean accuracy in %, over corruptions and severities alike; of several "
    "seeds with Student's 95 % interval over them",
    "4 extra: speckle noise, gaussian blur, spatter, saturate; the categories "
    "have one of them each",
    "mCE: mean corruption error, 100 minus the mean accuracy over the "
    "benchmark's 15, not normalized",
  ]
  base = _baseline(shown, baseline)
  if base is not None:
    columns.append(("relative mCE", [_relative(s, shown[base]) for s in shown]))
    lines.append(
      "relative mCE: for each of the 15 the sum of errors over severities, in "
      f"% of that of {shown[base].label}, and the mean of these"
    )
  smaller = {i for i, (name, _) in enumerate(columns) if "mCE" in name}
  return _table(columns, lines, best=range(1, len(columns)), smaller=smaller)


def categories(columns: Sequence[Series]) -> dict[str, tuple[str, ...]]:
  """The evaluated corruptions by category, unknown ones under "other"."""
  found = dict.fromkeys(n for s in columns for n in s.rows["corruption"])
  result = {
    category: tuple(name for name in names if name in found)
    for category, names in CATEGORIES.items()
  }
  known = {name for names in CATEGORIES.values() for name in names}
  result["other"] = tuple(name for name in found if name not in known)
  return {category: names for category, names in result.items() if names}


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
  corrupted = rows[rows["corruption"].isin(BENCHMARK)]
  sources = {"clean": grouping.clean(rows)}
  for source, part in _by_variant(corrupted).items():
    several = corrupted["variant"].nunique() > 1
    sources[source if several else "corrupted"] = part
  columns = [("method", [group.label for group in groups])]
  for source, part in sources.items():
    for key, (name, most) in CALIBRATION.items():
      if not part[key].notna().any():
        continue
      cells = []
      for i, group in enumerate(groups):
        own = part[part["group"] == i]
        cell = text(grouping.mean(own, key, most), group, 1, 3)
        names = BENCHMARK if source != "clean" else ()
        cells.append(cell + _lacking(own, names))
      columns.append((f"{source}: {name}", cells))
  if len(columns) == 1:
    return None
  lines = [
    "RMS: root mean square calibration error in adaptive bins of 100; ECE: "
    "expected calibration error; both in [0, 1]. NLL: negative log likelihood, "
    "nats. Brier: squared error of the probabilities, in [0, 2]. Smaller is "
    "better in all",
    "corrupted: mean over the benchmark's 15 corruptions and all severities",
  ]
  numbers = range(1, len(columns))
  return _table(columns, lines, best=numbers, smaller=set(numbers))


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
    name = measure + (" mean" if measure == "corruption" else "")
    if epsilon is not None:
      name += f", eps {epsilon:.4g}"
    parts = _by_variant(_required_rows(rows, measure, epsilon)) or {
      "": rows[:0]
    }
    for variant, part in parts.items():
      shown = f"{name} ({variant})" if len(parts) > 1 else name
      wanted = f"{bound} {100 * value:.2f}"
      table.append((shown, wanted, *_compared(part, bound, value)))
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


def differences(runs: Sequence[Run]) -> Table | None:
  """The fields in which the configurations differ.

  Args:
    runs: the runs; those whose results have no configuration are left out.

  Returns:
    One row per field, one column per configuration; None where nothing differs
    or fewer than two are known.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = [g for g in grouping.groups(runs) if "config" in g.runs[0].head]
  known = [
    [grouping.flat(run.head["config"]) for run in group.runs]
    for group in groups
  ]
  rows = []
  for name in sorted({n for configs in known for c in configs for n in c}):
    cells = [
      " / ".join(dict.fromkeys(_value(config, name) for config in configs))
      for configs in known
    ]
    if name not in SHOWN_ELSEWHERE and len(set(cells)) > 1:
      rows.append((name, *cells))
  if not rows:
    return None
  header = ("field", *(group.label for group in groups))
  return Table(header, tuple(rows), ("-: the configuration has no such field",))


def origins(runs: Sequence[Run]) -> Table:
  """Where each run's numbers come from.

  Args:
    runs: the runs.

  Returns:
    One row per run, as far as its results say: name, seed, length of training,
    device, data. Footnotes: versions, and whose they are where they differ.
  """
  rows, versions = [], {}
  labels = grouping.labels([(run,) for run in runs])
  for label, run in zip(labels, runs, strict=True):
    seconds = run.head.get("timing", {}).get("train_seconds")
    data = run.head.get("data", {})
    cells = [run.about.get(x) for x in ("name", "seed", "epochs", "step")]
    cells.append(f"{seconds / 60:.1f}" if seconds else None)
    cells.append(facts(Group("", (run,))).get("device"))
    for split in ("train", "test"):
      part = data.get(split)
      cells.append(part and f"{part.get('size')}: {_fingerprint(part)}")
    shown = (NOT_EVALUATED if x in (None, {}) else str(x) for x in cells)
    rows.append((label, *shown))
    said = run.head.get("versions", {}).items()
    text = ", ".join(f"{name} {version}" for name, version in said)
    versions.setdefault(text, []).append(label)
  header = (
    *("run", "name", "seed", "epochs", "steps", "training (minutes)"),
    *("device", "training data", "test data"),
  )
  lines = [
    text if len(who) == len(rows) else f"({', '.join(who)}) {text}"
    for text, who in versions.items()
    if text
  ]
  lines.append("data: number of images, SHA-256 of images and labels")
  return Table(header, tuple(rows), tuple(lines))


def text(
  estimate: Estimate | None,
  group: Group,
  factor: float = 100,
  digits: int = 1,
  more: Sequence[str] = (),
) -> str:
  """An estimate in a cell, such as "65.6 (63.5-67.7)".

  Args:
    estimate: of the group; None: not evaluated.
    group: the runs; the cell says so where not all of them went into it.
    factor: to the unit shown.
    digits: behind the point.
    more: further details in the parentheses.

  Returns:
    The cell.
  """
  if estimate is None:
    return NOT_EVALUATED
  ends = []
  if estimate.low is not None:
    low, high = factor * estimate.low, factor * estimate.high
    ends.append(f"{low:.{digits}f}-{high:.{digits}f}")
  if estimate.seeds < len(group.runs):
    ends.append(f"{estimate.seeds} of {len(group.runs)} seeds")
  # 52.85 of 1057 / 2000, which times 100 is a little less.
  value = f"{round(factor * estimate.value, 9):.{digits}f}"
  ends += more
  return value + (f" ({'; '.join(ends)})" if ends else "")


def _table(
  columns: Sequence[tuple[str, Sequence[str]]],
  lines: Sequence[str],
  title: str = "",
  best: Sequence[int] = (),
  smaller: Sequence[int] = (),
) -> Table:
  """Builds a table from columns.

  Args:
    columns: name and cells of each.
    lines: footnotes.
    title: above the table.
    best: columns whose best cell is emphasized.
    smaller: those in which smaller is better.
  """
  cells = [column for _, column in columns]
  marked = frozenset(
    (i, j) for j in best for i in _best(cells[j], smaller=j in smaller)
  )
  header = tuple(name for name, _ in columns)
  rows = tuple(zip(*cells, strict=True))
  return Table(header, rows, tuple(lines), title, marked)


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


def _column(
  groups: Sequence[Group],
  rows: pd.DataFrame,
  measure: Measure = grouping.accuracy,
) -> list[str]:
  """A cell for each group."""
  return [
    text(measure(rows[rows["group"] == i]), group)
    for i, group in enumerate(groups)
  ]


def _by_variant(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
  return dict(tuple(rows.groupby("variant", sort=False)))


def _epsilons(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
  """The rows of each epsilon above 0 with its name, ascending."""
  norm = rows["norm"].iloc[0]
  return [
    (grouping.epsilon_name(epsilon, norm), part)
    for epsilon, part in rows[rows["epsilon"] > 0].groupby("epsilon")
  ]


def _mean(
  group: Group, rows: pd.DataFrame, names: Sequence[str], error: bool = False
) -> str:
  """Mean accuracy, or error, over corruptions and severities in percent."""
  part = rows[
    rows["corruption"].isin(names) & rows["severity"].isin(SEVERITIES)
  ]
  if error:
    part = part.assign(accuracy=1 - part["accuracy"])
  return text(grouping.mean(part), group) + _lacking(part, names)


def _lacking(rows: pd.DataFrame, names: Sequence[str]) -> str:
  """Such as " [14 of 15]" where a mean lacks corruptions or severities."""
  if rows.empty or not names:
    return ""
  by_run = rows.groupby("run")
  kinds, sets = by_run["corruption"].nunique().min(), by_run.size().min()
  if sets < len(SEVERITIES) * kinds:
    return f" [{sets} of {len(SEVERITIES) * len(names)} test sets]"
  return f" [{kinds} of {len(names)}]" if kinds < len(names) else ""


def _corruption_series(runs: Sequence[Run]) -> list[Series]:
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  return grouping.series(groups, rows[rows["evaluator"] == "corruption"])


def _baseline(shown: Sequence[Series], baseline: Run | None) -> int | None:
  """Place of the baseline's group; None without a baseline, or its rows."""
  for i, part in enumerate(shown):
    if baseline in part.group.runs:
      return i
  return None


def _levels(parts: Sequence[pd.DataFrame]) -> list[int]:
  return sorted({int(level) for part in parts for level in part["severity"]})


def _corruption_cells(
  columns: Sequence[Series],
  parts: Sequence[pd.DataFrame],
  base: int | None,
  level: int | None,
) -> list[str]:
  """Cells of one corruption, at one severity or in the mean over them."""
  if level is not None:
    parts = [part[part["severity"] == level] for part in parts]
    found = [grouping.accuracy(part) for part in parts]
  else:
    found = [grouping.mean(part) for part in parts]
  cells = []
  for i, (estimate, part) in enumerate(zip(found, parts, strict=True)):
    more = []
    if base not in (None, i) and estimate and found[base]:
      # Adding 0 makes +0.0 of -0.0.
      more = [f"{100 * (estimate.value - found[base].value):+z.1f}"]
    cell = text(estimate, columns[i].group, more=more)
    cells.append(cell + ("" if level else _lacking(part, [""])))
  return cells


def _relative(shown: Series, base: Series) -> str:
  """Mean corruption error relative to a baseline's, in percent.

  For each corruption the sum of errors over severities, divided by the
  baseline's, and the mean of these ratios (Hendrycks and Dietterich 2019,
  section 4, there with AlexNet as the baseline). Only what both have counts.
  """
  if shown.variant != base.variant:
    return NOT_EVALUATED
  errors = [
    1
    - s.rows[s.rows["corruption"].isin(BENCHMARK)].pivot(
      index=["corruption", "severity"], columns="run", values="accuracy"
    )
    for s in (shown, base)
  ]
  reference = errors[1].mean(axis=1, skipna=False)
  ratios = []
  for run in errors[0]:
    both = pd.DataFrame({"run": errors[0][run], "base": reference}).dropna()
    sums = both.groupby("corruption").sum()
    sums = sums[sums["base"] > 0]
    if len(sums):
      ratios.append((sums["run"] / sums["base"]).mean())
  cell = text(grouping.over_seeds(ratios), shown.group)
  return cell + _lacking(
    shown.rows[shown.rows["corruption"].isin(BENCHMARK)], BENCHMARK
  )


def _required_rows(
  rows: pd.DataFrame, measure: str, epsilon: float | None
) -> pd.DataFrame:
  if measure == "clean":
    return grouping.clean(rows)
  if measure == "corruption":
    return rows[rows["corruption"].isin(BENCHMARK)]
  attacked = grouping.attacks(rows)
  return attacked[(attacked["epsilon"] - epsilon).abs() <= EPSILON_TOLERANCE]


def _compared(rows: pd.DataFrame, bound: str, value: float) -> tuple[str, str]:
  """The mean accuracy of rows in percent, and whether it is as required."""
  if rows.empty:
    return "not measured", "NOT MET"
  found = float(rows["accuracy"].mean())
  met = found >= value if bound == "at least" else found <= value
  return f"{100 * found:.2f}", "met" if met else "NOT MET"


def _value(config: Mapping[str, Any], name: str) -> str:
  if name not in config:
    return NOT_EVALUATED
  value = config[name]
  return value if isinstance(value, str) and value else json.dumps(value)


def _fingerprint(data: Mapping[str, Any]) -> str:
  return data.get("fingerprint", "").removeprefix("sha256:")[:DIGITS]


def _interval_note(groups: Sequence[Group]) -> str:
  """Which interval is in parentheses."""
  wilson = "the 95 % Wilson interval over test images"
  student = "with Student's 95 % interval over them"
  several = [len(group.runs) > 1 for group in groups]
  if not any(several):
    return (
      f"Accuracy in %, with {wilson}; it does not cover the choice of seed."
    )
  if all(several):
    return f"Accuracy in %: mean over seeds, {student}."
  return (
    f"Accuracy in %. Rows of several seeds: their mean, {student}. The others: "
    f"{wilson}, which does not cover the choice of seed."
  )


def _methods(run: Run, rows: pd.DataFrame) -> list[Note]:
  """How a run's numbers were obtained."""
  own = rows[rows["folder"] == str(run.folder)]
  found = []
  for variant, part in _by_variant(grouping.attacks(own)).items():
    totals = ", ".join(f"{n:,}" for n in sorted(part["total"].unique()))
    details = part["details"].iloc[0]
    found.append(
      f"{variant}: {details}; eps in units of pixels in [0, 1]; on {totals} "
      "test images"
    )
  for variant in _by_variant(own[own["corruption"].isin(BENCHMARK)]):
    found.append(
      f"15 corruptions: {variant}; mean over the benchmark's corruptions and 5 "
      "severities, of one run without an interval, as the same images recur"
    )
  return [Note(text) for text in found]


def _mixed(groups: Sequence[Group], rows: pd.DataFrame) -> list[Note]:
  """Warnings of numbers in one column that cannot be compared."""
  found = []
  if len({facts(group).get("test set") for group in groups}) > 1:
    found.append("the runs were evaluated on different test images")
  for variant, part in _by_variant(rows).items():
    totals = part.groupby("group")["total"].agg(lambda x: str(sorted(set(x))))
    if totals.nunique() > 1:
      found.append(f"{variant}: evaluated on different numbers of test images")
  return [Note(f"{text}: do not compare them", "warning") for text in found]
