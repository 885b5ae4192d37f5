"""The report of several runs: one page in Markdown and HTML, its figures."""

import dataclasses
import os
import pathlib
import shlex
import shutil
from collections.abc import Sequence

from ram_jax.report import (
  claims,
  configurations,
  corruption_plots,
  corruption_tables,
  fourier_plots,
  look,
  plots,
  seeds,
  tables,
  web,
)
from ram_jax.report import corruption_numbers as numbers
from ram_jax.report.sections import Picture, Section
from ram_jax.report.table import literal
from ram_jax.runs import results as runs

# The paper's figures of corruptions by category.
FIGURES = {"noise": 3, "blur": 4, "weather": 5, "digital": 6}
BANDS = (
  "Bands: 95 % intervals, Student's over seeds where there are several, else "
  "Wilson's over test images."
)


def write_report(
  shown: Sequence[runs.Run],
  out_folder: str | os.PathLike,
  baseline: str | os.PathLike | None = None,
) -> list[pathlib.Path]:
  """Writes summary.md, report.html and the figures that the results allow.

  Args:
    shown: the runs, in the order of the tables' rows; those that differ in
      their seeds alone are shown as one.
    out_folder: where to write; made if absent.
    baseline: folder of one of them, to which others are compared; None: of
      none.

  Returns:
    Paths of the written files, the two pages first.

  Raises:
    ValueError: no run, a run given twice, a baseline that is none of them, or
      attacks or waves in different norms.
  """
  folder = pathlib.Path(out_folder)
  base = _baseline(shown, baseline)
  found = contents(shown, folder, base)
  command = [f"--runs={','.join(str(run.folder) for run in shown)}"]
  command += [f"--workdir={folder}"]
  command += [f"--baseline={baseline}"] if base else []
  found.append(_runs(shown, command))
  folder.mkdir(parents=True, exist_ok=True)
  lead = _lead(shown)
  texts = {
    "summary.md": "\n\n".join(
      ["# Results", literal(lead), *(part.markdown() for part in found)]
    )
    + "\n",
    "report.html": web.document("Results", lead, found),
  }
  paths = []
  for name, text in texts.items():
    paths.append(folder / name)
    # JSON may hold halves of letters, which have no bytes.
    paths[-1].write_text(text, encoding="utf-8", errors="backslashreplace")
  return paths + [picture.path for part in found for picture in part.pictures]


def contents(
  shown: Sequence[runs.Run], folder: pathlib.Path, baseline: runs.Run | None
) -> list[Section]:
  """Draws the figures and gathers the tables, but for the runs' own.

  Args:
    shown: the runs.
    folder: where the figures go.
    baseline: one of them, or None.

  Returns:
    The page's sections that have content, in order.

  Raises:
    ValueError: as `write_report`.
  """
  summary = tables.summary(shown)
  parts = [
    Section("Summary", (("Accuracy of each configuration", summary),)),
    Section("The paper's sentences", _claims(shown)),
    Section("Under attack", pictures=_attacks(shown, folder)),
    _corruptions(shown, folder, baseline),
    Section("Single frequencies", pictures=_frequencies(shown, folder)),
    Section("Calibration", _calibration(shown)),
    Section("Training", pictures=_training(shown, folder)),
  ]
  if differences := configurations.differences(shown):
    caption = "Fields in which the configurations differ"
    parts.append(Section("Configurations", ((caption, differences),)))
  return [part for part in parts if part.tables or part.pictures]


def _baseline(
  shown: Sequence[runs.Run], baseline: str | os.PathLike | None
) -> runs.Run | None:
  if baseline is None:
    return None
  wanted = pathlib.Path(baseline).resolve()
  for run in shown:
    if run.folder.resolve() == wanted:
      return run
  raise ValueError(
    f"the baseline {str(baseline)!r} is none of the runs: give one of "
    f"{', '.join(str(run.folder) for run in shown)}"
  )


def _lead(shown: Sequence[runs.Run]) -> str:
  data = dict.fromkeys(run.results["run"]["data_label"] for run in shown)
  count = len(seeds.groups(shown))
  return (
    f"Configurations: {count}; runs: {len(shown)}; data: {' / '.join(data)}. "
    "Everything here is made from the runs' results.json and metrics.jsonl."
  )


