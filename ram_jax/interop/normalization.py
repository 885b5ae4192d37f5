"""What a network does to pixels first, as its file states it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Mean and standard deviation of pixels in [0, 1], per channel.
Normalization = tuple[tuple[float, ...], tuple[float, ...]]
# Choices of config.normalization.preset: what code bases train with.
PRESETS: dict[str, Normalization] = {
  # google-research/augmix, cifar.py
  "augmix": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
  # martinez-hub/robustaugmix, attacks/pgd.py: the statistics of CIFAR-10
  "author": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
  # kuangliu/pytorch-cifar and the many that follow it
  "common": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
  # RobustBench: most of its networks take pixels as they are
  "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
ALLOWED = (
  "mean in [0, 1], std above 0 and at most 1, as pixels are in [0, 1] "
  "(divide numbers of the 0-255 scale by 255)"
)
# Last parts of the names of a network's constants: RobustBench's, MadryLab's.
MEANS, STDS = ("mean", "mu", "new_mean"), ("std", "sigma", "new_std")


def allowed(mean: Sequence[Any], std: Sequence[Any]) -> bool:
  """Whether these are constants of three channels for pixels in [0, 1].

  Args:
    mean: anything.
    std: anything.
  """
  return (
    all(isinstance(x, int | float) for x in (*mean, *std))
    and len(mean) == len(std) == 3
    and all(0 <= x <= 1 for x in mean)  # false for NaN
    and all(0 < x <= 1 for x in std)
  )


def shown(mean: Sequence[float], std: Sequence[float]) -> str:
  """Returns mean and standard deviation in words."""
  return f"mean {_numbers(mean)} and std {_numbers(std)}"


def choices() -> str:
  """Returns the ways to give a normalization, in words."""
  presets = "; ".join(f"{n}: {shown(*x)}" for n, x in PRESETS.items())
  return (
    f"give --config.normalization.preset=NAME ({presets}), or "
    "--config.normalization.mean and --config.normalization.std"
  )


def stated(arrays: Mapping[str, Any]) -> tuple[Normalization | None, str]:
  """Reads the normalization that constants state.

  Args:
    arrays: of a network, by name.

  Returns:
    The normalization, and what states it; or None, and what there is in its
    place. Both are words to follow the file's name.
  """
  if not arrays:
    return None, "does not say how its network normalizes pixels"
  names = ", ".join(arrays)
  bad = [f"{n} {list(np.shape(x))}" for n, x in arrays.items() if not _fits(x)]
  if bad:
    return None, (
      f"has {', '.join(bad)}, neither one number nor one for each of three "
      "channels"
    )
  means, stds = (
    {
      tuple(map(float, np.broadcast_to(array.ravel(), 3)))
      for name, array in arrays.items()
      if name.split(".")[-1] in last
    }
    for last in (MEANS, STDS)
  )
  if not means or not stds:
    lacks = "standard deviation" if means else "mean"
    return None, f"has {names} and no {lacks} beside it"
  if len(means) > 1 or len(stds) > 1:
    return None, f"has more than one normalization ({names})"
  found = *means, *stds
  if not allowed(*found):
    return None, f"has {shown(*found)} ({names}): it takes {ALLOWED}"
  return found, f"states {shown(*found)} ({names})"


def _fits(array: Any) -> bool:
  """One number, or one for each channel, whatever the shape around it."""
  numbers = isinstance(array, np.ndarray) and array.dtype.kind in "fiu"
  return numbers and array.size in (1, 3)


def _numbers(values: Sequence[float]) -> str:
  return ", ".join(f"{x:.4g}" for x in values)
