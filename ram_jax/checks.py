"""Rules for the values of fields, and the function that checks them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

# The allowed values in words, and as a predicate. NaN fails every comparison.
Rule = tuple[str, Callable[[Any], bool]]

SIZE: Rule = "a finite number, at least 0", lambda v: 0 <= v < math.inf
POSITIVE: Rule = "a finite number above 0", lambda v: 0 < v < math.inf
FRACTION: Rule = "a number from 0 to 1", lambda v: 0 <= v <= 1
BELOW_1: Rule = "a number in [0, 1)", lambda v: 0 <= v < 1


def integer(least: int) -> Rule:
  """Integers of at least `least`."""
  words = f"an integer, at least {least}"
  return words, lambda v: type(v) is int and v >= least


def one_of(*allowed: Any) -> Rule:
  """Only the given values."""
  return " or ".join(map(str, allowed)), lambda v: v in allowed


def check(values: Mapping[str, Any], where: str = "", **rules: Rule) -> None:
  """Rejects values that their rules do not allow.

  Args:
    values: the values by name, such as the fields of a dataclass.
    where: text before the name in the message.
    **rules: the rules by name.

  Raises:
    ValueError: with the first such value, and what is allowed.
  """
  for name, (allowed, is_allowed) in rules.items():
    try:
      good = is_allowed(values[name])
    except (TypeError, ValueError):  # of another type or structure
      good = False
    if not good:
      raise ValueError(f"{where}{name} is {values[name]!r}: give {allowed}")
