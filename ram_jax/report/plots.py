"""Figures of results: what a paper shows of several runs, and images.

Each `draw_*` returns a matplotlib Figure, which tests can inspect; the function
without the prefix saves it as PNG. No pyplot: it keeps global state.
"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from ram_jax.report import look, seeds, statistics, tables
from ram_jax.report.seeds import Group
from ram_jax.report.statistics import Estimate
from ram_jax.runs import results as runs_lib
from ram_jax.runs.results import Run

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
    runs: runs attacked in one norm; runs without adversarial accuracy are left
      out.

  Returns:
    A figure with one line per configuration over epsilon (epsilon 0: clean)
    and a band for its 95 % interval, in percent: Wilson's over test images for
    one run, Student's over seeds for several.

  Raises:
    ValueError: nothing to draw, or attacks in different norms.
  """
  groups = seeds.groups(runs)
  curves = [
    (group, style, _curve(group))
    for group, style in zip(groups, look.styles(groups), strict=True)
  ]
  curves = [row for row in curves if row[2]]
  drawn = [r for g, _, _ in curves for r in g.runs if _counts(r.results)]
  norms = sorted({r.results["adversarial"]["attack"]["norm"] for r in drawn})
  if len(norms) != 1:
    raise ValueError(
      f"adversarial accuracy of attacks in the norms {norms} is no one figure: "
      "report runs that were attacked in one norm"
    )
  figure = matplotlib.figure.Figure(figsize=(6.4, 4.2), layout="constrained")
  axes = figure.subplots()
  for _, style, points in curves:
    look.curve(axes, style, points)
  _epsilon_axis(axes, sorted({e for *_, points in curves for e in points}))
  axes.set_xlabel(
    rf"$\epsilon$ ({tables.norm_name(norms[0])} norm, pixels in [0, 1])"
  )
  shown = look.band_name([group for group, *_ in curves])
  axes.set_ylabel(f"accuracy (%), {shown} shaded")
  axes.set_ylim(-2, 102)
  attacks = _names(r.results["adversarial"]["attack"]["name"] for r in drawn)
  axes.set_title(
    f"Accuracy under {attacks} ({tables.norm_name(norms[0])})\n"
    + setting(drawn),
    fontsize=11,
  )
  look.tidy(axes)
  look.legend_below(figure)
  return figure


