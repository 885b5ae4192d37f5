"""Draws figures like those in the paper for several runs, and image grids.

Each `draw_*` returns a matplotlib Figure, or None if there is nothing to draw;
`save` writes it.
"""

import math
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ram_jax.corruptions import BENCHMARK, SEVERITIES
from ram_jax.report import groups as grouping
from ram_jax.report import references, statistics
from ram_jax.report.groups import Group
from ram_jax.report.statistics import Estimate
from ram_jax.report.table import line
from ram_jax.runs.results import Run

# The paper's Figure 1: one corruption of each category.
EXAMPLES = ("gaussian_noise", "glass_blur", "fog", "jpeg_compression")
# Key in metrics.jsonl, title, scale factor; all on training images.
CURVES = (
  ("loss", "training loss", 1.0),
  ("accuracy", "training accuracy (%)", 100.0),
  ("adversarial_accuracy", "training adversarial accuracy (%)", 100.0),
)
# Radius of attacks in published tables, by norm.
USUAL = {"l2": 0.5, "linf": 8 / 255}
# With more points, the noise of single batches would hide the trend.
CURVE_POINTS = 100
DPI = 150
# Okabe and Ito's palette for color-blind readers, without yellow, which is hard
# to see on white; black last.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
COLORS.append("#000000")
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", ":", "-.")
GRAY = "#5c5c5c"


def draw_adversarial_accuracy(runs: Sequence[Run]) -> Figure | None:
  """Accuracy against the size of the attack (the paper's Figure 2).

  Args:
    runs: the runs; those without adversarial accuracy are left out.

  Returns:
    A figure with one panel per norm. Each configuration and attack has a line
    over epsilon (0: clean) and a band for the 95 % interval, in percent:
    Wilson's over test images for one run, Student's t over seeds for several.
  """
  groups, rows = grouping.groups_and_rows(runs)
  attacked = grouping.attacks(rows)
  if attacked.empty:
    return None
  by_norm = attacked.groupby(attacked["norm"].fillna(""))
  figure, grid = panels(len(by_norm), 1, 6.0, 3.9, sharey=True)
  for axes, (norm, part) in zip(grid, by_norm, strict=True):
    shown = grouping.series(part)
    looks = styles(groups, shown)
    for label, own in shown.items():
      curve(axes, looks[label], _points(own, "epsilon", rows))
    _epsilon_axis(axes, sorted({0.0, *part["epsilon"]}), norm)
    attacks = ", ".join(part["variant"].unique())
    tidy(axes, plain(f"Accuracy under {attacks}"))
  _percent_axis(grid, from_zero=True)
  legend_below(figure)
  return figure


def draw_severity(runs: Sequence[Run], names: Sequence[str]) -> Figure | None:
  """Accuracy against severity (the paper's Figures 1 and 3 to 6).

  Args:
    runs: the runs; those that were not evaluated on a corruption are left out
      of its panel.
    names: corruptions, one panel each; those without results are left out.

  Returns:
    A figure with one line per configuration in each panel, over severity (0:
    clean), and a band for its 95 % interval, in percent.
  """
  groups, rows = grouping.groups_and_rows(runs)
  corrupted = rows[rows["corruption"].isin(names)]
  if corrupted.empty:
    return None
  shown = grouping.series(corrupted)
  looks = styles(groups, shown)
  present = [name for name in names if (corrupted["corruption"] == name).any()]
  columns = 2 if len(present) < 5 else 3
  figure, grid = panels(len(present), columns, 3.0, 1.95, sharey=True)
  for name, axes in zip(present, grid, strict=True):
    for label, own in shown.items():
      own = own[own["corruption"] == name]
      if len(own):
        curve(axes, looks[label], _points(own, "severity", rows))
    tidy(axes, plain(name.replace("_", " ")))
    axes.set_xticks((0, *SEVERITIES), ("clean", *map(str, SEVERITIES)))
  for axes in grid[-columns:]:
    axes.set_xlabel("severity", fontsize=9)
  _percent_axis(grid)
  legend_below(figure)
  return figure


