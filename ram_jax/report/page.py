"""The report of several runs: a page in HTML and in Markdown, its figures."""

import base64
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import struct
from collections.abc import Sequence
from typing import Any

import jinja2
import markupsafe

from ram_jax.contracts import Note
from ram_jax.corruptions import CATEGORIES
from ram_jax.report import claims, plots, style, tables
from ram_jax.report import groups as grouping
from ram_jax.report.table import Table, line, literal
from ram_jax.runs import results
from ram_jax.runs.results import Run

# The paper's figures of corruptions by category.
FIGURES = {"noise": 3, "blur": 4, "weather": 5, "digital": 6}
BANDS = "Bands: 95 % intervals."
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?%?$")
_FOLDER = pathlib.Path(__file__).parent


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
    tables: below the heading.
    figures: below the tables.
    text: below the figures, as it is.
    heat: whether the tables' cells are shaded by their numbers.
    is_brief: whether the Markdown has it, too.
  """

  title: str
  tables: tuple[Table, ...] = ()
  figures: tuple[Figure, ...] = ()
  text: str = ""
  heat: bool = False
  is_brief: bool = True

  def markdown(self) -> str:
    """Heading, tables and links to the figures."""
    parts = [f"## {literal(self.title)}"]
    parts += [table.markdown().strip() for table in self.tables]
    parts += [f"![{f.caption}]({f.path.name})" for f in self.figures]
    return "\n\n".join(parts)


@dataclasses.dataclass(frozen=True)
class Report:
  """What the page shows, in this order.

  Attributes:
    title: of the page.
    lead: what was run, in one sentence.
    summary: the main numbers.
    notes: what a reader must know to interpret them.
    figures: the main ones.
    found: what the runs say about the paper's claims, or None.
    sections: everything else.
  """

  title: str
  lead: str
  summary: Table
  notes: tuple[Note, ...]
  figures: tuple[Figure, ...]
  found: claims.Claims | None
  sections: tuple[Section, ...]


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
  command = [f"--runs={','.join(str(run.folder) for run in runs)}"]
  command += [f"--workdir={folder}"]
  command += [f"--baseline={baseline}"] if base else []
  report = collect(runs, folder, base, command)
  folder.mkdir(parents=True, exist_ok=True)
  paths = []
  for name, text in (
    ("summary.md", markdown(report)),
    ("report.html", document(report)),
  ):
    paths.append(folder / name)
    # JSON may hold halves of letters, which have no bytes.
    paths[-1].write_text(text, encoding="utf-8", errors="backslashreplace")
  figures = [f for section in report.sections for f in section.figures]
  return paths + [figure.path for figure in (*report.figures, *figures)]


def collect(
  runs: Sequence[Run],
  folder: pathlib.Path,
  baseline: Run | None,
  command: Sequence[str],
) -> Report:
  """Draws the figures and gathers the tables.

  Args:
    runs: the runs.
    folder: where the figures go.
    baseline: one of them, or None.
    command: arguments of main.py that make this report.

  Returns:
    The report.

  Raises:
    ValueError: as `write_report`.
  """
  groups = grouping.groups(runs)
  rows = grouping.frame(groups)
  known = [tables.facts(group) for group in groups]
  subjects = {(row["network"], row["data"]) for row in known}
  title = "Robustness"
  if len(subjects) == 1:
    title = "Robustness of {} on {}".format(*subjects.pop())
  sections = (
    *_more_epsilons(runs),
    *_corruptions(runs, rows, folder, baseline),
    *_details(runs, rows, folder),
    *_origins(runs, command),
  )
  return Report(
    title,
    f"ram_jax, {tables.lead(groups)}.",
    tables.summary(runs),
    tables.notes(groups, rows),
    _main_figures(runs, rows, folder),
    claims.evaluate(runs),
    sections,
  )


def markdown(report: Report) -> str:
  """The report in Markdown, without what few readers want."""
  summary = dataclasses.replace(report.summary, title="")
  main = Section(report.title, (summary,), report.figures)
  heading, *rest = main.markdown().split("\n\n")
  parts = [heading.removeprefix("#"), literal(report.lead), *rest]
  if report.found:
    parts.append(
      Section("The paper's claims", (report.found.table(),)).markdown()
    )
  parts += [part.markdown() for part in report.sections if part.is_brief]
  return "\n\n".join(parts) + "\n"


def document(report: Report) -> str:
  """The report as one HTML file.

  Args:
    report: any text in it may be a user's.

  Returns:
    HTML with its figures and style, and no script. Its content security policy
    allows these and nothing else.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    finalize=_shown,
  )
  environment.filters |= {"cells": _cells, "image": _image, "heads": _heads}
  environment.filters["verbatim"] = markupsafe.escape
  return environment.get_template("page.html.j2").render(vars(report))


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
  if not grouping.attacks(grouping.frame(grouping.groups([run]))).empty:
    figure = plots.draw_adversarial_accuracy([run])
    style.save(figure, part / "adversarial_accuracy.png")
  if run.metrics:
    figure = plots.draw_training_curves([run])
    style.save(figure, part / "training_curves.png")
  if views := pictures.get("views"):
    style.save(plots.draw_images(list(views.items())), part / "views.png")
  if corrupted := pictures.get("corruption"):
    count = max(map(len, corrupted.values()))
    severities = [str(i + 1) for i in range(count)]
    figure = plots.draw_images(list(corrupted.items()), severities)
    style.save(figure, part / "corruptions.png")
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


