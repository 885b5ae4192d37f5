"""Writes the report of several runs: HTML, Markdown and figures."""

import base64
import dataclasses
import itertools
import os
import pathlib
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence

import jinja2

from ram_jax.contracts import Note
from ram_jax.corruptions import CATEGORIES, SETS
from ram_jax.report import claims, pairs, plots, tables
from ram_jax.report import groups as grouping
from ram_jax.report.table import Table, line, literal
from ram_jax.runs import metrics, results
from ram_jax.runs.results import Run

# A number from `tables`, its details, and what is missing from it.
NUMBER = re.compile(r"([-+]?\d[\d.]*)(?: \((.*?)\))?(?: (\[.*\]))?")


BANDS = "Bands: 95 % intervals."
# Captions of the figures, by file name.
CAPTIONS = {
  "adversarial_accuracy": "Accuracy against epsilon (the paper's Figure 2). "
  + BANDS,
  "corruption_examples": "Accuracy against severity (the paper's Figure 1). "
  + BANDS,
  "trade_off": "Accuracy under attack against mean accuracy on the benchmark's "
  "15 corruptions, with 95 % intervals; gray: published models, whose "
  "attack and network may differ from those of the runs (docs/comparing.md)",
  "fourier": "Error on test images with an added Fourier wave, for each "
  "frequency; low frequencies are in the center",
  "training_curves": "Loss and accuracies during training",
  "corruptions": "One test image under each corruption and severity",
  "c_bar": f"Accuracy against severity: CIFAR-10-C-bar. {BANDS}",
}
# The paper's Figures 3 to 6.
CAPTIONS |= {
  f"corruption_{kind}": f"Accuracy against severity: {kind} (the paper's "
  f"Figure {number}). {BANDS}"
  for number, kind in enumerate(CATEGORIES, start=3)
}
# Sections that are not in summary.md.
LONG = ("Each corruption and severity", "Where the numbers come from")


@dataclasses.dataclass(frozen=True)
class Section:
  """A section of the page.

  Attributes:
    title: the heading.
    table: the table below the heading.
    figures: the figures below the table: paths by caption.
  """

  title: str
  table: Table | None
  figures: Mapping[str, pathlib.Path]

  def markdown(self) -> str:
    """Heading, table and links to the figures."""
    parts = [f"## {literal(self.title)}"]
    parts += [self.table.markdown().strip()] if self.table else []
    parts += [f"![{x}]({path.name})" for x, path in self.figures.items()]
    return "\n\n".join(parts)