def draw_trade_off(runs: Sequence[Run]) -> Figure | None:
  """Accuracy under attack against mean corruption accuracy.

  Args:
    runs: the runs; those that lack either are left out, and so are those with
      fewer corruptions or severities than others.

  Returns:
    A figure with one panel per attack and source of corrupted images, for the
    evaluated epsilon that is closest to the norm's `USUAL` radius. Each
    configuration is a point with its 95 % intervals, if any. If all 15
    corruptions at all severities were evaluated, published models with the same
    norm, radius and data set are shown as gray points.
  """
  groups, rows = grouping.groups_and_rows(runs)
  attacked = grouping.attacks(rows).query("epsilon > 0")
  parts = []
  for source, means in _corruption_means(rows).items():
    for variant, part in grouping.by_variant(attacked).items():
      both = part[part["group"].isin(means)]
      parts += [(variant, both, source, means)] * (len(both) > 0)
  if not parts:
    return None
  figure, grid = panels(len(parts), 2, 5.0, 4.2)
  looks, used = styles(groups, {}), {}
  for i, group in enumerate(groups):  # one marker per configuration of a method
    before, look = used.setdefault(group.about["label"], []), looks[group.label]
    row, place = divmod(len(before), len(MARKERS))
    look["marker"] = MARKERS[place]
    look["markerfacecolor"] = "white" if row % 2 else look["color"]
    before.append(i)
  for axes, (variant, part, source, means) in zip(grid, parts, strict=True):
    norm = part["norm"].iloc[0]
    usual = USUAL.get(norm, 0)
    radius = min(set(part["epsilon"]), key=lambda x: abs(x - usual))
    if "[" not in source:
      _published_points(axes, norm, radius, groups)
    for i, own in part[part["epsilon"] == radius].groupby("group"):
      pair = means[i], grouping.estimate(own)
      _point(axes, pair, looks[groups[i].label])
    name = grouping.epsilon_name(radius, norm)
    tidy(axes, plain(f"{variant}, epsilon {name}"))
    axes.set_xlabel(plain(f"mean accuracy on {source} (%)"), fontsize=9)
    axes.set_ylabel("accuracy under attack (%)", fontsize=9)
    low, high = axes.get_ylim()
    if high - low < 1:  # such as 0 % for all
      axes.set_ylim(max(0, low - 1), high + 1)
  legend_below(figure)
  return figure


def _corruption_means(rows: pd.DataFrame) -> dict[str, dict[int, Estimate]]:
  """Mean accuracies on the benchmark's corruptions, by test set and group.

  Means over different corruptions or images cannot be compared, so the groups
  with the most corruptions and severities are used. A mean that lacks some has
  "[14 of 15]" in the name of its test set.
  """
  found = {}
  for name, part, names in grouping.test_sets(rows):
    if names != BENCHMARK:
      continue
    own = {i: grouping.shared(x) for i, x in part.groupby("group")}
    places = max(map(grouping.places, own.values()), key=len)
    found[name + grouping.lacking(places, names)] = {
      i: grouping.estimate(x)
      for i, x in own.items()
      if grouping.places(x) == places
    }
  return found


def _point(
  axes: Axes, pair: tuple[Estimate, Estimate], style: Mapping[str, Any]
) -> None:
  """Draws two estimates as a point, in percent, with their intervals."""
  x, y = (100 * found.value for found in pair)
  axes.plot([x], [y], **style | {"linestyle": "none"}, zorder=3)
  for found, draw in zip(pair, (axes.hlines, axes.vlines), strict=True):
    if found.low is not None:
      other = y if draw == axes.hlines else x
      ends = 100 * found.low, 100 * found.high
      draw(other, *ends, color=style["color"], linewidth=1)


def _published_points(
  axes: Axes, norm: str, epsilon: float, groups: Sequence[Group]
) -> None:
  """Draws published models as gray points, labeled with their networks."""
  data = {group.about["data_label"] for group in groups}
  for name in references.published():
    found = references.read(name)
    rows = found.rows
    attacked = rows[(rows["norm"] == norm) & (rows["epsilon"] == epsilon)]
    corrupted = rows[rows["corruption"].isin(["mean of 15 corruptions"])]
    if corrupted.empty:  # each corruption and severity
      corrupted = rows[rows["corruption"].isin(BENCHMARK)]
    if attacked.empty or corrupted.empty or {found.data} != data:
      continue
    x, y = (100 * part["accuracy"].mean() for part in (corrupted, attacked))
    label = plain(f"published, {attacked['attack'].iloc[-1]}")
    axes.plot([x], [y], ".", color=GRAY, label=label, zorder=2)
    options = {"textcoords": "offset points", "fontsize": 7, "color": GRAY}
    axes.annotate(
      plain(str(found.model)), (x, y), (-4, 0), ha="right", **options
    )


