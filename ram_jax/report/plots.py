"""Figures: what the paper shows of several runs, and images.

Each `draw_*` returns a matplotlib Figure; `style.save` writes it.
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
# Key in metrics.jsonl, title, factor to the shown unit.
CURVES = (
  ("loss", "training loss", 1.0),
  ("accuracy", "training accuracy (%)", 100.0),
  ("adversarial_accuracy", "training adversarial accuracy (%)", 100.0),
)
# More points than these hide the trend in the noise of single batches.
CURVE_POINTS = 100


def draw_adversarial_accuracy(
  runs: Sequence[Run],
) -> matplotlib.figure.Figure:
  """Accuracy against the size of the attack (the paper's Figure 2).

  Args:
    runs: the runs; those without adversarial accuracy are left out.

  Returns:
    A figure with one panel per norm, in which each configuration and attack has
    a line over epsilon (epsilon 0: clean) and a band for its 95 % interval, in
    percent: Wilson's over test images for one run, Student's over seeds for
    several.

  Raises:
    ValueError: nothing to draw.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  attacked, clean = grouping.attacks(rows), grouping.clean(rows)
  if attacked.empty:
    raise ValueError("none of the runs has adversarial accuracies")
  norms = sorted(attacked["norm"].fillna("").unique())
  figure, grid = style.panels(len(norms), 2, 6.0, 3.9, sharey=True)
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
) -> matplotlib.figure.Figure:
  """Accuracy against severity (the paper's Figures 1 and 3 to 6).

  Args:
    runs: the runs; those that were not evaluated on a corruption are left out
      of its panel.
    names: corruptions, one panel each; those that no run has are left out.

  Returns:
    A figure with one line per configuration in each panel, over severity (0:
    clean), and a band for its 95 % interval, in percent.

  Raises:
    ValueError: nothing to draw.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  clean = grouping.clean(rows)
  corrupted = rows[rows["corruption"].isin(names)]
  if corrupted.empty:
    raise ValueError(
      f"none of the runs was evaluated on {', '.join(names) or 'a corruption'}"
      ": set config.evaluators.corruption and evaluate them again"
    )
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


def draw_fourier(runs: Sequence[Run]) -> matplotlib.figure.Figure:
  """Errors under waves of single frequencies (Yin et al. 2019, figure 2).

  Args:
    runs: the runs; those without these numbers are left out.

  Returns:
    One panel per configuration and norm of the wave, the mean over its seeds;
    the lowest frequency in the middle, one color scale for all.

  Raises:
    ValueError: nothing to draw.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  waves = rows[(rows["evaluator"] == "fourier") & rows["y"].notna()]
  if waves.empty:
    raise ValueError("none of the runs was evaluated on Fourier waves")
  shown = grouping.series(groups, waves)
  figure, grid = style.panels(len(shown), 4, 2.2, 2.5)
  low, high = math.inf, -math.inf
  images = []
  for series, axes in zip(shown, grid, strict=True):
    error = _fourier_map(series.rows)
    low, high = min(low, np.nanmin(error)), max(high, np.nanmax(error))
    images.append(axes.imshow(error, cmap="magma"))
    axes.set(xticks=[], yticks=[])
    style.bare(axes)
    axes.set_title(style.folded(series.label, 26), fontsize=9)
  for image in images:
    image.set_clim(*style.tens(low, high))
  figure.colorbar(images[0], ax=list(grid), label="error (%)")
  return figure


def draw_training_curves(runs: Sequence[Run]) -> matplotlib.figure.Figure:
  """Loss and accuracies during training against the epoch.

  Args:
    runs: the runs; those without metrics are left out.

  Returns:
    A figure with one panel per quantity that some run has, one line per
    configuration, over several seeds the mean and Student's interval; long
    curves are averaged over neighboring log intervals.

  Raises:
    ValueError: no run has metrics.
  """
  groups = grouping.groups(runs)
  present = [
    c for c in CURVES if any(c[0] in m for r in runs for m in r.metrics)
  ]
  if not present:
    raise ValueError(
      "none of the runs has training metrics: metrics.jsonl is missing or empty"
    )
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
    columns: a name for each of the N; none: no names.

  Returns:
    A grid of len(rows) x N images, each pixel a square.

  Raises:
    ValueError: no rows, or another shape or type.
  """
  images = [image for _, image in rows]
  shapes = sorted({image.shape for image in images})
  if (
    len(shapes) != 1
    or len(shapes[0]) != 4
    or 0 in shapes[0]
    or shapes[0][3] not in (1, 3)
    or any(image.dtype != np.uint8 for image in images)
  ):
    raise ValueError(
      f"images of shapes {shapes} are no grid: give uint8 [N,H,W,C] with 1 or "
      "3 channels, the same for each row"
    )
  count, height, width, channels = shapes[0]
  gap = max(1, height // 16)
  padding = ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0))
  grid = np.pad(np.stack(images), padding, constant_values=255)
  step = np.array([height + gap, width + gap])
  sheet = grid.swapaxes(1, 2).reshape(*step * [len(rows), count], channels)
  figure = matplotlib.figure.Figure(layout="constrained")
  names = [style.plain(name.replace("_", " ")) for name, _ in rows]
  # Inches: an image is 0.7 high, a letter of size 9 is 0.085 wide.
  down, across = 0.7 * step * [len(rows), count] / height
  letters = 0.085 * max(map(len, names))
  figure.set_size_inches(across + letters + 0.2, down + 0.35)
  axes = figure.subplots()
  axes.imshow(sheet, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
  centers = [step[i] * np.arange(n) for i, n in enumerate((len(rows), count))]
  axes.set_yticks(centers[0] + (height - 1) / 2, names, fontsize=9)
  places = centers[1] + (width - 1) / 2 if columns else []
  axes.set_xticks(places, list(columns), fontsize=9)
  axes.xaxis.tick_top()
  axes.set_anchor("E")  # what is left of the width goes to the names
  style.bare(axes)
  return figure


def _points(rows: pd.DataFrame, column: str) -> dict[float, Estimate]:
  """Accuracy by a coordinate, ascending."""
  return {
    float(place): grouping.accuracy(part)
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
  curves = [
    {row["epoch"]: row[key] for row in run.metrics if key in row}
    for run in group.runs
  ]
  curves = [curve for curve in curves if curve]
  if not curves:
    return {}
  epochs = [e for e in curves[0] if all(e in curve for curve in curves)]
  values = np.array([_averaged([c[e] for e in epochs]) for c in curves])
  return {
    place: grouping.over_seeds(list(v))
    for place, v in zip(_averaged(epochs), values.T, strict=True)
  }


def _averaged(values: Sequence[float]) -> np.ndarray:
  """Means of neighbors, so that at most CURVE_POINTS points remain."""
  values = np.asarray(values, dtype=np.float64)
  size = -(-len(values) // CURVE_POINTS) or 1
  return np.array(
    [values[i : i + size].mean() for i in range(0, len(values), size)]
  )
