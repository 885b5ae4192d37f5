"""The common look of figures: a style per run, legends, grids, PNG files."""

import collections
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

from ram_jax.report.seeds import Group
from ram_jax.report.statistics import Estimate
from ram_jax.report.table import line

# Dots per inch: 6.4 inches fill a column of a page on a screen.
DPI = 150
# Okabe and Ito's palette for colour-blind readers, without its yellow, which
# is faint on white; black last.
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


@dataclasses.dataclass(frozen=True)
class Style:
  """How a group of runs is drawn in every figure of a set of them.

  Attributes:
    label: its name in legends, different from every other's.
    color: the same for all of one method, whatever their order.
    marker: the method's marker.
    line: the line style, another one for each further group of a method.
  """

  label: str
  color: str
  marker: str
  line: str

  def plot_options(self) -> dict[str, Any]:
    """Keyword arguments of `Axes.plot`."""
    return {
      "label": self.label,
      "color": self.color,
      "marker": self.marker,
      "linestyle": self.line,
      # Hollow, so that markers of equal values show through each other.
      "markerfacecolor": "none",
      "markersize": 7,
      "linewidth": 1.6,
    }


def styles(groups: Sequence[Group]) -> tuple[Style, ...]:
  """Gives each group a look that depends on the methods, not their order.

  Args:
    groups: what is shown together.

  Returns:
    One style per group.
  """
  methods = sorted({group.method for group in groups})
  seen = collections.Counter()
  result = []
  for group in groups:
    i = methods.index(group.method)
    result.append(
      Style(
        plain(group.label),
        COLORS[i % len(COLORS)],
        MARKERS[i % len(MARKERS)],
        LINES[seen[group.method] % len(LINES)],
      )
    )
    seen[group.method] += 1
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
  axes.plot(list(points), values, **style.plot_options())
  ends = [(p.low, p.high) for p in points.values() if p.low is not None]
  if len(ends) == len(points):
    low, high = factor * np.array(ends).T
    axes.fill_between(
      list(points), low, high, color=style.color, alpha=0.2, lw=0
    )


def band_name(groups: Sequence[Group]) -> str:
  """What the bands of `curve` are, in a few words."""
  several = [len(group.runs) > 1 for group in groups]
  if all(several):
    return "95 % interval over seeds"
  return "95 % intervals" if any(several) else "95 % interval"


def legend_below(figure: matplotlib.figure.Figure) -> None:
  """One legend outside all panels, where no name can cover data."""
  lines = {
    line.get_label(): line for axes in figure.axes for line in axes.get_lines()
  }
  # Two columns of longer names would be cut off by a narrow figure.
  columns = 1 if len(lines) == 1 or max(map(len, lines)) > 34 else 2
  figure.legend(
    lines.values(),
    lines.keys(),
    loc="outside lower center",
    ncols=columns,
    frameon=False,
    fontsize=9,
    handlelength=3.5,
  )
  # Inches: a row of the legend takes from the margin, not from the panels.
  figure.set_figheight(figure.get_figheight() + 0.2 * len(lines) / columns)


def tidy(axes: matplotlib.axes.Axes) -> None:
  """Takes away the frame that says nothing and puts a faint grid instead."""
  axes.spines[["top", "right"]].set_visible(False)
  axes.grid(alpha=0.3, linewidth=0.6)


def save(
  figure: matplotlib.figure.Figure, path: str | os.PathLike
) -> pathlib.Path:
  """Writes the figure as PNG, making its folder, and returns the path."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=DPI, format="png")
  return path
