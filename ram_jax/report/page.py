"""The report of several runs: a page of Markdown and its figures."""

import os
import pathlib
from collections.abc import Sequence

from ram_jax.report import plots, runs, tables


def write_report(
  shown: Sequence[runs.Run], out_folder: str | os.PathLike
) -> list[pathlib.Path]:
  """Writes summary.md and the figures that the runs' results allow.

  Args:
    shown: the runs, in the order of the table's rows.
    out_folder: where to write; made if absent.

  Returns:
    Paths of the written files, summary.md first.

  Raises:
    ValueError: no run, a run given twice, or attacks in different norms.
  """
  table = tables.summary(shown)
  folder = pathlib.Path(out_folder)
  figures = []
  if any(runs.adversarial(run.results) for run in shown):
    figures.append(
      plots.adversarial_accuracy(shown, folder / "adversarial_accuracy.png")
    )
  if any(run.metrics for run in shown):
    figures.append(plots.training_curves(shown, folder / "training_curves.png"))
  sections = ["# Results", table.markdown().strip()]
  sections += [f"![{_title(path)}]({path.name})" for path in figures]
  sections += ["## Runs", origins(shown).markdown().strip()]
  folder.mkdir(parents=True, exist_ok=True)
  page = folder / "summary.md"
  page.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
  return [page, *figures]


def origins(shown: Sequence[runs.Run]) -> tables.Table:
  """Where each run's numbers come from.

  Args:
    shown: the runs.

  Returns:
    One row per run: name, seed, length of training, device and versions, as
    far as its results say.
  """
  rows = []
  for label, run in zip(runs.distinct_labels(shown), shown, strict=True):
    about = run.results["run"]
    device = run.results.get("device", {})
    seconds = run.results.get("timing", {}).get("train_seconds")
    cells = (
      about["name"],
      about["seed"],
      about.get("epochs"),
      about.get("step"),
      None if seconds is None else f"{seconds / 60:.1f}",
      device and f"{device.get('count')} x {device.get('kind')}",
      run.results.get("versions", {}).get("jax"),
    )
    texts = (str(c) if c not in (None, {}) else "-" for c in cells)
    rows.append((label, *texts))
  header = "run,name,seed,epochs,steps,training (minutes),device,jax"
  return tables.Table(tuple(header.split(",")), tuple(rows))


def _title(path: pathlib.Path) -> str:
  return path.stem.replace("_", " ")
