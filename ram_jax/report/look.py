"""The common look of figures: a style per run, legends, grids, PNG files."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure

from ram_jax.report import runs as runs_lib
from ram_jax.report.runs import Run

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
  """How a run is drawn in every figure of a set of runs.

  Attributes:
    label: its name in legends, different from every other run's.
    color: the same for all runs of one method, whatever their order.
    marker: the method's marker.
    line: the line style, another one for each further run of a method.
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


def styles(runs: Sequence[Run]) -> tuple[Style, ...]:
  """Gives each run a look that depends on the set of methods, not their order.

  Args:
    runs: the runs to show together.

  Returns:
    One style per run.

  Raises:
    ValueError: no run, or a run given twice.
  """
  if not runs:
    raise ValueError("no run to draw: name at least one run folder")
  methods = sorted({run.label for run in runs})
  seen = collections.Counter()
  result = []
  for run, label in zip(runs, runs_lib.distinct_labels(runs), strict=True):
    i = methods.index(run.label)
    result.append(
      Style(
        label,
        COLORS[i % len(COLORS)],
        MARKERS[i % len(MARKERS)],
        LINES[seen[run.label] % len(LINES)],
      )
    )
    seen[run.label] += 1
  return tuple(result)


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
