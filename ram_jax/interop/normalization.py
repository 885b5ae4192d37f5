"""The input normalization of a network, as stated in its file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Mean and standard deviation of pixels in [0, 1], per channel.
Normalization = tuple[tuple[float, ...], tuple[float, ...]]
# Choices of config.normalization.preset, with the code that uses them.
PRESETS: dict[str, Normalization] = {
  # google-research/augmix, cifar.py
  "augmix": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
  # martinez-hub/robustaugmix, attacks/pgd.py: the statistics of CIFAR-10
  "author": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
  # kuangliu/pytorch-cifar and many others
  "common": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
  # RobustBench: many of its networks do not normalize pixels
  "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
ALLOWED = (
  "mean in [0, 1], std above 0 and at most 1, because pixels are in [0, 1] "
  "(divide numbers on the 0-255 scale by 255)"
)
# Last components of the names of normalization constants in the networks of
# RobustBench and MadryLab.
MEANS, STDS = ("mean", "mu", "new_mean"), ("std", "sigma", "new_std")


def allowed(mean: Sequence[Any], std: Sequence[Any]) -> bool:
  """Whether these are constants of three channels for pixels in [0, 1].

  Args:
    mean: any sequence.
    std: any sequence.
  """
  return (
    all(isinstance(x, int | float) for x in (*mean, *std))
    and len(mean) == len(std) == 3
    and all(0 <= x <= 1 for x in mean)  # false for NaN
    and all(0 < x <= 1 for x in std)
  )


def shown(mean: Sequence[float], std: Sequence[float]) -> str:
  """Formats mean and standard deviation for messages."""
  return f"mean {_numbers(mean)} and std {_numbers(std)}"


def choices() -> str:
  """Describes the ways to specify a normalization, for messages."""
  presets = "; ".join(f"{n}: {shown(*x)}" for n, x in PRESETS.items())
  return (
    f"give --config.normalization.preset=NAME ({presets}), or "
    "--config.normalization.mean and --config.normalization.std"
  )


def stated(arrays: Mapping[str, Any]) -> tuple[Normalization | None, str]:
  """Reads the normalization from a network's constants.

  Args:
    arrays: constants of a network, by name.

  Returns:
    The normalization, or None; and a description of it, or of what was found
    instead, worded to follow the file's name in a sentence.
  """
  if not arrays:
    return None, "does not say how its network normalizes pixels"
  names = ", ".join(arrays)
  means, stds = (
    {_values(x) for n, x in arrays.items() if n.split(".")[-1] in last}
    for last in (MEANS, STDS)
  )
  if len(means) == len(stds) == 1 and allowed(*means, *stds):
    return (*means, *stds), f"states {shown(*means, *stds)} ({names})"
  found = [f"{n} {_numbers(_values(x))}" for n, x in arrays.items()]
  return None, (
    f"has {'; '.join(found)}: it needs one mean and one std, with one or three "
    f"numbers each, {ALLOWED}"
  )


def _values(array: Any) -> tuple[float, ...]:
  """The values of an array; a single one is repeated for three channels."""
  if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
    return ()
  values = tuple(map(float, array.flat[:5]))  # more are invalid anyway
  return values * 3 if len(values) == 1 else values


def _numbers(values: Sequence[float]) -> str:
  more = ", ..." if len(values) > 4 else ""
  return ", ".join(f"{x:.4g}" for x in values[:4]) + more
