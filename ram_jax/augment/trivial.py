"""TrivialAugment Wide (Müller and Hutter, ICCV 2021): one random operation."""

import dataclasses

import jax

from ram_jax.augment import augmix


@dataclasses.dataclass(frozen=True)
class Augment:
  """One of 14 operations with one of 31 magnitudes, all equally likely."""

  @jax.named_scope("augment")
  def __call__(self, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Augments a batch; example i only depends on keys[i] and images[i].

    Args:
      keys: typed keys [B].
      images: floats [B,H,W,C] in [0,1], C = 1 or 3; they are first rounded to
        256 levels.

    Returns:
      Images [B,H,W,C], rounded to 256 levels.
    """
    chain = augmix.Augment(operations=14, width=1, depth=1)
    return chain.chains(keys, images)[:, 0]