def _main_figures(
  runs: Sequence[Run], rows: Any, folder: pathlib.Path
) -> tuple[Figure, ...]:
  found = []
  if not grouping.attacks(rows).empty:
    figure = plots.draw_adversarial_accuracy(runs)
    path = style.save(figure, folder / "adversarial_accuracy.png")
    caption = "Accuracy against the size of the attack (the paper's Figure 2)"
    found.append(Figure(path, f"{caption}. {BANDS}"))
  if rows["corruption"].isin(plots.EXAMPLES).any():
    figure = plots.draw_severity(runs, plots.EXAMPLES)
    path = style.save(figure, folder / "corruption_examples.png")
    caption = "Accuracy against severity (the paper's Figure 1)"
    found.append(Figure(path, f"{caption}. {BANDS}"))
  return tuple(found)


def _more_epsilons(runs: Sequence[Run]) -> list[Section]:
  table = tables.summary(runs, every_epsilon=True)
  if table.header == tables.summary(runs).header:
    return []
  table = dataclasses.replace(table, footnotes=(), title="")
  return [Section("Every epsilon", (table,))]


def _corruptions(
  runs: Sequence[Run], rows: Any, folder: pathlib.Path, baseline: Run | None
) -> list[Section]:
  each = tables.corruptions(runs, baseline)
  if each is None:
    return []
  severities = tables.corruptions(runs, baseline, each_severity=True)
  means = tables.corruption_means(runs, baseline)
  figures = []
  for category, names in CATEGORIES.items():
    if rows["corruption"].isin(names).any():
      figure = plots.draw_severity(runs, names)
      path = style.save(figure, folder / f"corruption_{category}.png")
      caption = f"Accuracy against severity: {category} (the paper's Figure "
      figures.append(Figure(path, f"{caption}{FIGURES[category]}). {BANDS}"))
  return [
    Section("Each corruption", (each,), heat=True),
    Section("Categories of corruptions and mCE", (means,)),
    Section("Accuracy against severity, by category", (), tuple(figures)),
    Section(
      "Each corruption and severity", (severities,), heat=True, is_brief=False
    ),
  ]


def _details(
  runs: Sequence[Run], rows: Any, folder: pathlib.Path
) -> list[Section]:
  found = []
  if calibration := tables.calibration(runs):
    found.append(Section("Calibration", (calibration,)))
  if (rows["evaluator"] == "fourier").any():
    path = style.save(plots.draw_fourier(runs), folder / "fourier.png")
    caption = (
      "Error when a wave of one frequency is added to the test images, for "
      "each frequency; the lowest is in the middle"
    )
    found.append(Section("Fourier waves", (), (Figure(path, caption),)))
  if any(run.metrics for run in runs):
    figure = plots.draw_training_curves(runs)
    path = style.save(figure, folder / "training_curves.png")
    caption = "Loss and accuracies during training"
    found.append(Section("Training", (), (Figure(path, caption),)))
  sheets = [run.folder / "figures" / "corruptions.png" for run in runs]
  for sheet in filter(pathlib.Path.is_file, sheets):
    path = pathlib.Path(shutil.copy(sheet, folder / "corruptions.png"))
    caption = "One test image under each corruption, severities 1 to 5"
    found.append(Section("Corrupted images", (), (Figure(path, caption),)))
    break
  return found


def _origins(runs: Sequence[Run], command: Sequence[str]) -> list[Section]:
  found = []
  if differences := tables.differences(runs):
    found.append(Section("Differences of configuration", (differences,)))
  table = tables.origins(runs)
  made = shlex.join(["python", "main.py", "--mode=report", *command])
  table = dataclasses.replace(
    table, footnotes=(*table.footnotes, f"this report: {made}")
  )
  found.append(Section("Where the numbers come from", (table,)))
  labels = grouping.labels([(run,) for run in runs])
  for label, run in zip(labels, runs, strict=True):
    text = json.dumps(run.head, indent=2, ensure_ascii=False)
    title = f"Complete configuration: {label}"
    found.append(Section(title, text=text, is_brief=False))
  return found


def _shown(value: Any) -> Any:
  """A user's text on one line; what is markup already stays."""
  if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
    return line(value)
  return value


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
  """Cells: number or text, details, whether it is the best, its shade."""
  rows = []
  for i, row in enumerate(table.rows):
    cells = []
    for j, cell in enumerate(row):
      number, _, detail = cell.partition(" ")
      is_number = bool(NUMBER.match(number)) and detail[:1] in ("", "(", "[")
      cells.append(
        {
          "text": number if is_number else cell,
          "is_number": is_number or cell == tables.NOT_EVALUATED,
          "detail": " ".join(re.findall(r"\((.*?)\)", detail * is_number)),
          "lacking": " ".join(re.findall(r"\[.*?\]", detail * is_number)),
          "is_best": (i, j) in table.best,
          "value": float(number) if heat and is_number and j > 1 else None,
        }
      )
    rows.append(cells)
  values = [c["value"] for row in rows for c in row if c["value"] is not None]
  for cell in itertools.chain(*rows):
    if cell["value"] is not None:
      span = max(values) - min(values) or 1
      cell["value"] = round(60 * (cell["value"] - min(values)) / span)
  return rows


def _image(figure: Figure) -> markupsafe.Markup:
  """A figure with its pixels."""
  content = figure.path.read_bytes()
  # The first chunk of a PNG, at byte 16: width and height.
  size = struct.unpack(">2I", content[16:24])
  width, height = (round(96 * x / style.DPI) for x in size)
  data = base64.b64encode(content).decode()
  alt = markupsafe.escape(figure.caption)
  return markupsafe.Markup(
    f'<img width="{width}" height="{height}" alt="{alt}" '
    f'src="data:image/png;base64,{data}">'
  )
