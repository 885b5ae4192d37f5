"""PixMix (Hendrycks et al., CVPR 2022): mixes images with other pictures."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ram_jax import checks
from ram_jax import keys as keys_lib
from ram_jax.augment import augmix, basic
from ram_jax.image import color

# Lower bound on the base of the partner's power in a product, as in the
# authors' code.
SMALL = 1e-37


class Draw(NamedTuple):
  """The random choices for one image.

  Attributes:
    index: index of the picture.
    corner: upper-left corner of the picture's crop, integers [2].
    count: number of rounds, from 0 to `rounds`.
    augmented: whether the initial image, and the partner in each round, is an
      augmented copy of the image; bool [1 + rounds].
    multiply: whether a round multiplies instead of adding, bool [rounds].
    first: coefficients or exponents of the mixed image, floats [rounds].
    second: those of the partner, floats [rounds].
  """

  index: jax.Array
  corner: jax.Array
  count: jax.Array
  augmented: jax.Array
  multiply: jax.Array
  first: jax.Array
  second: jax.Array


@dataclasses.dataclass(frozen=True)
class Augment:
  """Combines an image with a picture or augmented copies of itself.

  They are added or multiplied, as in `pixmix` in the authors' cifar.py, which
  has the same defaults. An augmented copy is the result of one of AugMix's
  operations.

  Attributes:
    pictures: the mixing set, with `load((H, W)) -> uint8 [M,h,w,3]`, h >= H and
      w >= W. The pictures are part of the compiled program.
    augment: applied first; None for no augmentation.
    rounds: maximum number of rounds (k).
    beta: parameter of the distribution of the coefficients; with larger values,
      the image changes less.
    severity: strength of the operations, from 1 to 10.
    operations: 9, 13 or 14, as in `augmix.Augment`.

  Raises:
    ValueError: at construction, on a value outside its range.
  """

  pictures: Any
  augment: Any = None
  rounds: int = 4
  beta: float = 3.0
  severity: int = 3
  operations: int = 9

  def __post_init__(self) -> None:
    checks.check(vars(self), rounds=checks.integer(1), beta=checks.POSITIVE)
    self._copies()  # checks the other fields

  @jax.named_scope("augment")
  def __call__(self, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Augments a batch; example i only depends on keys[i] and images[i].

    Args:
      keys: typed keys [B].
      images: floats [B,H,W,3] in [0,1]; the operations round them to 8-bit
        levels.

    Returns:
      Images [B,H,W,3] in [0,1], not rounded.

    Raises:
      ValueError: for images that are larger than the pictures.
    """
    first, copy_keys, draw_keys = keys_lib.split(keys, 3)
    if self.augment is not None:
      images = self.augment(first, images)
    size = images.shape[1:3]
    pictures = self.pictures.load(size)
    copies = self._copies().chains(copy_keys, images)
    draws = jax.vmap(lambda key: self.draw(key, pictures.shape, size))(
      draw_keys
    )
    rows = jnp.asarray(pictures.reshape(len(pictures), -1))[draws.index]
    found = jax.vmap(lambda x, corner: basic.crop(x, corner, images.shape[1:]))(
      rows.reshape(-1, *pictures.shape[1:]), draws.corner
    )
    found = color.dequantize(found, images.dtype)
    return jax.vmap(self.mix)(draws, images, copies, found)

  def _copies(self) -> augmix.Augment:
    """AugMix with chains of one operation each: the augmented copies."""
    return augmix.Augment(
      operations=self.operations,
      severity=self.severity,
      width=1 + self.rounds,
      depth=1,
    )

  def draw(
    self, key: jax.Array, shape: tuple[int, ...], size: tuple[int, int]
  ) -> Draw:
    """Draws the choices for one image.

    Args:
      key: a typed key.
      shape: [M,h,w,3] of the pictures.
      size: (H, W) of the image.

    Returns:
      The choices.
    """
    keys = jax.random.split(key, 7)
    rounds = (self.rounds,)
    free = jnp.asarray(
      [n - m + 1 for n, m in zip(shape[1:], size, strict=False)]
    )
    # Beta(beta, 1); subtracted from 1, Beta(1, beta).
    powers = jax.random.uniform(keys[0], (2, *rounds)) ** (1 / self.beta)
    negative = jax.random.bernoulli(keys[1], shape=rounds)
    return Draw(
      index=jax.random.randint(keys[2], (), 0, shape[0], jnp.int32),
      corner=jax.random.randint(keys[3], (2,), 0, free, jnp.int32),
      count=jax.random.randint(keys[4], (), 0, self.rounds + 1, jnp.int32),
      augmented=jax.random.bernoulli(keys[5], shape=(1 + self.rounds,)),
      multiply=jax.random.bernoulli(keys[6], shape=rounds),
      first=jnp.where(negative, 2 - powers[0], powers[0]),
      second=jnp.where(negative, powers[1] - 1, 1 - powers[1]),
    )

  def mix(
    self, draw: Draw, image: jax.Array, copies: jax.Array, picture: jax.Array
  ) -> jax.Array:
    """Mixes one image.

    Args:
      draw: the choices.
      image: floats [H,W,3] in [0,1].
      copies: augmented copies, floats [1+rounds,H,W,3] in [0,1].
      picture: floats [H,W,3] in [0,1].

    Returns:
      Floats [H,W,3] in [0,1].
    """
    mixed = jnp.where(draw.augmented[0], copies[0], image)
    for i in range(self.rounds):
      other = jnp.where(draw.augmented[i + 1], copies[i + 1], picture)
      a, b = (x[i].astype(image.dtype) for x in (draw.first, draw.second))
      total = (a * (2 * mixed - 1) + b * (2 * other - 1) + 1) / 2
      product = (2 * mixed) ** a * jnp.maximum(2 * other, SMALL) ** b / 2
      found = jnp.clip(jnp.where(draw.multiply[i], product, total), 0, 1)
      mixed = jnp.where(i < draw.count, found, mixed)
    return mixed
