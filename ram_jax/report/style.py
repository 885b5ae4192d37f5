"""The style of all figures: colors, markers, legends, PNG files."""

import math
import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np

from ram_jax.report.groups import Group, Series
from ram_jax.report.statistics import Estimate
from ram_jax.report.table import line

DPI = 150
# Okabe and Ito's palette for color-blind readers, without its yellow, which is
# faint on white; black last.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
COLORS.append("#000000")
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", ":", "-.")
GRAY = "#5c5c5c"


def styles(
  groups: Sequence[Group], shown: Sequence[Series]
) -> list[dict[str, Any]]:
  """Styles that depend on the methods, not on their order.

  Args:
    groups: all of the report, so that a series is the same in every figure.
    shown: the series of one figure.

  Returns:
    Options of `Axes.plot` for each series: color and marker are the method's,
    and each further series of a method has another line style.
  """
  names = sorted({group.about["label"] for group in groups})
  used = {name: {} for name in names}
  for group in groups:
    same = used[group.about["label"]]
    same.setdefault(group.label, len(same))
  result = []
  for series in shown:
    name = series.group.about["label"]
    number = used[name].setdefault(series.label, len(used[name]))
    method = names.index(name)
    result.append(
      {
        "label": plain(series.label),
        "color": COLORS[method % len(COLORS)],
        "marker": MARKERS[(method + number // len(LINES)) % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
      }
    )
  return result


def plain(text: str) -> str:
  """A user's text, on one line, as matplotlib shows it letter by letter."""
  text = line(text)
  # Dollars would begin a formula; a first underscore hides from legends.
  return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def folded(text: str, width: int) -> str:
  """`plain` text in lines of at most so many letters."""
  return "\n".join(map(plain, textwrap.wrap(text, width))) or " "


def tens(low: float, high: float) -> tuple[float, float]:
  """The whole tens around a range, at least one step apart."""
  low = 10 * math.floor(low / 10)
  return low, max(low + 10, 10 * math.ceil(high / 10))


def panels(
  count: int, columns: int, width: float, height: float, **options: Any
) -> tuple[matplotlib.figure.Figure, np.ndarray]:
  """A figure with so many panels, and these.

  Args:
    count: number of panels.
    columns: at most so many side by side.
    width: of a panel in inches.
    height: of a panel in inches.
    **options: of `Figure.subplots`.

  Returns:
    The figure and its axes [count].
  """
  columns = min(count, columns)
  rows = -(-count // columns)
  size = (max(4.2, width * columns), height * rows)
  # No pyplot: it keeps global state.
  figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
  grid = figure.subplots(rows, columns, squeeze=False, **options).ravel()
  for axes in grid[count:]:
    axes.remove()
  return figure, grid[:count]


def curve(
  axes: matplotlib.axes.Axes,
  style: Mapping[str, Any],
  points: Mapping[float, Estimate],
  factor: float = 100,
) -> None:
  """One line, and a band for the 95 % intervals where there are any.

  Args:
    axes: to draw in.
    style: of the line, from `styles`.
    points: estimates by their place on the x axis, in its order.
    factor: to the unit shown.
  """
  places = list(points)
  values = [factor * point.value for point in points.values()]
  every = max(1, len(points) // 8)
  line = {"linewidth": 1.5, "clip_on": False, "zorder": 3}
  marker = {"markerfacecolor": "white", "markersize": 5, "markevery": every}
  axes.plot(places, values, **style, **line, **marker)
  ends = [(p.low, p.high) for p in points.values() if p.low is not None]
  if len(ends) == len(points):
    low, high = factor * np.array(ends).T
    color = style["color"]
    axes.fill_between(places, low, high, color=color, alpha=0.15, lw=0)


def tidy(axes: matplotlib.axes.Axes, title: str = "") -> None:
  """A light frame, a faint grid and a small title."""
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[["left", "bottom"]].set_color(GRAY)
  axes.tick_params(color=GRAY, labelsize=9)
  axes.grid(alpha=0.25, linewidth=0.6)
  axes.set_title(title, fontsize=10)


def legend_below(figure: matplotlib.figure.Figure) -> None:
  """One legend outside all panels, where no name can cover data."""
  lines = {
    line.get_label(): line for axes in figure.axes for line in axes.get_lines()
  }
  longest = max(map(len, lines))
  # Inches: a letter of size 9 has 0.085, the line beside it 0.6.
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
  # A row of the legend takes from the margin, not from the panels.
  rows = -(-len(lines) // columns)
  figure.set_figheight(figure.get_figheight() + 0.2 * rows)


def save(
  figure: matplotlib.figure.Figure, path: str | os.PathLike
) -> pathlib.Path:
  """Writes the figure as PNG, making its folder, and returns the path."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=DPI, format="png")
  return path
