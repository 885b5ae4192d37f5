"""Detects implausible epsilons and step sizes in a config."""

import math
from collections.abc import Iterator
from typing import Any

# Above this L-infinity epsilon, a wrong unit is likely, but 0.3 is common for
# MNIST, so this is only a warning.
_LARGE = 0.25


def check(values: dict[str, Any], pixels: float = math.inf) -> list[str]:
  """Rejects attacks that can turn an image into any other image.

  Their epsilon is probably in the wrong unit, for example 8 instead of 8/255.

  Args:
    values: a config's fields by dotted name.
    pixels: number of values in an image, H * W * C, which bounds L2 distances.

  Returns:
    A warning for each unusually large L-infinity epsilon.

  Raises:
    ValueError: naming the fields.
  """
  wrong, found = {}, []
  for name, norm, size in _sizes(values):
    # Largest distance between two images with pixels in [0, 1].
    limit = {"linf": 1.0, "l2": math.sqrt(pixels)}.get(norm, math.inf)
    if limit <= size < math.inf:
      wrong.setdefault((norm, limit), []).append(f"config.{name}")
    elif norm == "linf" and size > _LARGE and "epsilon" in name:
      found.append(
        f"config.{name} reaches {size:.4g} in Linf, {255 * size:.4g} of 255 "
        "pixel levels; 8/255 is typical"
      )
  for (norm, limit), names in wrong.items():
    # A wrong epsilon also makes the step size wrong: name only epsilon.
    names = [n for n in names if "epsilon" in n] or names
    given = [f"{n} is {values[n.removeprefix('config.')]!r}" for n in names]
    raise ValueError(
      f"{' and '.join(given)}, but pixels are in [0, 1], where no two images "
      f"are farther apart than {limit:.4g} in {norm.capitalize()}: give a "
      f"smaller value, such as {'8/255' if norm == 'linf' else '0.5'}"
    )
  return found


def _sizes(values: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
  """Epsilons and step sizes of all attacks: name, norm and largest value."""
  for name, norm in values.items():
    group = name.removesuffix(".norm")
    if name == group or not group.endswith("attack"):
      continue
    sweep = group.removesuffix("attack") + "epsilons"
    fields = f"{group}.epsilon", f"{group}.epsilons", sweep
    for field in (*fields, f"{group}.step_size"):
      given = values.get(field, ())
      given = given if isinstance(given, tuple | list) else (given,)
      if numbers := [size for size in given if isinstance(size, float | int)]:
        yield field, norm, max(numbers)
