"""MixUp (arXiv 1710.09412) and CutMix (arXiv 1905.04899): mixed image pairs."""

import dataclasses

import jax
import jax.numpy as jnp

from ram_jax.augment import cutout

NAMES = ("mixup", "cutmix")


@dataclasses.dataclass(frozen=True)
class Mixing:
  """Mixes images, and their targets, with those of partners.

  Each pair has its own weight, as in the equations of both papers; the authors'
  code draws one per batch.

  Attributes:
    name: `mixup`, or `cutmix`, which copies a rectangle of the partner.
    alpha: the weight has the distribution Beta(alpha, alpha).
    probability: probability that an image is mixed.
  """

  name: str
  alpha: float = 1.0
  probability: float = 1.0

  @jax.named_scope("augment")
  def __call__(
    self,
    keys: jax.Array,
    batch: tuple[jax.Array, jax.Array],
    partners: tuple[jax.Array, jax.Array],
  ) -> tuple[jax.Array, jax.Array]:
    """Mixes a batch; pair i only depends on keys[i] and row i of the arrays.

    Args:
      keys: typed keys [B].
      batch: images [B,H,W,C] and probabilities of their classes [B,K].
      partners: the same for the images that they are mixed with.

    Returns:
      Mixed images and probabilities.
    """
    size = batch[0].shape[1:3]
    weights = jax.vmap(lambda key: self.weights(*self.draw(key, size), size))(
      keys
    )
    return mix(weights, batch, partners)

  def draw(
    self, key: jax.Array, size: tuple[int, int]
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The weight of an image, the center of a rectangle, and whether to mix."""
    keys = jax.random.split(key, 3)
    share = jax.random.beta(keys[0], self.alpha, self.alpha)
    chosen = jax.random.bernoulli(keys[2], self.probability)
    return share, cutout.center(keys[1], size), chosen

  def weights(
    self,
    share: jax.Array,
    middle: jax.Array,
    chosen: jax.Array,
    size: tuple[int, int],
  ) -> jax.Array:
    """Weight of the pixels of an image.

    Args:
      share: weight of the image, in [0,1]; for CutMix, before the rectangle is
        rounded to pixels and clipped.
      middle: center of CutMix's rectangle, integers [2].
      chosen: whether the image is mixed.
      size: (H, W).

    Returns:
      Floats [H,W] in [0,1].
    """
    found = jnp.full(size, share)
    if self.name == "cutmix":
      lengths = jnp.floor(jnp.sqrt(1 - share) * jnp.asarray(size))
      inside = cutout.box(middle, lengths.astype(jnp.int32), size)
      found = 1 - inside.astype(found.dtype)
    return jnp.where(chosen, found, 1)


def mix(
  weights: jax.Array,
  batch: tuple[jax.Array, jax.Array],
  partners: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
  """Weighted means of images and targets.

  Args:
    weights: of the pixels of `batch`, floats [B,H,W].
    batch: images [B,H,W,C] and targets [B,K].
    partners: the same for the images that they are mixed with.

  Returns:
    Mixed images, and targets mixed according to the mean weight of the pixels.
  """

  def mean(one: jax.Array, other: jax.Array, weight: jax.Array) -> jax.Array:
    return (weight * one + (1 - weight) * other).astype(one.dtype)

  shares = jnp.mean(weights, axis=(1, 2))[:, None]
  of_each = weights[..., None], shares
  images, targets = map(mean, batch, partners, of_each)
  return images, targets
