"""The report of several runs: a page in HTML and in Markdown, its figures."""

import base64
import dataclasses
import itertools
import os
import pathlib
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from ram_jax.corruptions import CATEGORIES
from ram_jax.report import claims, plots, style, tables
from ram_jax.report import groups as grouping
from ram_jax.report.table import Table, line, literal
from ram_jax.runs import metrics, results
from ram_jax.runs.results import Run

# A number of `tables`, its details and what it lacks.
NUMBER = re.compile(r"([-+]?\d[\d.]*)(?: \((.*?)\))?(?: (\[.*\]))?")


@dataclasses.dataclass(frozen=True)
class Figure:
  """A figure in a file.

  Attributes:
    path: of the PNG.
    caption: what it shows, in one sentence.
  """

  path: pathlib.Path
  caption: str


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the page that a reader opens.

  Attributes:
    title: its heading.
    table: below the heading.
    figures: below the table.
    is_brief: whether the Markdown has it, too.
  """

  title: str
  table: Table | None
  figures: tuple[Figure, ...] = ()
  is_brief: bool = True

  def markdown(self) -> str:
    """Heading, table and links to the figures."""
    parts = [f"## {literal(self.title)}"]
    parts += [self.table.markdown().strip()] if self.table else []
    parts += [f"![{f.caption}]({f.path.name})" for f in self.figures]
    return "\n\n".join(parts)


def write_report(
  runs: Sequence[Run],
  out_folder: str | os.PathLike,
  baseline: str | os.PathLike | None = None,
) -> list[pathlib.Path]:
  """Writes report.html, summary.md and the figures that the results allow.

  Args:
    runs: the runs, in the order of the tables' rows; those that differ only in
      their seeds are shown as one.
    out_folder: where to write; made if absent.
    baseline: folder of one of them, to which others are compared; None: of
      none.

  Returns:
    Paths of the written files, the two pages first.

  Raises:
    ValueError: no run, a run given twice, or a baseline that is none of them.
  """
  folder = pathlib.Path(out_folder)
  base = _baseline(runs, baseline)
  command = ["python", "main.py", "--mode=report", f"--workdir={folder}"]
  command += [f"--runs={','.join(str(run.folder) for run in runs)}"]
  command += [f"--baseline={baseline}"] if base else []
  made = shlex.join(command)
  groups = grouping.groups(runs)
  figures = _figures(runs, folder)
  main, *sections = _sections(runs, base, figures)
  found = claims.evaluate(runs)
  template = _environment().get_template("page.html.j2")
  page = template.render(
    main=main,
    notes=tables.notes(groups, grouping.frame(groups)),
    claims=found,
    sections=sections,
    command=made,
  )
  brief = [section for section in sections if section.is_brief]
  if found:
    brief.insert(0, Section("The paper's claims", found.table()))
  texts = [section.markdown() for section in (main, *brief)]
  # The heading of the main part is the page's.
  text = "\n\n".join([*texts, f"    {line(made)}\n"])[1:]
  paths = [folder / "summary.md", folder / "report.html"]
  for path, content in zip(paths, (text, page), strict=True):
    metrics.replace(path, content)
  return paths + [figure.path for figure in figures.values()]


def draw(folder: pathlib.Path) -> None:
  """Draws what an evaluated run's files contain, into its folder `figures/`.

  They are drawn once: an evaluation removes those of the one before.

  Args:
    folder: the run's folder.
  """
  figures = folder / "figures"
  if figures.is_dir():
    return
  # A folder of this name is complete.
  part = folder / "figures.part"
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir()
  run = results.load(folder)
  pictures = results.read_pictures(folder)
  drawn = {
    "adversarial_accuracy": plots.draw_adversarial_accuracy([run]),
    "training_curves": plots.draw_training_curves([run]),
  }
  if views := pictures.get("views"):
    drawn["views"] = plots.draw_images(list(views.items()))
  if corrupted := pictures.get("corruption"):
    drawn["corruptions"] = plots.draw_images(list(corrupted.items()), "12345")
  for name, figure in drawn.items():
    if figure:
      style.save(figure, part / f"{name}.png")
  part.rename(figures)


def _baseline(
  runs: Sequence[Run], baseline: str | os.PathLike | None
) -> Run | None:
  if baseline is None:
    return None
  wanted = pathlib.Path(baseline).resolve()
  for run in runs:
    if run.folder.resolve() == wanted:
      return run
  raise ValueError(
    f"the baseline {str(baseline)!r} is none of the runs: give one of "
    f"{', '.join(str(run.folder) for run in runs)}"
  )


def _figures(runs: Sequence[Run], folder: pathlib.Path) -> dict[str, Figure]:
  """Draws all figures that the results allow, by the name of their file."""
  bands = "Bands: 95 % intervals."
  drawn = {
    "adversarial_accuracy": (
      plots.draw_adversarial_accuracy(runs),
      f"Accuracy against epsilon (the paper's Figure 2). {bands}",
    ),
    "corruption_examples": (
      plots.draw_severity(runs, plots.EXAMPLES),
      f"Accuracy against severity (the paper's Figure 1). {bands}",
    ),
  }
  # The paper's Figures 3 to 6.
  for number, (category, names) in enumerate(CATEGORIES.items(), start=3):
    drawn[f"corruption_{category}"] = (
      plots.draw_severity(runs, names),
      f"Accuracy against severity: {category} (its Figure {number}). {bands}",
    )
  drawn["fourier"] = (
    plots.draw_fourier(runs),
    "Error when a wave of one frequency is added to the test images, for each "
    "frequency; the lowest is in the middle",
  )
  drawn["training_curves"] = (
    plots.draw_training_curves(runs),
    "Loss and accuracies during training",
  )
  folder.mkdir(parents=True, exist_ok=True)
  found = {}
  for name, (figure, caption) in drawn.items():
    if figure:
      path = style.save(figure, folder / f"{name}.png")
      found[name] = Figure(path, caption)
  sheets = (run.folder / "figures" / "corruptions.png" for run in runs)
  if sheet := next(filter(pathlib.Path.is_file, sheets), None):
    path = pathlib.Path(shutil.copy(sheet, folder / "corruptions.png"))
    caption = "One test image under each corruption, by severity"
    found["corruptions"] = Figure(path, caption)
  return found


def _sections(
  runs: Sequence[Run], baseline: Run | None, figures: Mapping[str, Figure]
) -> list[Section]:
  """The main part, and what a reader opens, if there is something in it."""
  main = ("adversarial_accuracy", "corruption_examples")
  categories = [f"corruption_{category}" for category in CATEGORIES]
  found = [
    (tables.title(grouping.groups(runs)), tables.summary(runs), main),
    ("Every epsilon", tables.every_epsilon(runs), ()),
    *((*pair, ()) for pair in tables.corruptions(runs, baseline).items()),
    ("Figures of all corruptions", None, categories),
    ("Calibration", tables.calibration(runs), ()),
    ("Fourier waves", None, ("fourier",)),
    ("Training", None, ("training_curves",)),
    ("Corrupted images", None, ("corruptions",)),
    ("Differences of configuration", tables.fields(runs, differing=True), ()),
    ("Where the numbers come from", tables.fields(runs), ()),
  ]
  sections = []
  for title, table, names in found:
    shown = tuple(figures[name] for name in names if name in figures)
    long = "severity" in title or "numbers" in title
    sections.append(Section(title, table, shown, not long))
  return [part for part in sections if part.table or part.figures]


def _environment() -> jinja2.Environment:
  """Renders the page: all text is escaped, and on one line."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    finalize=lambda x: line(x) if type(x) is str else x,
  )
  environment.filters |= {"cells": _cells, "heads": _heads, "source": _source}
  return environment


