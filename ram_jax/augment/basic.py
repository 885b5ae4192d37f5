"""Random horizontal flips and crops, the usual CIFAR augmentation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from ram_jax import checks


@dataclasses.dataclass(frozen=True)
class Augment:
  """Flips with probability 1/2, then crops from the zero-padded image.

  Like torchvision's RandomHorizontalFlip and RandomCrop(size, padding). Pixel
  values of any type are preserved exactly.

  Attributes:
    flip: whether to flip; turn this off for digits and text.
    padding: width of the zero padding on each side; 0: no crop.

  Raises:
    ValueError: at construction, if padding is not an integer or is negative.
  """

  flip: bool = True
  padding: int = 4

  def __post_init__(self) -> None:
    checks.check(vars(self), padding=checks.integer(0))

  @jax.named_scope("augment")
  def __call__(self, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Augments a batch; example i only depends on keys[i] and images[i].

    Args:
      keys: typed keys [B].
      images: [B,H,W,C], any type.

    Returns:
      Images of the same shape and type.
    """
    return jax.vmap(self._augment)(keys, images)

  def _augment(self, key: jax.Array, image: jax.Array) -> jax.Array:
    """Flips and crops one image."""
    flip_key, crop_key = jax.random.split(key)
    if self.flip:
      flipped = jax.random.bernoulli(flip_key)
      image = jnp.where(flipped, image[:, ::-1], image)
    border = ((self.padding,) * 2, (self.padding,) * 2, (0, 0))
    corner = jax.random.randint(
      crop_key, (2,), 0, 2 * self.padding + 1, jnp.int32
    )
    return crop(jnp.pad(image, border), corner, image.shape)


def crop(
  image: jax.Array, corner: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  """The part of an image with this shape and upper-left corner."""
  return jax.lax.platform_dependent(
    image,
    corner,
    tpu=functools.partial(crop_by_select, shape),
    default=functools.partial(crop_by_slice, shape),
  )


def crop_by_slice(
  shape: tuple[int, ...], image: jax.Array, corner: jax.Array
) -> jax.Array:
  """`crop` for platforms other than TPUs."""
  first = jnp.zeros_like(corner[0])  # has the same type, even under x64
  return jax.lax.dynamic_slice(image, (*corner, first), shape)


def crop_by_select(
  shape: tuple[int, ...], image: jax.Array, corner: jax.Array
) -> jax.Array:
  """`crop` for TPUs, where a batch of slices would be a slow gather."""
  for axis in (0, 1):
    length = shape[axis]
    slices = [
      jax.lax.slice_in_dim(image, first, first + length, axis=axis)
      for first in range(image.shape[axis] - length + 1)
    ]
    image = jax.lax.select_n(corner[axis], *slices)
  return image