def draw_fourier(runs: Sequence[Run]) -> Figure | None:
  """Errors under Fourier waves of each frequency, as in Yin et al. (2019).

  Args:
    runs: the runs; those without these numbers are left out.

  Returns:
    A figure with one panel per configuration and norm of the wave, which shows
    the mean over seeds. Low frequencies are in the center, and all panels
    share one color scale.

  Raises:
    ValueError: if the frequencies are not those of one half of the plane.
  """
  groups, rows = grouping.groups_and_rows(runs)
  waves = rows[(rows["evaluator"] == "fourier") & rows["y"].notna()]
  if waves.empty:
    return None
  shown = grouping.series(waves)
  figure, grid = panels(len(shown), 4, 2.2, 2.5)
  maps = list(map(_fourier_map, shown.values()))
  lows, highs = zip(*((np.nanmin(m), np.nanmax(m)) for m in maps), strict=True)
  low, high = tens(min(lows), max(highs))
  for label, error, axes in zip(shown, maps, grid, strict=True):
    image = axes.imshow(error, cmap="magma", vmin=low, vmax=high)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(folded(label, 26), fontsize=9)
  figure.colorbar(image, ax=list(grid), label="error (%)", aspect=15)
  return figure


def draw_training_curves(runs: Sequence[Run]) -> Figure | None:
  """Loss and accuracies during training against the epoch.

  Args:
    runs: the runs; those without metrics are left out.

  Returns:
    A figure with one panel per quantity and one line per configuration. For
    several seeds, it shows the mean and Student's t interval. Long curves are
    averaged over neighboring log intervals.
  """
  groups = grouping.groups(runs)
  present = [
    c for c in CURVES if any(c[0] in m for r in runs for m in r.metrics)
  ]
  if not present:
    return None
  looks = styles(groups, {})
  figure, grid = panels(len(present), 3, 3.6, 3.0)
  for axes, (key, title, factor) in zip(grid, present, strict=True):
    for group in groups:
      if points := _training_curve(group, key):
        curve(axes, looks[group.label], points, factor)
    tidy(axes, title)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_xlim(left=0)
    if factor != 1:
      axes.set_ylim(0, 100)
  legend_below(figure)
  return figure


