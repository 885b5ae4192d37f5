"""The figures of one run, drawn when it has been measured."""

import functools
import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ram_jax import keys as keys_lib
from ram_jax import plugins
from ram_jax.attacks.pgd import Attack, finite_gradients
from ram_jax.image.color import dequantise
from ram_jax.models.classifier import Classifier
from ram_jax.report import corruption_plots, look, plots, runs

PICTURED = 8  # images in the picture of views


def draw(folder: pathlib.Path, pictures: dict[str, np.ndarray]) -> None:
  """Draws what a run's files hold, and one image corrupted in every way.

  Args:
    folder: the run's folder.
    pictures: that image at severities 1 to 5, uint8 [5,H,W,C], by corruption;
      empty: not drawn.
  """
  figures = folder / "figures"
  shown = [runs.load(folder)]
  if runs.adversarial(shown[0].results):
    plots.adversarial_accuracy(shown, figures / "adversarial_accuracy.png")
  if shown[0].metrics:
    plots.training_curves(shown, figures / "training_curves.png")
  if pictures:
    images = np.stack(list(pictures.values()))
    sheet = corruption_plots.draw_contact_sheet(images, list(pictures))
    look.save(sheet, figures / "corruptions.png")


def draw_views(
  config: ConfigDict,
  attack: Attack,
  model: Classifier,
  batch: dict[str, np.ndarray],
  key: jax.Array,
  folder: pathlib.Path,
) -> None:
  """Draws clean, AugMix and adversarial views of the first test images.

  Args:
    config: resolved.
    attack: of the evaluation, with its own epsilon.
    model: the classifier.
    batch: `images` uint8 [N,H,W,C] and `labels` int32 [N].
    key: of the evaluation.
    folder: the run's folder.
  """
  images, labels = batch["images"][:PICTURED], batch["labels"][:PICTURED]
  keys = keys_lib.split(keys_lib.per_example(key, np.arange(len(labels))))
  # A loop compiles sooner than repeated code, and this is one small batch.
  attack = attack.replace(unroll=False)
  # The run's own AugMix; for methods without one, the paper's.
  spec = config.method.to_dict().get("augment", {"name": "augmix"})
  augment = plugins.build("augment", spec, "config.method.augment")
  clean, augmented, attacked = jax.device_get(
    _views(attack, model, keys, images, labels, augment=augment)
  )
  epsilon = attack.epsilon
  views = (
    ("clean", clean),
    ("AugMix", augmented),
    (f"adversarial, ε = {epsilon:g}", attacked),
    ("perturbation × 10", np.clip(0.5 + 10 * (attacked - clean), 0, 1)),
  )
  plots.views(folder / "figures" / "views.png", views)


@functools.partial(jax.jit, static_argnames="augment")
def _views(
  attack: Attack,
  model: Classifier,
  keys: tuple[jax.Array, jax.Array],
  images: jax.Array,
  labels: jax.Array,
  *,
  augment: Any,
) -> tuple[jax.Array, ...]:
  """Clean, AugMix and adversarial views of the same images."""
  clean = dequantise(images)
  attacked = attack(keys[1], clean, labels, finite_gradients(model))
  return clean, augment(keys[0], clean), attacked