def _heads(table: Table) -> list[tuple[str, list[str]]]:
  """Groups of columns and their names; a column alone has no name below it."""
  pairs = [name.rpartition(": ")[::2] for name in table.header]
  found = []
  for _, same in itertools.groupby(pairs, lambda x: x[0] or x[1]):
    same = list(same)
    group, name = same[0]
    found.append((group or name, [name for group, name in same if group]))
  return found


def _cells(table: Table, heat: bool) -> list[list[dict[str, Any]]]:
  """Cells as the template needs them: a number is apart from its details."""
  rows = []
  for i, row in enumerate(table.rows):
    rows.append([])
    for j, cell in enumerate(row):
      match = NUMBER.fullmatch(cell)
      number, detail, lacking = match.groups() if match else (cell, None, None)
      rows[-1].append(
        {
          "text": number,
          "detail": detail,
          "lacking": lacking,
          "is_number": match or cell == tables.NOT_EVALUATED,
          "is_best": (i, j) in table.best,
          "heat": float(number) if heat and match and j > 1 else None,
        }
      )
  shaded = [c for row in rows for c in row if c["heat"] is not None]
  low = min((cell["heat"] for cell in shaded), default=0)
  span = max((cell["heat"] for cell in shaded), default=0) - low or 1
  for cell in shaded:
    cell["heat"] = round(60 * (cell["heat"] - low) / span)
  return rows


def _source(figure: Figure) -> str:
  """The file of a figure as a URL that contains it."""
  content = base64.b64encode(figure.path.read_bytes()).decode()
  return f"data:image/png;base64,{content}"
