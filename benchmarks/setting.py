"""The setting that both sides share: weights, images and random numbers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from configs import adversarial, augmix, robust_augmix, standard
from ram_jax import experiment, plugins
from ram_jax import keys as keys_lib
from ram_jax.image.color import dequantize
from ram_jax.models.classifier import Classifier

CONFIGS = {
  "standard": standard,
  "augmix": augmix,
  "adversarial": adversarial,
  "robust_augmix": robust_augmix,
}
STEPS = 3
BATCH_SIZE = 4
KEY = 7  # seed of the random draws


@dataclasses.dataclass(frozen=True)
class Source:
  """The attributes of a data set that training needs; all constants differ."""

  num_classes: int = 10
  mean: tuple[float, ...] = (0.49, 0.48, 0.45)
  std: tuple[float, ...] = (0.25, 0.24, 0.26)


@dataclasses.dataclass(frozen=True)
class Setting:
  """A run before its first step.

  Attributes:
    config: resolved.
    module: the network, without a device axis.
    data: `images` uint8 [N,H,W,3] and `labels` int32 [N] of `STEPS` batches.
    params: parameters.
    batch_stats: running statistics.
  """

  config: ConfigDict
  module: nn.Module
  data: dict[str, np.ndarray]
  params: Any
  batch_stats: Any

  @property
  def labels(self) -> list[np.ndarray]:
    """Labels [B] of each step."""
    return np.split(self.data["labels"], STEPS)

  def classifier(self, batch_norm: str) -> Classifier:
    """The network with `running` or `batch` statistics, as attacks use it."""
    return Classifier(self.params, self.batch_stats, self.module, batch_norm)


def build(
  method: str,
  model: Mapping[str, Any],
  size: int,
  seed: int = 0,
  **overrides: Any,
) -> Setting:
  """Builds a run of a method with the paper's settings, on random images.

  Batch size and learning rate are smaller. The augmented views are flips and
  crops instead of AugMix: the content of a view does not matter here, and
  AugMix takes most of the compilation time.

  Args:
    method: a key of `CONFIGS`.
    model: the network's spec, with its `name`.
    size: side of the images.
    seed: seed of the random weights and images.
    **overrides: further fields of the config, by their dotted names.

  Returns:
    The setting. All weights are representable in float32, whatever their dtype.
  """
  config = CONFIGS[method].get_config()
  with config.unlocked():
    config.model = ConfigDict(model)
    if "augment" in config.method:
      views = {"name": "basic", "flip": True, "padding": 3}
      config.method.augment = ConfigDict(views)
  fixed = {
    "train.batch_size": BATCH_SIZE,
    "train.unroll": False,
    # With the paper's 0.1 and such small batches, training diverges within
    # three steps. Then probabilities underflow, and PyTorch's clamped
    # Jensen-Shannon divergence is NaN.
    "optimizer.learning_rate": 0.001,
  }
  config.update_from_flattened_dict(fixed | overrides)
  config = experiment.resolve(config)
  module = plugins.build_model(config, Source(), "float32", None)
  rng = np.random.default_rng(seed)
  count = STEPS * BATCH_SIZE
  data = {
    "images": rng.integers(0, 256, (count, size, size, 3), np.uint8),
    "labels": rng.integers(0, Source.num_classes, count, np.int32),
  }
  variables = _draw_variables(rng, module, size)
  return Setting(
    config, module, data, variables["params"], variables["batch_stats"]
  )


def _draw_variables(
  rng: np.random.Generator, module: nn.Module, size: int
) -> dict[str, Any]:
  """Draws variables that differ from 0, from 1 and from each other."""

  def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    layer, name = (part.key for part in path[-2:])
    if name == "kernel":
      he = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      value = rng.normal(0, he, leaf.shape)
    elif name in ("scale", "var"):
      value = rng.uniform(0.5, 1.5, leaf.shape)
    elif layer == "head":
      # Far enough apart that some probabilities nearly vanish and are clamped.
      value = rng.permutation(np.linspace(-10, 10, leaf.size))
    else:
      value = rng.normal(0, 0.2, leaf.shape)
    return value.astype(np.float32).astype(leaf.dtype)

  images = jnp.zeros((1, size, size, 3))
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images, False))
  return jax.tree_util.tree_map_with_path(draw, shapes)


def draw_views(
  setting: Setting, model: Classifier | None = None
) -> list[dict[str, np.ndarray]]:
  """Reproduces the views of the training steps from their keys.

  Args:
    setting: the run.
    model: the attacked model; None: adversarial views are starting points.

  Returns:
    For each step, `images` [B,H,W,3], flipped and cropped, and the method's
    views by name.
  """
  config = setting.config
  method = plugins.build("method", config.method, unroll=model is None)
  if model is None and hasattr(method, "attack"):
    method = dataclasses.replace(method, attack=method.attack.replace(steps=0))
  crop_flip = plugins.build("augment", config.augment)

  @jax.jit
  def draw(
    model: Classifier | None, step: int, images: jax.Array, labels: jax.Array
  ) -> dict[str, jax.Array]:
    keys = keys_lib.per_example(
      jax.random.fold_in(jax.random.key(KEY), step), jnp.arange(len(labels))
    )
    crop_keys, view_keys = keys_lib.split(keys)
    images = crop_flip(crop_keys, dequantize(images))
    batch = {"images": images, "labels": labels}
    views, _ = method.views(view_keys, batch, model)
    return {"images": images} | dict(views)

  batches = np.split(setting.data["images"], STEPS)
  return [
    jax.tree.map(np.asarray, draw(model, step, images, labels))
    for step, (images, labels) in enumerate(
      zip(batches, setting.labels, strict=True)
    )
  ]