def draw_training_curves(runs: Sequence[Run]) -> matplotlib.figure.Figure:
  """Loss and accuracies during training against the epoch.

  Args:
    runs: the runs; those without metrics are left out.

  Returns:
    A figure with one panel per quantity that some run has, one line per
    configuration, over several seeds the mean and Student's interval; long
    curves are averaged over neighbouring log intervals.

  Raises:
    ValueError: no run has metrics.
  """
  groups = seeds.groups(runs)
  pairs = tuple(zip(groups, look.styles(groups), strict=True))
  panels = [
    c for c in CURVES if any(c[0] in m for r in runs for m in r.metrics)
  ]
  if not panels:
    raise ValueError(
      "none of the runs has training metrics: metrics.jsonl is missing or empty"
    )
  figure = matplotlib.figure.Figure(
    figsize=(4.2 * len(panels), 3.8), layout="constrained"
  )
  for axes, (key, title, factor) in zip(
    figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
  ):
    for group, style in pairs:
      if points := _training_curve(group, key):
        look.curve(axes, style, points, factor)
        axes.lines[-1].set_markevery(max(1, len(points) // 8))
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    if factor != 1:
      axes.set_ylim(-2, 102)
    look.tidy(axes)
  figure.suptitle(setting(runs), fontsize=11)
  look.legend_below(figure)
  return figure


def draw_views(rows: Sequence[tuple[str, Any]]) -> matplotlib.figure.Figure:
  """Draws versions of the same images below each other.

  Args:
    rows: (name, images [N,H,W,C] in [0,1], C 1 or 3) from top to bottom, the
      same N in each.

  Returns:
    A grid of len(rows) x N images, each pixel a square.

  Raises:
    ValueError: no rows, or another shape or range.
  """
  rows = [(name, _checked_images(name, images)) for name, images in rows]
  counts = {len(images) for _, images in rows}
  if len(counts) != 1:
    raise ValueError(
      f"rows of {sorted(counts)} images are no grid: give at least one row, "
      "and equally many images in each"
    )
  count = counts.pop()
  side = 1.1  # inches; letters of size 9 are about 0.085 wide
  names = 0.085 * _longest([name for name, _ in rows]) + 0.2
  figure = matplotlib.figure.Figure(
    figsize=(side * count + names, side * len(rows)),
    layout="constrained",
  )
  grid = figure.subplots(len(rows), count, squeeze=False)
  for (name, images), line in zip(rows, grid, strict=True):
    for image, axes in zip(images, line, strict=True):
      axes.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
      axes.set(xticks=[], yticks=[])
      axes.spines[:].set_visible(False)
    line[0].set_ylabel(
      name, rotation=0, ha="right", va="center", fontsize=9, labelpad=6
    )
  return figure


def adversarial_accuracy(
  runs: Sequence[Run], path: str | os.PathLike
) -> pathlib.Path:
  """Saves `draw_adversarial_accuracy` as PNG and returns the path."""
  return look.save(draw_adversarial_accuracy(runs), path)


def training_curves(
  runs: Sequence[Run], path: str | os.PathLike
) -> pathlib.Path:
  """Saves `draw_training_curves` as PNG and returns the path."""
  return look.save(draw_training_curves(runs), path)


def views(
  path: str | os.PathLike, rows: Sequence[tuple[str, Any]]
) -> pathlib.Path:
  """Saves `draw_views` as PNG and returns the path."""
  return look.save(draw_views(rows), path)


def setting(runs: Sequence[Run]) -> str:
  """Data and model of the runs, for a title."""
  abouts = [run.results["run"] for run in runs]
  data = _names(about["data_label"] for about in abouts)
  return look.plain(f"{data}, {_names(about['model'] for about in abouts)}")


def _counts(results: Mapping[str, Any]) -> dict[float, runs_lib.Counts]:
  """Counts by epsilon, with the clean ones at 0 where 0 was not attacked."""
  attacked = runs_lib.adversarial(results)
  clean = runs_lib.clean(results)
  return {0.0: clean, **attacked} if attacked and clean else attacked


def _curve(group: Group) -> dict[float, Estimate]:
  """Accuracy by epsilon."""
  epsilons = sorted({e for run in group.runs for e in _counts(run.results)})
  return {e: group.estimate(lambda r, e=e: _counts(r).get(e)) for e in epsilons}


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
    place: statistics.student(v) if len(v) > 1 else Estimate(v[0])
    for place, v in zip(_averaged(epochs), values.T, strict=True)
  }


def _epsilon_axis(
  axes: matplotlib.axes.Axes, epsilons: Sequence[float]
) -> None:
  """Equal steps for equal factors, and one more such step down to 0."""
  positive = [e for e in epsilons if e > 0]
  if positive:
    # Base 2 and linscale 1/2 make [0, smallest] as long as a doubling.
    axes.set_xscale("symlog", base=2, linthresh=min(positive), linscale=0.5)
  # Names need a 14th of the axis each; closer ones keep their tick mark only.
  gap = (1 + math.log2(max(positive) / min(positive))) / 14 if positive else 0
  labels, last = [], 0.0
  for epsilon in epsilons:
    named = last == 0 or math.log2(epsilon / last) >= gap
    labels.append(f"{epsilon:.3g}" if named else "")
    last = epsilon if named else last
  if epsilons[0] == 0:
    labels[0] = "0\n(clean)"
  axes.set_xticks(epsilons, labels)
  axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _averaged(values: Sequence[float]) -> np.ndarray:
  """Means of neighbours, so that at most CURVE_POINTS points remain."""
  values = np.asarray(values, dtype=np.float64)
  size = -(-len(values) // CURVE_POINTS) or 1
  return np.array(
    [values[i : i + size].mean() for i in range(0, len(values), size)]
  )


def _checked_images(name: str, images: Any) -> np.ndarray:
  images = np.asarray(images)
  if (
    images.ndim != 4
    or images.shape[-1] not in (1, 3)
    or 0 in images.shape
    or not (images.min() >= 0 and images.max() <= 1)
  ):
    raise ValueError(
      f"row {name!r} of shape {images.shape} is no [N,H,W,C] of values in "
      "[0, 1] with 1 or 3 channels: scale or clip it first"
    )
  return images


def _longest(texts: Sequence[str]) -> int:
  """Length of the longest line in any of the texts."""
  return max(
    (len(line) for text in texts for line in text.split("\n")), default=0
  )


def _names(names: Any) -> str:
  return " / ".join(dict.fromkeys(names))
