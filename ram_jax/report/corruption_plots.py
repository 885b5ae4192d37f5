"""Figures of natural corruptions: the paper's 1 and 3 to 6, maps, pictures.

Each `draw_*` returns a matplotlib Figure, which tests can inspect; `look.save`
writes it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure
import matplotlib.image
import numpy as np

from ram_jax.report import corruption_numbers as numbers
from ram_jax.report import look, plots, seeds
from ram_jax.report.seeds import Group
from ram_jax.report.statistics import Estimate
from ram_jax.runs import results as runs_lib
from ram_jax.runs.results import Run

# The paper's Figure 1: one corruption of each category.
EXAMPLES = ("gaussian_noise", "glass_blur", "fog", "jpeg_compression")
# Inches of a letter of size 8, and letters that a cell is wide.
LETTER, CELL = 0.07, 15


def draw_severity(
  runs: Sequence[Run], names: Sequence[str]
) -> matplotlib.figure.Figure:
  """Accuracy against severity (the paper's Figures 1 and 3 to 6).

  Args:
    runs: the runs; those that were not measured on a corruption are left out of
      its panel.
    names: corruptions, one panel each; those that no run has are left out.

  Returns:
    A figure with one line per configuration in each panel, over severity (0:
    clean), and a band for its 95 % interval, in percent.

  Raises:
    ValueError: nothing to draw.
  """
  groups = seeds.groups(runs)
  shown = [n for n in names if any(numbers.cells(r.results, n) for r in runs)]
  if not shown:
    raise ValueError(
      f"none of the runs was measured on {', '.join(names) or 'a corruption'}: "
      "set config.evaluators.corruption and evaluate them again"
    )
  columns = min(len(shown), 2 if len(shown) < 5 else 3)
  height = -(-len(shown) // columns)
  figure = matplotlib.figure.Figure(
    figsize=(max(4.2, 3.1 * columns), 2.5 * height), layout="constrained"
  )
  grid = figure.subplots(height, columns, squeeze=False, sharey=True).ravel()
  lowest = 1.0
  for name, axes in zip(shown, grid, strict=False):
    for group, style in zip(groups, look.styles(groups), strict=True):
      if points := severity_curve(group, name):
        look.curve(axes, style, points)
        lowest = min(lowest, *(point.value for point in points.values()))
    _severity_axes(axes, name)
  for axes in grid[len(shown) :]:
    axes.remove()
  for axes in grid[max(0, len(shown) - columns) : len(shown)]:
    axes.set_xlabel("severity (0: clean)")
  for axes in grid[: len(shown) : columns]:
    axes.set_ylabel("accuracy (%)")
  # All panels alike, in whole tens, so that differences are not exaggerated.
  grid[0].set_ylim(10 * math.floor(max(0, 10 * lowest - 0.5)), 101)
  figure.suptitle(
    f"{plots.setting(runs)}\n{look.band_name(groups)} shaded", fontsize=10
  )
  look.legend_below(figure)
  return figure


def severity_curve(group: Group, name: str) -> dict[int, Estimate]:
  """Accuracy on one corruption by severity.

  Args:
    group: the runs.
    name: of the corruption.

  Returns:
    Estimates by severity, 0 for clean images; empty where no run of the group
    was measured on it.
  """

  def counts(results: Mapping[str, Any]) -> dict[int, runs_lib.Counts]:
    found, clean = numbers.cells(results, name), runs_lib.clean(results)
    return {0: clean, **found} if found and clean else found

  severities = sorted({s for run in group.runs for s in counts(run.results)})
  return {
    s: group.estimate(lambda results, s=s: counts(results).get(s))
    for s in severities
  }


def draw_heat_map(
  runs: Sequence[Run], baseline: Run | None = None
) -> matplotlib.figure.Figure:
  """Mean accuracy over severities, corruption by configuration.

  Args:
    runs: the runs; those without corruptions are left out.
    baseline: one of the runs, whose configuration the others are compared with;
      None: accuracies alone.

  Returns:
    One image: the accuracy in percent in each cell and, where there is a
    baseline, the difference to it, which the colour shows then.

  Raises:
    ValueError: nothing to draw.
  """
  groups = [
    group
    for group in seeds.groups(runs)
    if any(numbers.rows(run.results) for run in group.runs)
  ]
  if not groups:
    raise ValueError("none of the runs was measured on corruptions")
  table = numbers.categories(runs)
  names = [name for part in table.values() for name in part]
  values = np.array([[_accuracy(g, n) for g in groups] for n in names])
  labels = [look.folded(group.label, CELL) for group in groups]
  figure = matplotlib.figure.Figure(layout="constrained")
  figure.set_size_inches(
    0.4 + LETTER * (max(map(len, names)) + CELL * max(2, len(groups))),
    1.1 + 0.27 * len(names) + 0.13 * max(x.count("\n") for x in labels),
  )
  axes = figure.subplots()
  column = seeds.column(groups, baseline)
  image = _color_cells(axes, values, column)
  what = "accuracy (%)"
  if column is not None:
    what = f"difference to {look.plain(groups[column].label)} (points)"
  figure.colorbar(
    image, ax=axes, label=what, location="bottom", shrink=0.8, aspect=40
  )
  edges = np.cumsum([len(part) for part in table.values()])[:-1]
  axes.hlines(edges - 0.5, -0.5, len(groups) - 0.5, color="black", lw=1)
  axes.set_yticks(range(len(names)), [words(x) for x in names], fontsize=8)
  axes.set_xticks(range(len(groups)), labels, fontsize=8)
  _bare(axes)
  return figure


def draw_contact_sheet(
  images: Any, names: Sequence[str]
) -> matplotlib.figure.Figure:
  """All corruptions of one picture at all severities.

  Args:
    images: [K,S,H,W,C] in [0,1], or uint8, C 1 or 3: corruption by severity,
      which starts at 1.
    names: of the K corruptions.

  Returns:
    A grid of K x S images, each pixel a square.

  Raises:
    ValueError: another shape, type or range, or another number of names.
  """
  images = _checked_sheet(images, names)
  count, levels, height, width, channels = images.shape
  # One white sheet: 95 axes would take seconds to lay out.
  gap = max(1, height // 16)
  step = np.array([height + gap, width + gap])
  sheet = np.ones((*(step * [count, levels] - gap), channels))
  for k in range(count):
    for s in range(levels):
      y, x = step * [k, s]
      sheet[y : y + height, x : x + width] = images[k, s]
  figure = matplotlib.figure.Figure(layout="constrained")
  # A picture is 0.6 inches high.
  down, across = 0.6 * step * [count, levels] / height
  letters = LETTER * max(map(len, names))
  figure.set_size_inches(across + letters + 0.2, down + 0.5)
  axes = figure.subplots()
  axes.imshow(sheet, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
  rows = step[0] * np.arange(count) + (height - 1) / 2
  columns = step[1] * np.arange(levels) + (width - 1) / 2
  axes.set_yticks(rows, [words(name) for name in names], fontsize=8)
  axes.set_xticks(columns, range(1, levels + 1), fontsize=8)
  axes.set_xlabel("severity", fontsize=8)
  axes.xaxis.set_label_position("top")
  axes.set_anchor("E")  # what is left of the width goes to the names
  _bare(axes)
  return figure


def words(name: str) -> str:
  """A corruption's name for people."""
  return look.plain(name.replace("_", " "))


def _accuracy(group: Group, name: str) -> float:
  """Mean over severities and seeds in percent; nan where not measured."""
  found = group.estimate(lambda results: numbers.mean(results, (name,)))
  return 100 * found.value if found else math.nan


def _severity_axes(axes: matplotlib.axes.Axes, name: str) -> None:
  axes.set_title(words(name), fontsize=10)
  axes.set_xticks((0, *numbers.SEVERITIES))
  look.tidy(axes)


def _color_cells(
  axes: matplotlib.axes.Axes, values: np.ndarray, baseline: int | None
) -> matplotlib.image.AxesImage:
  """Colours and writes the accuracies, or their differences to a column."""
  shown = values if baseline is None else values - values[:, [baseline]]
  low, high, colors = *look.tens(np.nanmin(shown), np.nanmax(shown)), "cividis"
  if baseline is not None:
    # Symmetric, so that white is equal; at least 5 points, or noise glares.
    high = max(5.0, np.nanmax(np.abs(shown), initial=0))
    low, colors = -high, "RdBu"
  image = axes.imshow(shown, vmin=low, vmax=high, cmap=colors, aspect="auto")
  for (y, x), value in np.ndenumerate(values):
    text = "-" if np.isnan(value) else f"{value:.1f}"
    if baseline not in (None, x) and not np.isnan(shown[y, x]):
      # Adding 0 makes +0.0 of -0.0.
      text += f" ({shown[y, x]:+z.1f})"
    # White where nothing is drawn.
    light = np.isnan(shown[y, x]) or _luminance(image, shown[y, x]) > 0.4
    color = "black" if light else "white"
    axes.text(x, y, text, ha="center", va="center", fontsize=8, color=color)
  return image


def _luminance(image: matplotlib.image.AxesImage, value: float) -> float:
  return float(np.dot(image.to_rgba(value)[:3], (0.2126, 0.7152, 0.0722)))


def _checked_sheet(images: Any, names: Sequence[str]) -> np.ndarray:
  images = np.asarray(images)
  if images.dtype == np.uint8:
    images = images / 255
  if (
    images.ndim != 5
    or images.shape[-1] not in (1, 3)
    or 0 in images.shape
    or len(names) != len(images)
    or not (images.min() >= 0 and images.max() <= 1)
  ):
    raise ValueError(
      f"images of shape {images.shape} with {len(names)} names are no "
      "[K,S,H,W,C] of values in [0, 1], or uint8, with 1 or 3 channels and K "
      "names"
    )
  return images


def _bare(axes: matplotlib.axes.Axes) -> None:
  """Takes away everything but names, those of columns on top."""
  axes.xaxis.tick_top()
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
