"""The map of errors by frequency."""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np

from ram_jax.report import look, seeds
from ram_jax.runs.results import Run

# Letters that fit above a panel.
TITLE = 26


def draw_fourier(runs: Sequence[Run]) -> matplotlib.figure.Figure:
  """Errors under waves of single frequencies (Yin et al. 2019, figure 2).

  Args:
    runs: the runs; those without the measure are left out.

  Returns:
    One panel per configuration, the mean over its seeds; the lowest frequency
    in the middle, one colour scale for all.

  Raises:
    ValueError: nothing to draw, or waves of different norms.
  """
  groups = []
  for group in seeds.groups(runs):
    parts = [run.results.get("fourier") for run in group.runs]
    if any(parts):
      groups.append((group, [part for part in parts if part]))
  norms = sorted({part["norm"] for _, maps in groups for part in maps})
  if len(norms) != 1:
    raise ValueError(
      f"Fourier maps of waves of the norms {norms} are no one figure: measure "
      "the runs with one config.evaluators.fourier.norm"
    )
  columns = min(4, len(groups))
  height = -(-len(groups) // columns)
  figure = matplotlib.figure.Figure(
    figsize=(max(4.2, 2.2 * columns + 0.8), 2.5 * height + 0.7),
    layout="compressed",
  )
  grid = figure.subplots(height, columns, squeeze=False).ravel()
  errors = [
    np.mean([100 * np.array(x["wrong"]) / x["total"] for x in maps], axis=0)
    for _, maps in groups
  ]
  # One scale for all.
  low, high = look.tens(np.min(errors), np.max(errors))
  for (group, _), error, axes in zip(groups, errors, grid, strict=False):
    image = axes.imshow(error, vmin=low, vmax=high, cmap="magma")
    axes.set(xticks=[], yticks=[])
    axes.set_title(look.folded(group.label, TITLE), fontsize=9)
  for axes in grid[len(groups) :]:
    axes.remove()
  figure.colorbar(image, ax=list(grid[: len(groups)]), label="error (%)")
  totals = sorted({part["total"] for _, maps in groups for part in maps})
  figure.suptitle(
    f"one wave of L2 norm {norms[0]:g} added to each of\n"
    f"{', '.join(map(str, totals))} test images;\n"
    "lowest frequency in the middle",
    fontsize=10,
  )
  return figure
