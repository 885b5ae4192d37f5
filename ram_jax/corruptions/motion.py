"""ImageMagick 6's motion blur, as used by CIFAR-10-C."""

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.corruptions.corruption import corruption

# Radius and standard deviation, in pixels, for severities 1 to 5.
_PARAMETERS = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
# Fractional bits of a weight. The weights sum to 1, so 255 times their sum fits
# in 31 bits.
_WEIGHT_BITS = 23
# ImageMagick rounds to 16 bits (257 steps per level), then truncates to levels.
_HALF_A_STEP = round((1 << _WEIGHT_BITS) / (2 * 257))


@corruption(_PARAMETERS, lambda row, *_: weights(*row, _PARAMETERS[-1][0]))
def motion_blur(
  key: jax.Array, levels: jax.Array, path: jax.Array
) -> jax.Array:
  """Blurs along a direction drawn from -45 to 45 degrees.

  Source: hendrycks/robustness, `make_cifar_c.py`. Radius and standard deviation
  are in pixels, independent of the image size.
  """
  degrees = jax.random.uniform(key, (), jnp.float32, -45, 45)
  return blur(levels, degrees, path)


def blur(levels: jax.Array, degrees: jax.Array, path: jax.Array) -> jax.Array:
  """ImageMagick 6's MotionBlurImage on 8-bit images without transparency.

  Each pixel becomes a weighted mean of itself and the pixels on one side of it;
  beyond the border, the edge is repeated.

  Args:
    levels: integers [H,W,C] in 0..255.
    degrees: scalar, clockwise; at 0, the pixels on the right are averaged.
    path: weights of the pixel and of those on one side, from `weights`.

  Returns:
    int32 [H,W,C] in 0..255.

  Source: ImageMagick6, `magick/effect.c`. Arithmetic is in fixed point, so that
  no compiler changes the result.
  """
  path = jnp.asarray(path)
  reach = path.size - 1
  angle = jnp.float32(degrees) * jnp.float32(np.pi / 180)
  right, down = (
    jnp.ceil(jnp.arange(reach + 1) * part - jnp.float32(0.5)).astype(jnp.int32)
    for part in (jnp.cos(angle), jnp.sin(angle))
  )
  around = ((reach, reach), (reach, reach), (0, 0))
  padded = jnp.pad(levels.astype(jnp.int32), around, mode="edge")

  # A loop, so that the compiler does not recompute the padding for every pixel.
  def add(i: jax.Array, total: jax.Array) -> jax.Array:
    start = (down[i] + reach, right[i] + reach, jnp.int32(0))
    return total + path[i] * jax.lax.dynamic_slice(padded, start, levels.shape)

  start = jnp.full(levels.shape, _HALF_A_STEP, jnp.int32)
  total = jax.lax.fori_loop(0, reach + 1, add, start, unroll=4)
  return total >> _WEIGHT_BITS


def weights(radius: int, sigma: float, longest: int) -> np.ndarray:
  """Half a Gaussian in fixed point.

  Args:
    radius: in pixels; only the first `2 * radius + 1` weights can be nonzero.
    sigma: standard deviation of the Gaussian, in pixels.
    longest: the largest radius; shorter results are padded with zeros.

  Returns:
    int32 [2 * longest + 1]; the weights add up to one.
  """
  gaussian = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
  cumulative = np.cumsum(gaussian / gaussian.sum()) * (1 << _WEIGHT_BITS)
  path = np.diff(np.round(cumulative), prepend=0).astype(np.int32)
  return np.pad(path, (0, 2 * (longest - radius)))
