"""How each run is drawn, the same in every figure of a set of runs."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from ram_jax.report import runs as runs_lib
from ram_jax.report.runs import Run

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
