"""Clean, augmented and adversarial views of some test images, for a figure."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ram_jax import keys as keys_lib
from ram_jax import plugins
from ram_jax.attacks.pgd import Attack, finite_gradients
from ram_jax.contracts import Batch, Evaluator, Picture
from ram_jax.image.color import dequantize
from ram_jax.models.classifier import Classifier

PICTURED = 8  # number of test images in the figure


def pictures(
  config: ConfigDict,
  evaluators: Mapping[str, Evaluator],
  model: Classifier,
  batch: Batch,
  key: jax.Array,
) -> Iterator[Picture]:
  """Views of the first test images, if they are evaluated under attack.

  Args:
    config: resolved.
    evaluators: the evaluators by their names in the config; the attack is that
      of `adversarial`, with its own epsilon.
    model: the classifier.
    batch: `images` uint8 [N,H,W,C] and `labels` int32 [N].
    key: the evaluation's key.

  Yields:
    A picture for each kind of view, and one of the amplified perturbation.
  """
  if "adversarial" not in evaluators:
    return
  images, labels = batch["images"][:PICTURED], batch["labels"][:PICTURED]
  keys = keys_lib.split(keys_lib.per_example(key, np.arange(len(labels))))
  # A loop compiles faster than unrolled code, and this is one small batch.
  attack = evaluators["adversarial"].attack.replace(unroll=False)
  # The method's own augmentation or, if it has none, the paper's AugMix.
  spec = config.method.to_dict().get("augment", {"name": "augmix"})
  augment = plugins.build("augment", spec, "config.method.augment")
  clean, augmented, attacked = jax.device_get(
    _views(attack, model, keys, images, labels, augment=augment)
  )
  shown = {
    "clean": clean,
    "AugMix" if spec["name"] == "augmix" else spec["name"]: augmented,
    f"adversarial, ε = {attack.epsilon:g}": attacked,
    "perturbation × 10": np.clip(0.5 + 10 * (attacked - clean), 0, 1),
  }
  for name, view in shown.items():
    yield Picture(f"views/{name}", np.round(255 * view).astype(np.uint8))


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
  """Clean, augmented and adversarial views of the same images."""
  clean = dequantize(images)
  attacked = attack(keys[1], clean, labels, finite_gradients(model))
  return clean, augment(keys[0], clean), attacked
