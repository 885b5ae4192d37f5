"""The style of all figures: colors, markers, legends, PNG files."""

import dataclasses
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
COLORS = (
  "#0072B2",
  "#D55E00",
  "#009E73",
  "#CC79A7",
  "#E69F00",
  "#56B4E9",
  "#000000",
)
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", ":", "-.")
GRAY = "#5c5c5c"


@dataclasses.dataclass(frozen=True)
class Style:
  """How a series is drawn in every figure of a report.

  Attributes:
    label: its name in legends, different from every other's.
    color: the same for all of one method, whatever their order.
    marker: the method's marker.
    line: the line style, another one for each further series of a method.
  """

  label: str
  color: str
  marker: str
  line: str


def styles(
  groups: Sequence[Group], shown: Sequence[Series]
) -> tuple[Style, ...]:
  """Styles that depend on the methods, not on their order.

  Args:
    groups: all of the report, so that a series is the same in every figure.
    shown: the series of one figure.

  Returns:
    One style per series.
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
    marker = MARKERS[(method + number // len(LINES)) % len(MARKERS)]
    color, dashes = COLORS[method % len(COLORS)], LINES[number % len(LINES)]
    result.append(Style(plain(series.label), color, marker, dashes))
  return tuple(result)


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
  style: Style,
  points: Mapping[float, Estimate],
  factor: float = 100,
) -> None:
  """One line, and a band for the 95 % intervals where there are any.

  Args:
    axes: to draw in.
    style: of the line.
    points: estimates by their place on the x axis, in its order.
    factor: to the unit shown.
  """
  values = [factor * point.value for point in points.values()]
  axes.plot(
    list(points),
    values,
    label=style.label,
    color=style.color,
    marker=style.marker,
    linestyle=style.line,
    markerfacecolor="white",
    markersize=5,
    markevery=max(1, len(points) // 8),
    linewidth=1.5,
    clip_on=False,
    zorder=3,
  )
  ends = [(p.low, p.high) for p in points.values() if p.low is not None]
  if len(ends) == len(points):
    low, high = factor * np.array(ends).T
    axes.fill_between(
      list(points), low, high, color=style.color, alpha=0.15, lw=0
    )


def tidy(axes: matplotlib.axes.Axes, title: str = "") -> None:
  """A light frame, a faint grid and a small title."""
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[["left", "bottom"]].set_color(GRAY)
  axes.tick_params(color=GRAY, labelsize=9)
  axes.grid(alpha=0.25, linewidth=0.6)
  axes.set_title(title, fontsize=10)


def bare(axes: matplotlib.axes.Axes) -> None:
  """No frame and no ticks, for images."""
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)


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
