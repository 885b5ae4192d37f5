"""Adds random plane waves to images (Fourier-basis functions).

`planar` is the augmentation of AFA (Vaish et al., CVPR 2024): each channel has
its own wave of random frequency, direction and strength. `lattice` is that of
Soklaski et al. (arXiv 2202.12412): one wave with an integer number of cycles
along each axis, random phase and fixed strength, and a random sign in each
channel.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from ram_jax import checks


@dataclasses.dataclass(frozen=True)
class Augment:
  """Adds a plane wave to each channel, and clips the result to [0,1].

  Attributes:
    kind: `planar` or `lattice`.
    low: lowest frequency in cycles per image, at least 1.
    high: highest frequency. AFA uses the size of the image; the default only
      allows low frequencies, which matter for robustness to contrast and fog.
    strength: L2 norm of the wave in a channel, for 32x32 images: the mean of an
      exponential distribution (`planar`), or fixed (`lattice`).

  Raises:
    ValueError: at construction, on a value outside its range.
  """

  kind: str = "planar"
  low: int = 1
  high: int = 3
  strength: float = 5.0

  def __post_init__(self) -> None:
    checks.check(
      vars(self),
      kind=checks.one_of("planar", "lattice"),
      low=checks.integer(1),
      high=checks.integer(self.low),
      strength=checks.POSITIVE,
    )

  @jax.named_scope("augment")
  def __call__(self, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Augments a batch; example i only depends on keys[i] and images[i].

    Args:
      keys: typed keys [B].
      images: floats [B,H,W,C] in [0,1], H = W.

    Returns:
      Images [B,H,W,C] in [0,1].

    Raises:
      ValueError: for images that are not square.
    """
    _, height, width, channels = images.shape
    if height != width:
      raise ValueError(f"images have {height}x{width} pixels; give square ones")
    draw = self._planar if self.kind == "planar" else self._lattice

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
      waves = draw(key, width, channels) * (self.strength * width / 32)
      return jnp.clip(image + waves.astype(image.dtype), 0, 1)

    return jax.vmap(one)(keys, images)

  def _planar(self, key: jax.Array, size: int, channels: int) -> jax.Array:
    """Waves [H,W,C] with exponentially distributed norms of mean 1."""
    keys = jax.random.split(key, 3)
    frequency = self._cycles(keys[0], (channels,))
    angle = jax.random.uniform(keys[1], (channels,), maxval=math.pi)
    norm = jax.random.exponential(keys[2], (channels,))
    return norm * planar_wave(frequency, angle, size)

  def _lattice(self, key: jax.Array, size: int, channels: int) -> jax.Array:
    """Waves [H,W,C] of norm 1, equal up to their signs."""
    keys = jax.random.split(key, 4)
    rows, columns = self._cycles(keys[0], (2,))
    # Otherwise, the crests of all waves would slope in the same direction.
    rows *= jax.random.rademacher(keys[1], (), jnp.int32)
    phase = jax.random.uniform(keys[2], ())
    place = jnp.arange(size) / size
    turns = rows * place[:, None] + columns * place + phase
    wave = jnp.cos(2 * jnp.pi * turns)
    signs = jax.random.rademacher(keys[3], (channels,))
    return signs * (wave / jnp.linalg.norm(wave))[..., None]

  def _cycles(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.randint(key, shape, self.low, self.high + 1)


def planar_wave(frequency: jax.Array, angle: jax.Array, size: int) -> jax.Array:
  """Plane waves of unit norm, with the grid and the phase of AFA's code.

  Args:
    frequency: cycles per image [C].
    angle: direction [C], in radians from the vertical axis.
    size: height and width in pixels.

  Returns:
    Waves [size,size,C].
  """
  place = jnp.linspace(-size / 2, size / 2, size)[:, None]
  down, right = place[:, None] * jnp.cos(angle), place * jnp.sin(angle)
  wave = jnp.sin(2 * jnp.pi * frequency / size * (down + right) - jnp.pi / 4)
  return wave / jnp.linalg.norm(wave, axis=(0, 1))
