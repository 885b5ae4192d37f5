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

  Used where the compiler would round differently if it were an argument.
  """

  value: float


# (severity, shape [H,W,C] of the image, assets) -> pytree of numbers and
# arrays. One program is compiled for all severities whose parameters have the
# same structure, shapes, types and constants.
Parameters = Callable[[int, Sequence[int], Any], Any]
# (key, image, parameters) -> image: floats [H,W,C] in [0,1], multiples of
# 1/255, before and after.
Apply = Callable[[jax.Array, jax.Array, Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class Corruption:
  """A corruption at any severity.

  Attributes:
    name: name of its file.
    parameters: returns the parameters of a severity; only frost uses assets.
    apply: corrupts an image.
  """

  name: str
  parameters: Parameters
  apply: Apply

  def __call__(
    self, key: jax.Array, image: jax.Array, severity: int, assets: Any = None
  ) -> jax.Array:
    """Corrupts an image."""
    check_severity(severity)
    parameters = self.parameters(severity, image.shape, assets)
    return self.apply(key, image, parameters)


def corruption(
  parameters: Parameters | tuple[Any, ...],
) -> Callable[[Apply], Corruption]:
  """Turns a function that corrupts an image into a `Corruption`.

  Args:
    parameters: a function, or the parameters of severities 1 to 5.

  Returns:
    The decorator.
  """

  def row(severity: int, *unused: Any) -> Any:
    del unused
    return parameters[severity - 1]

  found = parameters if callable(parameters) else row
  return lambda apply: Corruption(apply.__name__, found, apply)


def check_severity(severity: int) -> None:
  """Rejects severities that do not exist.

  Args:
    severity: a number.

  Raises:
    ValueError: unless it is 1 to 5.
  """
  if severity not in SEVERITIES:
    raise ValueError(f"severity {severity} is unknown: choose from 1..5")