def _attacks(
  shown: Sequence[runs.Run], folder: pathlib.Path
) -> tuple[Picture, ...]:
  if not any(runs.adversarial(run.results) for run in shown):
    return ()
  path = plots.adversarial_accuracy(shown, folder / "adversarial_accuracy.png")
  caption = "Accuracy against the size of the attack (the paper's Figure 2)"
  return (Picture(path, f"{caption}. {BANDS}"),)


def _training(
  shown: Sequence[runs.Run], folder: pathlib.Path
) -> tuple[Picture, ...]:
  if not any(run.metrics for run in shown):
    return ()
  path = plots.training_curves(shown, folder / "training_curves.png")
  return (Picture(path, "Loss and accuracies during training"),)


def _frequencies(
  shown: Sequence[runs.Run], folder: pathlib.Path
) -> tuple[Picture, ...]:
  if not any("fourier" in run.results for run in shown):
    return ()
  path = look.save(fourier_plots.draw_fourier(shown), folder / "fourier.png")
  caption = "Error when a wave of one frequency is added, for each frequency"
  return (Picture(path, caption),)


def _claims(
  shown: Sequence[runs.Run],
) -> tuple[tuple[str, tables.Table], ...]:
  table = claims.table(shown)
  return (("What these runs say to them", table),) if table else ()


def _calibration(
  shown: Sequence[runs.Run],
) -> tuple[tuple[str, tables.Table], ...]:
  table = corruption_tables.calibration(shown)
  return (("Calibration, smaller is better", table),) if table else ()


def _corruptions(
  shown: Sequence[runs.Run], folder: pathlib.Path, baseline: runs.Run | None
) -> Section:
  categories = numbers.categories(shown)
  if not categories:
    return Section("Corruptions")
  by_corruption = corruption_tables.by_corruption(shown)
  by_severity = corruption_tables.by_severity(shown)
  return Section(
    "Corruptions",
    (
      ("Means over corruptions", corruption_tables.means(shown, baseline)),
      ("Each corruption: mean accuracy in % over severities", by_corruption),
    ),
    _corruption_pictures(shown, folder, baseline),
    (("Each corruption and severity: accuracy in %", by_severity),),
  )


def _corruption_pictures(
  shown: Sequence[runs.Run], folder: pathlib.Path, baseline: runs.Run | None
) -> tuple[Picture, ...]:
  categories = numbers.categories(shown)
  panels = {"examples": corruption_plots.EXAMPLES} | categories
  found = {name for names in categories.values() for name in names}
  pictures = []
  for part, names in panels.items():
    if not found & set(names):
      continue
    figure = corruption_plots.draw_severity(shown, names)
    path = look.save(figure, folder / f"corruption_{part}.png")
    number = {"examples": 1, **FIGURES}.get(part)
    caption = f"Accuracy against severity: {part}"
    caption += f" (the paper's Figure {number})" if number else ""
    pictures.append(Picture(path, f"{caption}. {BANDS}"))
  figure = corruption_plots.draw_heat_map(shown, baseline)
  path = look.save(figure, folder / "corruption_heat_map.png")
  caption = "Mean accuracy over severities"
  if baseline:
    caption += ", in parentheses the difference to the baseline"
  pictures.insert(1, Picture(path, caption))
  for run in shown:
    if (sheet := run.folder / "figures" / "corruptions.png").is_file():
      path = pathlib.Path(shutil.copy(sheet, folder / "corruptions.png"))
      pictures.append(Picture(path, "One test image, corrupted"))
      break
  return tuple(pictures)


def _runs(shown: Sequence[runs.Run], command: Sequence[str]) -> Section:
  table = configurations.origins(shown)
  made = shlex.join(["python", "main.py", "--mode=report", *command])
  table = dataclasses.replace(
    table, footnotes=(*table.footnotes, f"this page: {made}")
  )
  labels = seeds.labels([(run,) for run in shown])
  folded = tuple(
    (f"Complete configuration: {label}", configurations.complete(run))
    for label, run in zip(labels, shown, strict=True)
  )
  return Section("Runs", (("Where the numbers are from", table),), (), folded)
