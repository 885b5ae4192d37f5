"""Corrupted copies of any test set, generated on the devices."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ram_jax import keys as keys_lib
from ram_jax import parallel
from ram_jax.contracts import Split
from ram_jax.corruptions import EVERY, SETS
from ram_jax.corruptions.corruption import Apply
from ram_jax.data import frost

VERSION = 1  # increased when the same seed gives different images
STREAM = 3  # stream of the seed; 0 to 2: weights, training, evaluation


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
  """Corrupts a test set deterministically.

  The draws for image i are a function of (seed, corruption, severity, i).

  Attributes:
    images: uint8 [N,H,W,3].
    labels: int32 [N].
    seed: seed of the draws.
    frost_folder: folder of the photographs for frost; empty: use those of the
      installed package `imagecorruptions`.
    batch_size: images per batch, over all devices; does not change results.
    only: requested corruptions; empty: all that can be generated.
    set_name: key of `corruptions.SETS`.
  """

  images: np.ndarray
  labels: np.ndarray
  seed: int
  frost_folder: str
  batch_size: int
  only: tuple[str, ...] = ()
  set_name: str = "cifar_c"
  _prepared: set[tuple[str, int]] = dataclasses.field(
    default_factory=set, init=False
  )

  @property
  def label(self) -> str:
    """Name for tables."""
    return label(self.seed, self.set_name)

  def names(self) -> tuple[str, ...]:
    """The requested corruptions, or all that can be generated.

    Returns:
      Names of corruptions, in the order of the set.

    Raises:
      ValueError: a requested one cannot be generated.
    """
    if "frost" in self.only:
      _ = self.photographs
    known, absent = SETS[self.set_name], self.missing()
    requested = self.only or known
    return tuple(n for n in known if n in requested and n not in absent)

  def check(self, images: np.ndarray, labels: np.ndarray) -> None:
    """Checks that the requested corruptions can be generated; see `names`."""
    del images, labels
    self.names()

  def missing(self) -> dict[str, str]:
    """Reasons for missing corruptions by name; empty if `only` is set."""
    if not self.only and "frost" in SETS[self.set_name]:
      try:
        _ = self.photographs
      except ValueError as error:
        return {"frost": str(error)}
    return {}

  @functools.cached_property
  def photographs(self) -> tuple[np.ndarray, ...]:
    """The photographs for frost; ValueError if they are not available."""
    return frost.load(self.frost_folder, max(self.images.shape[1:3]))

  def load(self, corruption: str, severity: int) -> Split:
    """Generates one corruption at one severity.

    Args:
      corruption: one of `names()`.
      severity: 1 to 5.

    Returns:
      Images uint8 [N,H,W,3] and labels int32 [N], in the test set's order.

    Raises:
      ValueError: it cannot be generated.
    """
    make, arguments = self._call(corruption, severity)
    return make(*arguments), self.labels

  def prepare(self, corruption: str, severity: int) -> None:
    """Starts compiling the program of `load` in a thread, if not done already.

    Args:
      corruption: one of `names()`.
      severity: 1 to 5.
    """
    # Computing the parameters may be slow.
    if (corruption, severity) not in self._prepared:
      self._prepared.add((corruption, severity))
      make, arguments = self._call(corruption, severity)
      make.prepare(*arguments)

  def _call(
    self, corruption: str, severity: int
  ) -> tuple[Callable, tuple[Any, ...]]:
    """The function that generates images, and its arguments."""
    assets = self.photographs if corruption == "frost" else None
    key = jax.random.fold_in(jax.random.key(self.seed), STREAM)
    first = 100 * list(SETS).index(self.set_name)
    position = first + SETS[self.set_name].index(corruption)
    for number in (position, severity):
      key = jax.random.fold_in(key, number)
    found = EVERY[corruption]
    parameters = found.parameters(severity, self.images.shape[1:], assets)
    shared = parallel.replicate((key, parameters))
    batch = {"images": self.images}
    return _program(found.apply), (shared, batch, self.batch_size)


def label(seed: int, set_name: str) -> str:
  """The name, in tables, of images that were generated with a seed."""
  bar = "as in C-bar " if set_name == "cifar_c_bar" else ""
  return f"test images corrupted {bar}by ram_jax, seed {seed}"


@functools.cache
def _program(apply: Apply) -> Callable:
  """The program of a corruption.

  It is compiled once for all severities whose parameters have the same
  structure, shapes, types and constants.
  """

  @parallel.per_example
  def corrupted(
    shared: tuple[jax.Array, Any],
    positions: jax.Array,
    batch: dict[str, jax.Array],
  ) -> jax.Array:
    key, parameters = shared
    keys = keys_lib.per_example(key, positions)
    made = jax.vmap(apply, (0, 0, None))(keys, batch["images"], parameters)
    return made.astype(np.uint8)

  return corrupted