def write_report(
  runs: Sequence[Run],
  out_folder: str | os.PathLike,
  baseline: str | os.PathLike | None = None,
  notes: Sequence[Note] = (),
) -> list[pathlib.Path]:
  """Writes report.html, summary.md and the figures for which there is data.

  Args:
    runs: the runs, in the order of the tables' rows; runs that differ only in
      their seeds are shown as one.
    out_folder: where to write; created if it does not exist.
    baseline: folder of one of the runs, with which the others are compared;
      None: no comparison.
    notes: notes that do not belong to a single run.

  Returns:
    Paths of the written files, the two pages first.

  Raises:
    ValueError: if there is no run, a run is given twice, or the baseline is not
      one of the runs.
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
    notes=(*notes, *tables.notes(groups, grouping.frame(groups))),
    claims=found,
    sections=sections,
    command=made,
  )
  brief = [section for section in sections if section.title not in LONG]
  if found:
    brief.insert(0, Section("The paper's claims", found.table(), {}))
  texts = [section.markdown() for section in (main, *brief)]
  texts[1:1] = [f"- {literal(note.text)}" for note in notes]
  # The heading of the main section becomes the title of the page.
  text = "\n\n".join([*texts, f"    {line(made)}\n"])[1:]
  paths = [folder / "summary.md", folder / "report.html"]
  for path, content in zip(paths, (text, page), strict=True):
    metrics.replace(path, content)
  return paths + list(figures.values())


def draw(folder: pathlib.Path) -> None:
  """Draws the figures of an evaluated run into its folder `figures/`.

  They are drawn once; a new evaluation removes the old ones. If the folder is
  read-only, nothing is drawn.

  Args:
    folder: the run's folder.
  """
  figures = folder / "figures"
  if figures.is_dir() or not os.access(folder, os.W_OK):
    return
  # A folder with the final name is always complete.
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
      plots.save(figure, part / f"{name}.png")
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
    f"the baseline {str(baseline)!r} is not one of the runs: give one of "
    f"{', '.join(str(run.folder) for run in runs)}"
  )


def _figures(
  runs: Sequence[Run], folder: pathlib.Path
) -> dict[str, pathlib.Path]:
  """Draws all figures for which there is data; paths by name."""
  drawn = {
    "adversarial_accuracy": plots.draw_adversarial_accuracy(runs),
    "corruption_examples": plots.draw_severity(runs, plots.EXAMPLES),
  }
  for kind, names in CATEGORIES.items():
    drawn[f"corruption_{kind}"] = plots.draw_severity(runs, names)
  drawn["c_bar"] = plots.draw_severity(runs, SETS["cifar_c_bar"])
  drawn["trade_off"] = plots.draw_trade_off(runs)
  drawn["fourier"] = plots.draw_fourier(runs)
  drawn["training_curves"] = plots.draw_training_curves(runs)
  folder.mkdir(parents=True, exist_ok=True)
  for name in (*drawn, "corruptions"):  # of an earlier report
    (folder / f"{name}.png").unlink(missing_ok=True)
  found = {
    name: plots.save(figure, folder / f"{name}.png")
    for name, figure in drawn.items()
    if figure
  }
  sheets = (run.folder / "figures" / "corruptions.png" for run in runs)
  if sheet := next(filter(pathlib.Path.is_file, sheets), None):
    path = shutil.copy(sheet, folder / "corruptions.png")
    found["corruptions"] = pathlib.Path(path)
  return found


def _sections(
  runs: Sequence[Run],
  baseline: Run | None,
  figures: Mapping[str, pathlib.Path],
) -> list[Section]:
  """The main section, and the collapsible ones that are not empty."""
  main = ("adversarial_accuracy", "corruption_examples")
  categories = [f"corruption_{kind}" for kind in CATEGORIES]
  found = [
    (tables.title(grouping.groups(runs)), tables.summary(runs), main),
    ("Accuracy under attack and on corruptions", None, ["trade_off"]),
    (
      "Differences over seeds",
      pairs.over_seeds(runs, baseline) if baseline else None,
      (),
    ),
    ("Every epsilon", tables.every_epsilon(runs), ()),
    *((*pair, ()) for pair in tables.corruptions(runs, baseline).items()),
    ("Figures of all corruptions", None, [*categories, "c_bar"]),
    ("Calibration", tables.calibration(runs), ()),
    ("Fourier waves", None, ["fourier"]),
    ("Training", None, ["training_curves"]),
    ("Corrupted images", None, ["corruptions"]),
    (
      "Differences between configurations",
      tables.fields(runs, differing=True),
      (),
    ),
    ("Where the numbers come from", tables.fields(runs), ()),
  ]
  sections = []
  for title, table, names in found:
    shown = {CAPTIONS[name]: figures[name] for name in names if name in figures}
    sections.append(Section(title, table, shown))
  return [part for part in sections if part.table or part.figures]


def _environment() -> jinja2.Environment:
  """The template environment, which escapes text and removes line breaks."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    finalize=lambda x: line(x) if type(x) is str else x,
  )
  environment.globals["NOT_EVALUATED"] = tables.NOT_EVALUATED
  environment.filters |= {"heads": _heads, "span": _span, "source": _source}
  environment.filters["number"] = NUMBER.fullmatch
  return environment


def _heads(table: Table) -> list[tuple[str, list[str]]]:
  """Groups of columns and the names in them; none for an ungrouped column."""
  pairs = [name.rpartition(": ")[::2] for name in table.header]
  found = []
  for _, same in itertools.groupby(pairs, lambda x: x[0] or x[1]):
    same = list(same)
    group, name = same[0]
    found.append((group or name, [name for group, name in same if group]))
  return found


def _span(table: Table) -> tuple[float, float]:
  """Minimum and range (1 if it is zero) of the numbers after column 2."""
  found = [NUMBER.fullmatch(cell) for row in table.rows for cell in row[2:]]
  shaded = [float(number[1]) for number in found if number]
  low = min(shaded, default=0)
  return low, max(shaded, default=0) - low or 1


def _source(path: pathlib.Path) -> str:
  """The figure as a data URL."""
  content = base64.b64encode(path.read_bytes()).decode()
  return f"data:image/png;base64,{content}"