def draw_images(
  rows: Sequence[tuple[str, np.ndarray]], columns: Sequence[str] = ()
) -> Figure:
  """Draws versions of the same images, one version per row.

  Args:
    rows: (name, images [N,H,W,C] uint8, C 1 or 3) from top to bottom, all of
      the same shape.
    columns: names of the first columns.

  Returns:
    A grid of len(rows) x N images, each pixel a square.
  """
  edge = ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))  # white, around each image
  sheet = np.pad([x for _, x in rows], edge, constant_values=255)
  _, count, height, width, channels = sheet.shape
  size = (len(rows) * height, count * width, channels)
  sheet = sheet.swapaxes(1, 2).reshape(size)
  names = [plain(name.replace("_", " ")) for name, _ in rows]
  # In inches: an image is 0.7 high, a character of size 9 at most 0.09 wide.
  across = 0.7 * count * width / height
  size = (across + 0.09 * max(map(len, names)) + 0.3, 0.7 * len(rows) + 0.35)
  figure = Figure(figsize=size, layout="constrained")
  axes = figure.subplots()
  axes.imshow(sheet, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
  middles = height * (np.arange(len(rows)) + 0.5) - 0.5
  axes.set_yticks(middles, names, fontsize=9)
  middles = width * (np.arange(len(columns)) + 0.5) - 0.5
  axes.set_xticks(middles, columns, fontsize=9)
  axes.xaxis.tick_top()
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  axes.set_anchor("E")  # the remaining width is for the names
  return figure


def styles(
  groups: Sequence[Group], shown: Mapping[str, pd.DataFrame]
) -> dict[str, dict[str, Any]]:
  """Chooses styles by method; colors do not depend on the order of runs.

  Args:
    groups: all groups of the report, so that styles agree in all figures.
    shown: the series of one figure, by label.

  Returns:
    Options of `Axes.plot` by label of a group or series. The method determines
    color and marker; further series of a method have different line styles and,
    after `LINES` are used up, different markers.
  """
  methods = {group.label: group.about["label"] for group in groups}
  methods |= {x: rows["label"].iloc[0] for x, rows in shown.items()}
  names, used, result = sorted(set(methods.values())), {}, {}
  for label, method in methods.items():
    place, number = names.index(method), used.get(method, 0)
    used[method] = number + 1
    result[label] = {
      "label": plain(label),
      "color": COLORS[place % len(COLORS)],
      "marker": MARKERS[(place + number // len(LINES)) % len(MARKERS)],
      "linestyle": LINES[number % len(LINES)],
    }
  return result


def plain(text: str) -> str:
  """Escapes a user's text for matplotlib, on one line."""
  text = line(text)
  # A dollar would start a formula; a leading underscore hides a legend entry.
  return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def folded(text: str, width: int) -> str:
  """`plain` text in lines of at most `width` characters."""
  return "\n".join(map(plain, textwrap.wrap(text, width))) or " "


def tens(low: float, high: float) -> tuple[float, float]:
  """Expands a range to multiples of ten, at least ten apart."""
  low = 10 * math.floor(low / 10)
  return low, max(low + 10, 10 * math.ceil(high / 10))


def panels(
  count: int, columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, np.ndarray]:
  """Makes a figure with a grid of panels.

  Args:
    count: number of panels.
    columns: maximum number of columns.
    width: width of a panel in inches.
    height: height of a panel in inches.
    **options: options of `Figure.subplots`.

  Returns:
    The figure and its axes [count].
  """
  columns = min(count, columns)
  rows = -(-count // columns)
  size = (max(4.2, width * columns), height * rows)
  # No pyplot: it keeps global state.
  figure = Figure(figsize=size, layout="constrained")
  grid = figure.subplots(rows, columns, squeeze=False, **options).ravel()
  for axes in grid[count:]:
    axes.remove()
  return figure, grid[:count]


def curve(
  axes: Axes,
  style: Mapping[str, Any],
  points: Mapping[float, Estimate],
  factor: float = 100,
) -> None:
  """Draws a line, and a band for the 95 % intervals if every point has one.

  Args:
    axes: axes to draw in.
    style: style of the line, from `styles`.
    points: estimates by x coordinate, in ascending order.
    factor: scale factor to the displayed unit.
  """
  places = list(points)
  values = [factor * point.value for point in points.values()]
  every = max(1, len(points) // 8)
  line = {"linewidth": 1.5, "clip_on": False, "zorder": 3}
  marker = {"markerfacecolor": "white", "markersize": 5, "markevery": every}
  axes.plot(places, values, **style, **line, **marker)
  known = [p.low is not None or p.seeds > 1 for p in points.values()]
  if all(known):
    # If several seeds have no interval, their values are all equal.
    ends = [
      (p.value, p.value) if p.low is None else (p.low, p.high)
      for p in points.values()
    ]
    low, high = factor * np.array(ends).T
    color = style["color"]
    axes.fill_between(places, low, high, color=color, alpha=0.15, lw=0)


def tidy(axes: Axes, title: str = "") -> None:
  """Applies a light frame, a faint grid and a small title."""
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[["left", "bottom"]].set_color(GRAY)
  axes.tick_params(color=GRAY, labelsize=9)
  axes.grid(alpha=0.25, linewidth=0.6)
  axes.set_title(title, fontsize=10)


def legend_below(figure: Figure) -> None:
  """Adds one legend outside the panels, where it cannot cover data."""
  lines = {
    line.get_label(): line for axes in figure.axes for line in axes.get_lines()
  }
  longest = max(map(len, lines))
  # In inches: a character of size 9 takes 0.085, the line next to it 0.6.
  fitting = int(figure.get_figwidth() / (0.085 * longest + 0.6))
  columns = max(1, min(len(lines), fitting))
  figure.legend(
    lines.values(),
    lines.keys(),
    loc="outside lower center",
    ncols=columns,
    frameon=False,
    fontsize=9,
    handlelength=2.6,
  )
  # Make room for the legend, so that it does not shrink the panels.
  rows = -(-len(lines) // columns)
  figure.set_figheight(figure.get_figheight() + 0.2 * rows)


def save(figure: Figure, path: pathlib.Path) -> pathlib.Path:
  """Writes the figure, and returns the path."""
  figure.savefig(path, dpi=DPI)
  return path


def _points(
  own: pd.DataFrame, column: str, rows: pd.DataFrame
) -> dict[float, Estimate]:
  """Accuracy by coordinate, ascending; at 0 the clean accuracy."""
  if not (own[column] == 0).any():
    clean = grouping.clean(rows)
    # An attack on fewer images has no clean accuracy on these.
    same = clean["total"].isin(own["total"])
    clean = clean[clean["run"].isin(own["run"]) & same]
    own = pd.concat([clean.assign(**{column: 0}), own])
  parts = own.groupby(column)
  return {float(place): grouping.estimate(part) for place, part in parts}


def _percent_axis(grid: Sequence[Axes], from_zero: bool = False) -> None:
  """Sets the same limits, multiples of ten, for all panels."""
  values = [y for a in grid for line in a.get_lines() for y in line.get_ydata()]
  low, high = tens(min(values), max(values))
  grid[0].set_ylim(0 if from_zero else low, high)
  for axes in grid:
    if axes.get_subplotspec().is_first_col():
      axes.set_ylabel("accuracy (%)", fontsize=9)


def _epsilon_axis(axes: Axes, epsilons: Sequence[float], norm: str) -> None:
  """Sets a logarithmic epsilon axis that also includes 0."""
  positive = [e for e in epsilons if e > 0]
  if positive:
    # Base 2 and linscale 1/2 make [0, smallest] as long as a doubling.
    axes.set_xscale("symlog", base=2, linthresh=min(positive), linscale=0.5)
  # A label needs 1/14 of the axis; closer ticks are not labeled.
  gap = (1 + math.log2(max(positive) / min(positive))) / 14 if positive else 0
  names, last = ["clean"], 0.0
  for epsilon in positive:
    named = last == 0 or math.log2(epsilon / last) >= gap
    names.append(grouping.epsilon_name(epsilon, norm) if named else "")
    last = epsilon if named else last
  axes.set_xticks(epsilons, names)
  axes.set_xlim(0, max(epsilons) or 1)
  axes.xaxis.set_minor_locator(NullLocator())
  name = {"l2": r"$\ell_2$ radius", "linf": r"$\ell_\infty$ radius"}
  radius = name.get(norm, plain(norm))
  axes.set_xlabel(rf"{radius} $\epsilon$, pixels in [0, 1]", fontsize=9)


def _fourier_map(rows: pd.DataFrame) -> np.ndarray:
  """Error in percent by frequency [H,W], low frequencies in the center.

  Raises:
    ValueError: if the frequencies are not those of one half of the plane.
  """
  errors = 100 - 100 * rows.groupby(["y", "x"])["accuracy"].mean()
  places = np.array(list(errors.index), dtype=int)
  (top, _), (_, width) = places.min(axis=0), np.ptp(places, axis=0) + 1
  # If the height is even, the first row is conjugate to itself, so only half of
  # it is stored.
  height = -2 * top + (np.sum(places[:, 0] == top) == width)
  # Both halves have the frequencies that are their own conjugates.
  if height < 1 or not 0 < 2 * len(places) - height * width <= 4:
    raise ValueError(
      f"{len(places)} Fourier frequencies in {width} columns are not one half "
      "of the plane: evaluate the run again"
    )
  size = np.array((height, width))
  found = np.full(size, np.nan)
  for sign in (1, -1):  # frequency (-y, -x) is the same wave
    found[tuple(((sign * places + size // 2) % size).T)] = errors
  return found


def _training_curve(group: Group, key: str) -> dict[float, Estimate]:
  """A quantity by epoch, for the epochs that all seeds logged."""
  logs = [pd.DataFrame(run.metrics) for run in group.runs if run.metrics]
  logs = [log.dropna(subset=key) for log in logs if key in log]
  if not logs:
    return {}
  columns = [log.groupby("epoch")[key].last() for log in logs]
  table = pd.concat(columns, axis=1, join="inner").reset_index()
  # Average neighbors, so that at most CURVE_POINTS points remain.
  size = -(-len(table) // CURVE_POINTS) or 1
  means = table.groupby(table.index // size).mean().to_numpy().tolist()
  return {epoch: statistics.over_seeds(values) for epoch, *values in means}
