"""A corruption and the parameters of its severities.

Parameters are arguments of the compiled program, so severities can share it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

SEVERITIES = (1, 2, 3, 4, 5)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Constant:
  """A parameter that is compiled into the program.

  Used where the compiler would round differently if the value were an argument.
  """

  value: float


# (row of a severity, shape [H,W,C] of the image, assets) -> pytree of numbers
# and arrays. One program is compiled for all severities whose parameters have
# the same structure, shapes, types and constants.
Prepare = Callable[[Any, Sequence[int], Any], Any]
# (key, levels, parameters) -> levels: takes uint8 [H,W,C], returns integers of
# any type in 0..255, with the same shape. Some corruptions do not use the key.
Apply = Callable[[jax.Array, jax.Array, Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class Corruption:
  """A corruption at any severity.

  Attributes:
    name: its name, as in the file names of CIFAR-10-C or CIFAR-10-C-bar.
    rows: one row per severity, from which `prepare` makes the parameters.
    prepare: returns the parameters of a row; only frost uses assets.
    apply: corrupts an image of integer levels.
  """

  name: str
  rows: Sequence[Any]
  prepare: Prepare
  apply: Apply

  def parameters(
    self, severity: int, shape: Sequence[int], assets: Any = None
  ) -> Any:
    """The parameters of a severity, 1 to 5, for images of a shape [H,W,C]."""
    return self.prepare(self.rows[severity - 1], shape, assets)


def corruption(
  rows: Sequence[Any], prepare: Prepare = lambda row, *_: row
) -> Callable[[Apply], Corruption]:
  """Turns a function that corrupts an image into a `Corruption`.

  Args:
    rows: what distinguishes severities 1 to 5.
    prepare: makes the function's parameters from a row; by default, they are
      the row.

  Returns:
    The decorator.
  """
  return lambda apply: Corruption(apply.__name__, rows, prepare, apply)
