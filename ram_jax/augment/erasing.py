"""Random erasing (Zhong et al., AAAI 2020), after another augmentation."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from ram_jax import checks
from ram_jax.augment.cutout import Filling

# torchvision draws up to ten rectangles until one fits.
TRIES = 10


@dataclasses.dataclass(frozen=True)
class Augment(Filling):
  """Fills a random rectangle with one value, like torchvision's RandomErasing.

  Attributes:
    probability: probability of erasing, for each image.
    area: smallest and largest fraction of the image's area.
    ratio: smallest and largest height / width; its logarithm is uniform.
    value: value of the erased pixels, in [0,1]. torchvision fills normalized
      images with 0, which is the mean color.

  Raises:
    ValueError: at construction, on a value outside its range.
  """

  probability: float = 0.5
  area: tuple[float, float] = (0.02, 0.33)
  ratio: tuple[float, float] = (0.3, 3.3)
  value: float = 0.5

  def __post_init__(self) -> None:
    checks.check(
      vars(self),
      probability=checks.FRACTION,
      value=checks.FRACTION,
      area=(
        "(min, max), with 0 < min <= max <= 1",
        lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1,
      ),
      ratio=(
        "(min, max), with 0 < min <= max",
        lambda v: len(v) == 2 and 0 < v[0] <= v[1],
      ),
    )

  def mask(self, key: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The erased pixels of one image, bool [H,W]."""
    keys = jax.random.split(key, 4)
    chosen = jax.random.bernoulli(keys[0], self.probability)
    logs = (math.log(x) for x in self.ratio)
    area = jax.random.uniform(keys[1], (TRIES,), float, *self.area)
    ratio = jnp.exp(jax.random.uniform(keys[2], (TRIES,), float, *logs))
    total = size[0] * size[1]
    height = jnp.round(jnp.sqrt(total * area * ratio))
    width = jnp.round(jnp.sqrt(total * area / ratio))
    fits = (height < size[0]) & (width < size[1])
    first = jnp.argmax(fits)
    lengths = jnp.stack([height, width], axis=1)[first]
    corner = jax.random.uniform(keys[3], (2,))
    corner = jnp.floor(corner * (jnp.asarray(size) - lengths + 1))
    inside = [
      (jnp.arange(n) >= corner[i]) & (jnp.arange(n) < corner[i] + lengths[i])
      for i, n in enumerate(size)
    ]
    return chosen & fits.any() & inside[0][:, None] & inside[1]
