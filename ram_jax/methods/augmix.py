"""AugMix with the Jensen-Shannon consistency loss (paper, eq. 2)."""

import dataclasses
from typing import ClassVar

import jax

from ram_jax import keys as keys_lib
from ram_jax.augment.augmix import Augment
from ram_jax.contracts import Arrays, Model, Viewed
from ram_jax.methods import consistency


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(consistency.Consistency):
  """CE(clean) + weight * JSD(clean, AugMix, AugMix).

  Attributes:
    augment: draws the augmented views.
  """

  augment: Augment

  label: ClassVar[str] = "AugMix"

  def views(self, keys: jax.Array, batch: Arrays, model: Model) -> Viewed:
    """Clean images and two independent AugMix views of them."""
    del model
    images = batch["images"]
    first, second = keys_lib.split(keys)
    views = (
      ("clean", images),
      ("augmix_1", self.augment(first, images)),
      ("augmix_2", self.augment(second, images)),
    )
    return views, batch["labels"]
