"""Cutout (DeVries and Taylor, arXiv 1708.04552), after another augmentation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ram_jax import checks


@dataclasses.dataclass(frozen=True)
class Filling:
  """Fills the pixels that a subclass's `mask` selects with its `value`.

  Attributes:
    augment: applied first.
  """

  augment: Any

  @jax.named_scope("augment")
  def __call__(self, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Augments a batch; example i only depends on keys[i] and images[i].

    Args:
      keys: typed keys [B].
      images: floats [B,H,W,3] in [0,1].

    Returns:
      Images [B,H,W,3] in [0,1].
    """
    pairs = jax.vmap(jax.random.split)(keys)
    images = self.augment(pairs[:, 0], images)
    filled = jax.vmap(lambda key: self.mask(key, images.shape[1:3]))(
      pairs[:, 1]
    )
    return jnp.where(
      filled[..., None], jnp.asarray(self.value, images.dtype), images
    )


@dataclasses.dataclass(frozen=True)
class Augment(Filling):
  """Fills a square with a color; the square may extend beyond the image.

  The center of the square is a uniformly random pixel, as in util/cutout.py of
  the authors' code.

  Attributes:
    length: side of the square in pixels, even; the authors use 16 for CIFAR-10
      and 8 for CIFAR-100.
    value: color of the square, in [0,1]. The authors fill normalized images
      with 0, which is the mean color of the data.

  Raises:
    ValueError: at construction, on a value outside its range.
  """

  length: int = 16
  value: tuple[float, ...] = (0.4914, 0.4822, 0.4465)

  def __post_init__(self) -> None:
    checks.check(
      vars(self),
      length=("an even number above 0", lambda v: v >= 2 and v % 2 == 0),
      value=(
        "three numbers in [0,1]",
        lambda v: len(v) == 3 and all(0 <= x <= 1 for x in v),
      ),
    )

  def mask(self, key: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The pixels of the square, bool [H,W]."""
    return box(center(key, size), self.length, size)


def center(key: jax.Array, size: tuple[int, int]) -> jax.Array:
  """A uniformly random pixel, int32 [2]."""
  return jax.random.randint(key, (2,), 0, jnp.asarray(size), jnp.int32)


def box(
  middle: jax.Array, lengths: jax.Array | int, size: tuple[int, int]
) -> jax.Array:
  """The pixels of a rectangle that are inside the image.

  Args:
    middle: its center, integers [2].
    lengths: height and width, integers [2], or one integer for both. An odd
      length is reduced by one, as in the code of Cutout and CutMix.
    size: (H, W) of the image.

  Returns:
    Booleans [H,W].
  """
  half = jnp.broadcast_to(lengths, (2,)) // 2
  rows, columns = (
    (jnp.arange(n) >= middle[i] - half[i])
    & (jnp.arange(n) < middle[i] + half[i])
    for i, n in enumerate(size)
  )
  return rows[:, None] & columns
