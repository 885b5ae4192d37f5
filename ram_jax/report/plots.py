"""Figures: what the paper shows of several runs, and images.

Each `draw_*` returns a matplotlib Figure, or None where there is nothing to
draw; `style.save` writes it.
"""

import math
from collections.abc import Sequence

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import pandas as pd

from ram_jax.corruptions import SEVERITIES
from ram_jax.report import groups as grouping
from ram_jax.report import style
from ram_jax.report.groups import Group
from ram_jax.report.statistics import Estimate
from ram_jax.runs.results import Run

# The paper's Figure 1: one corruption of each category.
EXAMPLES = ("gaussian_noise", "glass_blur", "fog", "jpeg_compression")
# Key in metrics.jsonl, title, factor to the shown unit; on training images.
CURVES = (("loss", "training loss", 1.0), ("accuracy", "accuracy (%)", 100.0))
CURVES += (("adversarial_accuracy", "adversarial accuracy (%)", 100.0),)
# More points than these hide the trend in the noise of single batches.
CURVE_POINTS = 100


def draw_adversarial_accuracy(
  runs: Sequence[Run],
) -> matplotlib.figure.Figure | None:
  """Accuracy against the size of the attack (the paper's Figure 2).

  Args:
    runs: the runs; those without adversarial accuracy are left out.

  Returns:
    A figure with one panel per norm, in which each configuration and attack has
    a line over epsilon (epsilon 0: clean) and a band for its 95 % interval, in
    percent: Wilson's over test images for one run, Student's over seeds for
    several.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  attacked, clean = grouping.attacks(rows), grouping.clean(rows)
  if attacked.empty:
    return None
  norms = sorted(attacked["norm"].fillna("").unique())
  figure, grid = style.panels(len(norms), 1, 6.0, 3.9, sharey=True)
  for axes, norm in zip(grid, norms, strict=True):
    part = attacked[attacked["norm"].fillna("") == norm]
    shown = grouping.series(groups, part)
    for series, look in zip(shown, style.styles(groups, shown), strict=True):
      own = series.rows
      if not (own["epsilon"] == 0).any():
        same = clean[clean["run"].isin(own["run"])]
        own = pd.concat([same.assign(epsilon=0.0), own])
      style.curve(axes, look, _points(own, "epsilon"))
    epsilons = sorted({0.0, *part["epsilon"]})
    _epsilon_axis(axes, epsilons, norm)
    attacks = ", ".join(part["variant"].unique())
    style.tidy(axes, style.plain(f"Accuracy under {attacks}"))
  _percent_axis(grid, top=True)
  style.legend_below(figure)
  return figure


def draw_severity(
  runs: Sequence[Run], names: Sequence[str]
) -> matplotlib.figure.Figure | None:
  """Accuracy against severity (the paper's Figures 1 and 3 to 6).

  Args:
    runs: the runs; those that were not evaluated on a corruption are left out
      of its panel.
    names: corruptions, one panel each; those that no run has are left out.

  Returns:
    A figure with one line per configuration in each panel, over severity (0:
    clean), and a band for its 95 % interval, in percent.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  clean = grouping.clean(rows)
  corrupted = rows[rows["corruption"].isin(names)]
  if corrupted.empty:
    return None
  shown = grouping.series(groups, corrupted)
  present = [name for name in names if (corrupted["corruption"] == name).any()]
  columns = 2 if len(present) < 5 else 3
  figure, grid = style.panels(len(present), columns, 3.0, 1.95, sharey=True)
  for name, axes in zip(present, grid, strict=True):
    for series, look in zip(shown, style.styles(groups, shown), strict=True):
      own = series.rows[series.rows["corruption"] == name]
      if len(own):
        same = clean[clean["run"].isin(own["run"])]
        points = _points(pd.concat([same.assign(severity=0), own]), "severity")
        style.curve(axes, look, points)
    style.tidy(axes, style.plain(name.replace("_", " ")))
    axes.set_xticks((0, *SEVERITIES), ("clean", *map(str, SEVERITIES)))
  for axes in grid[-columns:]:
    axes.set_xlabel("severity", fontsize=9)
  _percent_axis(grid)
  style.legend_below(figure)
  return figure


def draw_fourier(runs: Sequence[Run]) -> matplotlib.figure.Figure | None:
  """Errors under waves of single frequencies (Yin et al. 2019, figure 2).

  Args:
    runs: the runs; those without these numbers are left out.

  Returns:
    One panel per configuration and norm of the wave, the mean over its seeds;
    the lowest frequency in the middle, one color scale for all.

  Raises:
    ValueError: frequencies that are not those of one half of the plane.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  waves = rows[(rows["evaluator"] == "fourier") & rows["y"].notna()]
  if waves.empty:
    return None
  shown = grouping.series(groups, waves)
  figure, grid = style.panels(len(shown), 4, 2.2, 2.5)
  maps = [_fourier_map(series.rows) for series in shown]
  lows, highs = zip(*((np.nanmin(m), np.nanmax(m)) for m in maps), strict=True)
  low, high = style.tens(min(lows), max(highs))
  for series, error, axes in zip(shown, maps, grid, strict=True):
    image = axes.imshow(error, cmap="magma", vmin=low, vmax=high)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(style.folded(series.label, 26), fontsize=9)
  figure.colorbar(image, ax=list(grid), label="error (%)", aspect=15)
  return figure


def draw_training_curves(
  runs: Sequence[Run],
) -> matplotlib.figure.Figure | None:
  """Loss and accuracies during training against the epoch.

  Args:
    runs: the runs; those without metrics are left out.

  Returns:
    A figure with one panel per quantity that some run has, one line per
    configuration, over several seeds the mean and Student's interval; long
    curves are averaged over neighboring log intervals.
  """
  groups = grouping.groups(runs)
  present = [
    c for c in CURVES if any(c[0] in m for r in runs for m in r.metrics)
  ]
  if not present:
    return None
  empty = grouping.frame(groups).iloc[:0]
  shown = [grouping.Series(g.label, g, "", empty) for g in groups]
  figure, grid = style.panels(len(present), 3, 3.6, 3.0)
  for axes, (key, title, factor) in zip(grid, present, strict=True):
    for series, look in zip(shown, style.styles(groups, shown), strict=True):
      if points := _training_curve(series.group, key):
        style.curve(axes, look, points, factor)
    style.tidy(axes, title)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_xlim(left=0)
    if factor != 1:
      axes.set_ylim(0, 100)
  style.legend_below(figure)
  return figure


def draw_images(
  rows: Sequence[tuple[str, np.ndarray]], columns: Sequence[str] = ()
) -> matplotlib.figure.Figure:
  """Draws versions of the same images below each other.

  Args:
    rows: (name, images [N,H,W,C] uint8, C 1 or 3) from top to bottom, of the
      same shape in each.
    columns: names for the first of the N.

  Returns:
    A grid of len(rows) x N images, each pixel a square.

  Raises:
    ValueError: no rows, or another shape or type.
  """
  shapes = {x.shape if x.dtype == np.uint8 else () for _, x in rows}
  shape = shapes.pop() if len(shapes) == 1 else ()
  if len(shape) != 4 or 0 in shape or shape[3] not in (1, 3):
    raise ValueError(
      "these images are no grid: give uint8 [N,H,W,C] with 1 or 3 channels, of "
      "the same shape in each row"
    )
  count, height, width, _ = shape
  edge = ((0, 0), (1, 1), (1, 1), (0, 0))  # a white pixel around each image
  lines = [
    np.concatenate(np.pad(images, edge, constant_values=255), axis=1)
    for _, images in rows
  ]
  names = [style.plain(name.replace("_", " ")) for name, _ in rows]
  # Inches: an image is 0.7 high, a letter of size 9 is 0.085 wide.
  across = 0.7 * count * (width + 2) / (height + 2)
  size = (across + 0.085 * max(map(len, names)) + 0.2, 0.7 * len(rows) + 0.35)
  figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
  axes = figure.subplots()
  sheet = np.concatenate(lines)
  axes.imshow(sheet, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
  middle = (height + 2) * (np.arange(len(rows)) + 0.5) - 0.5
  axes.set_yticks(middle, names, fontsize=9)
  middle = (width + 2) * (np.arange(len(columns)) + 0.5) - 0.5
  axes.set_xticks(middle, columns, fontsize=9)
  axes.xaxis.tick_top()
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  axes.set_anchor("E")  # what is left of the width goes to the names
  return figure


def _points(rows: pd.DataFrame, column: str) -> dict[float, Estimate]:
  """Accuracy by a coordinate, ascending."""
  return {
    float(place): grouping.estimate(part)
    for place, part in rows.groupby(column)
  }


def _percent_axis(
  grid: Sequence[matplotlib.axes.Axes], top: bool = False
) -> None:
  """All panels alike in whole tens, so that differences are not exaggerated."""
  values = [y for a in grid for line in a.get_lines() for y in line.get_ydata()]
  low, high = style.tens(min(values), max(values))
  grid[0].set_ylim(0 if top else low, high)
  for axes in grid:
    if axes.get_subplotspec().is_first_col():
      axes.set_ylabel("accuracy (%)", fontsize=9)


def _epsilon_axis(
  axes: matplotlib.axes.Axes, epsilons: Sequence[float], norm: str
) -> None:
  """Equal steps for equal factors, and one more such step from 0."""
  positive = [e for e in epsilons if e > 0]
  if positive:
    # Base 2 and linscale 1/2 make [0, smallest] as long as a doubling.
    axes.set_xscale("symlog", base=2, linthresh=min(positive), linscale=0.5)
  # Names need a 14th of the axis each; closer ones keep their tick mark only.
  gap = (1 + math.log2(max(positive) / min(positive))) / 14 if positive else 0
  names, last = ["clean"], 0.0
  for epsilon in positive:
    named = last == 0 or math.log2(epsilon / last) >= gap
    names.append(grouping.epsilon_name(epsilon, norm) if named else "")
    last = epsilon if named else last
  axes.set_xticks(epsilons, names)
  axes.set_xlim(0, max(epsilons) or 1)
  axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
  name = {"l2": r"$\ell_2$ radius", "linf": r"$\ell_\infty$ radius"}
  radius = name.get(norm, style.plain(norm))
  axes.set_xlabel(rf"{radius} $\epsilon$, pixels in [0, 1]", fontsize=9)


def _fourier_map(rows: pd.DataFrame) -> np.ndarray:
  """Error in percent by frequency [H,W], the lowest in the middle.

  Raises:
    ValueError: frequencies that are not those of one half of the plane.
  """
  errors = 100 - 100 * rows.groupby(["y", "x"])["accuracy"].mean()
  places = np.array(list(errors.index), dtype=int)
  # Both halves are 2 n frequencies, those that are their own twins twice.
  count, width = 2 * len(places), int(np.ptp(places[:, 1])) + 1
  heights = [count // width - 1, count // width]
  heights = [h for h in heights if h > 0 and count - h * width in (1, 2, 4)]
  if not heights:
    raise ValueError(
      f"{len(places)} Fourier frequencies in {width} columns are not one half "
      "of the plane: evaluate the run again"
    )
  size = np.array((heights[0], width))
  found = np.full(size, np.nan)
  for sign in (1, -1):  # frequency (-y, -x) is the same wave
    found[tuple(((sign * places + size // 2) % size).T)] = errors
  return found


def _training_curve(group: Group, key: str) -> dict[float, Estimate]:
  """A quantity by epoch, over the epochs that all seeds have logged."""
  logs = [pd.DataFrame(run.metrics) for run in group.runs if run.metrics]
  logs = [log.dropna(subset=key) for log in logs if key in log]
  if not logs:
    return {}
  columns = [log.groupby("epoch")[key].last() for log in logs]
  table = pd.concat(columns, axis=1, join="inner").reset_index()
  # Means of neighbors, so that at most CURVE_POINTS points remain.
  size = -(-len(table) // CURVE_POINTS) or 1
  means = table.groupby(table.index // size).mean().to_numpy().tolist()
  return {epoch: grouping.over_seeds(values) for epoch, *values in means}
