"""The figures of one run, from its files."""

import pathlib
import shutil

import numpy as np

from ram_jax.report import corruption_plots, look, plots
from ram_jax.runs import results as runs


def draw(folder: pathlib.Path) -> None:
  """Draws what an evaluated run's files hold, into its folder `figures/`.

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
  shown = [runs.load(folder)]
  if runs.adversarial(shown[0].results):
    plots.adversarial_accuracy(shown, part / "adversarial_accuracy.png")
  if shown[0].metrics:
    plots.training_curves(shown, part / "training_curves.png")
  pictures = runs.read_pictures(folder)
  if views := pictures.get("views"):
    rows = [(name, images / 255) for name, images in views.items()]
    plots.views(part / "views.png", rows)
  if corrupted := pictures.get("corruption"):
    images = np.stack(list(corrupted.values()))
    sheet = corruption_plots.draw_contact_sheet(images, list(corrupted))
    look.save(sheet, part / "corruptions.png")
  part.rename(figures)
