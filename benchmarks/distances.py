"""Relative distances between ram_jax's results and PyTorch's.

A distance is |ours - theirs| / |theirs|, with Euclidean norms over a tensor;
for a quantity, the largest distance over its tensors is reported.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import setting, two_sides
from benchmarks.two_sides import Results

MODELS = {
  "ResNet-18": {"name": "resnet", "depth": 18, "width_factor": 1},
  "PreActResNet-18": {"name": "preact_resnet"},
  "WRN-16-2": {"name": "wide_resnet", "depth": 16, "widen_factor": 2},
}
# Only compared for one batch and one step.
OTHER_MODELS = {
  "PreActResNet-18, both options": {"name": "preact_resnet", "variant": "rice"},
  "WRN-50-2": {"name": "resnet", "depth": 50, "width_factor": 2},
}
OPTIONS = {
  "batch_norm.views": ("separate", "joint"),
  "method.jensen_shannon": ("exact", "clamped"),
  "batch_norm.attack": ("running", "batch"),
}
OPTIONS_OF = {
  "standard": (),
  "augmix": ("batch_norm.views", "method.jensen_shannon"),
  "adversarial": ("batch_norm.attack",),
  "robust_augmix": tuple(OPTIONS),
}
SIZE = 10  # side of the images; 2 after three halvings
DRAWS = 20  # random weights and images in the comparison of rounding
BATCH_BOUND, STEP_BOUND, SINGLE_BOUND = 1e-9, 1e-8, 1e-5
ROUNDING_BOUND = 10  # multiple of PyTorch's own rounding error


def between(ours: Results, theirs: Results) -> dict[str, float]:
  """Computes the distance of each quantity, the largest over its tensors.

  Args:
    ours: arrays by quantity and tensor.
    theirs: the same quantities and tensors.

  Returns:
    Distances by quantity; infinite where a number is not finite.

  Raises:
    ValueError: if a quantity or tensor has no counterpart of the same shape.
  """
  shapes = [jax.tree.map(np.shape, x) for x in (ours, theirs)]
  if shapes[0] != shapes[1]:
    raise ValueError(f"{shapes[0]} cannot be compared with {shapes[1]}")
  result = {}
  for quantity, tensors in ours.items():
    parts = [
      np.linalg.norm(array - theirs[quantity][name])
      / np.linalg.norm(theirs[quantity][name])
      for name, array in tensors.items()
    ]
    result[quantity] = float(np.nan_to_num(max(parts, key=_rank), nan=np.inf))
  return result


def _rank(distance: float) -> float:
  return np.inf if np.isnan(distance) else distance


def one_batch(
  model: Mapping[str, Any], size: int, attack: bool
) -> dict[str, float]:
  """Compares the results for one batch in float64, before any update.

  Args:
    model: the network's spec.
    size: side of the images.
    attack: whether to compare input gradients and PGD, too.

  Returns:
    Distances by quantity.
  """
  with jax.enable_x64(True):
    run = setting.build("robust_augmix", model, size)
    views = setting.draw_views(run)
    ours = two_sides.our_forward(run, views)
    theirs = two_sides.their_forward(run, views, torch.float64)
    if attack:
      ours |= two_sides.our_attack(run)
      theirs |= two_sides.their_attack(run, views, torch.float64)
  return between(ours, theirs)


def several_steps(
  method: str, model: Mapping[str, Any], size: int, count: int, **options: Any
) -> dict[str, float]:
  """Compares the states after several steps of a method in float64.

  Args:
    method: name of the method.
    model: the network's spec.
    size: side of the images.
    count: number of steps.
    **options: fields of the config, by their dotted names.

  Returns:
    Distances of parameters, running statistics and momentum.
  """
  with jax.enable_x64(True):
    run = setting.build(method, model, size, **options)
    views = setting.draw_views(run)
    ours = two_sides.our_steps(run, two_sides.our_training(run), count)
    theirs = two_sides.their_steps(run, views, count, torch.float64)
  return between(ours, theirs)


def one_batch_in_float32(
  model: Mapping[str, Any], size: int
) -> dict[str, float]:
  """Compares the results for one batch in float32, before any update.

  Args:
    model: the network's spec.
    size: side of the images.

  Returns:
    Distances by quantity.
  """
  run = setting.build("robust_augmix", model, size)
  views = setting.draw_views(run)
  return between(
    two_sides.our_forward(run, views),
    two_sides.their_forward(run, views, torch.float32),
  )


def rounding(
  method: str, model: Mapping[str, Any], size: int, draws: int
) -> np.ndarray:
  """Measures the error of the first step's momentum in float32.

  If rounding moves an activation across the kink of a ReLU, the gradient
  changes by a thousand times the rounding error. This happens in random draws
  on both sides.

  Args:
    method: name of the method.
    model: the network's spec.
    size: side of the images.
    draws: number of random weights and images.

  Returns:
    [2, draws]: the distances of ram_jax and of PyTorch, both in float32, from
    PyTorch in float64.
  """
  seeds = range(draws)
  runs = [setting.build(method, model, size, seed) for seed in seeds]
  built = two_sides.our_training(runs[0])
  found = []
  for run in runs:
    take = functools.partial(
      two_sides.their_steps, run, setting.draw_views(run), 1
    )
    ours, theirs = two_sides.our_steps(run, built, 1), take(torch.float32)
    truth = take(torch.float64)
    found.append([between(x, truth)["momentum"] for x in (ours, theirs)])
  return np.transpose(found)


def cases() -> Iterator[tuple[str, dict[str, str]]]:
  """Yields every method with every combination of its options."""
  for method, names in OPTIONS_OF.items():
    for values in itertools.product(*(OPTIONS[name] for name in names)):
      yield method, dict(zip(names, values, strict=True))
