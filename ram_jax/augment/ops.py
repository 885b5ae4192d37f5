"""Operations of AugMix and TrivialAugment, with Pillow's 8-bit arithmetic.

Parameters are sampled separately, so that the operations can be compared with
Pillow's. They are the arguments of Pillow's calls: bits, degrees, threshold,
affine coefficient, pixels or factor.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.image import color, filters, geometry

# (levels, parameter) -> levels of one image, uint8 [H,W,C].
Op = Callable[[jax.Array, jax.Array], jax.Array]

# The first nine are the paper's; the next four overlap CIFAR-10-C; the identity
# is TrivialAugment's.
OPS: dict[str, Op] = {
  "autocontrast": lambda levels, _: color.autocontrast(levels),
  "equalize": lambda levels, _: color.equalize(levels),
  "posterize": color.posterize,
  "rotate": geometry.rotate_bilinear,
  "solarize": color.solarize,
  "shear_x": geometry.shear_x,
  "shear_y": geometry.shear_y,
  "translate_x": geometry.translate_x,
  "translate_y": geometry.translate_y,
  "color": color.color,
  "contrast": color.contrast,
  "brightness": color.brightness,
  "sharpness": filters.sharpness,
  "identity": lambda levels, _: levels,
}
# The resampling of martinez-hub/robustaugmix, `ops.py`. Whole-pixel
# translations do not depend on it.
OPS_AUTHOR = OPS | {
  "rotate": geometry.rotate_nearest,
  "shear_x": functools.partial(geometry.shear_x, cubic=True),
  "shear_y": functools.partial(geometry.shear_y, cubic=True),
}


def parameters(
  uniforms: jax.Array, severity: float, size: tuple[int, int]
) -> dict[str, jax.Array]:
  """AugMix's distribution of parameters, as in its `augmentations.py`.

  Args:
    uniforms: random numbers [...,2] in [0,1), for the level and the sign.
    severity: the largest level.
    size: (height, width); only translations depend on it.

  Returns:
    The parameter [...] of each of the 13 operations, 0 if it has none.
  """
  level = 0.1 + (severity - 0.1) * uniforms[..., 0]
  # As in the original, the sign is applied after truncation.
  sign = jnp.where(uniforms[..., 1] > 0.5, -1, 1)

  def whole(maximum: float) -> jax.Array:  # AugMix's int_parameter
    return jnp.floor(level * maximum / 10)

  shear, factor = sign * (level * 0.3 / 10), level * 1.8 / 10 + 0.1
  enhancements = "color", "contrast", "brightness", "sharpness"
  return dict.fromkeys(enhancements, factor) | {
    "autocontrast": jnp.zeros_like(level),
    "equalize": jnp.zeros_like(level),
    # Only level 10 would give 0 bits, which current Pillow rejects.
    "posterize": jnp.maximum(4 - whole(4), 1),
    "rotate": sign * whole(30),
    "solarize": 256 - whole(256),
    "shear_x": shear,
    "shear_y": shear,
    "translate_x": sign * whole(size[1] / 3),
    "translate_y": sign * whole(size[0] / 3),
  }


_BINS = 31  # magnitudes of TrivialAugment


def _signed(most: float, center: float = 0) -> np.ndarray:
  """`center` plus and minus magnitudes from 0 to `most`: [2,bins]."""
  values = np.linspace(0, most, _BINS)
  return np.stack([center + values, center - values])


# Magnitudes of TrivialAugment Wide (Müller and Hutter 2021), with the ranges of
# torchvision's TrivialAugmentWide. All are equally likely; the two rows are for
# the two signs. Brightness, contrast, color and sharpness overlap CIFAR-10-C.
# Unlike in torchvision, affine operations interpolate bilinearly.
TRIVIAL = {
  "identity": 0,
  "shear_x": _signed(0.99),
  "shear_y": _signed(0.99),
  "translate_x": np.trunc(_signed(32)),
  "translate_y": np.trunc(_signed(32)),
  "rotate": _signed(135),
  "brightness": _signed(0.99, center=1),
  "color": _signed(0.99, center=1),
  "contrast": _signed(0.99, center=1),
  "sharpness": _signed(0.99, center=1),
  "posterize": 8 - np.round(np.arange(_BINS) / 5),
  # Levels below a fractional threshold are those below the next integer.
  "solarize": np.ceil(np.linspace(255, 0, _BINS)),
  "autocontrast": 0,
  "equalize": 0,
}


def trivial_parameters(uniforms: jax.Array) -> dict[str, jax.Array]:
  """TrivialAugment's parameter [...] of every operation.

  Args:
    uniforms: random numbers [...,2] in [0,1), for the magnitude and the sign.
  """
  side = (uniforms[..., 1] >= 0.5).astype(jnp.int32)
  magnitude = jnp.floor(_BINS * uniforms[..., 0]).astype(jnp.int32)
  tables = {n: np.broadcast_to(t, (2, _BINS)) for n, t in TRIVIAL.items()}
  return {
    name: jnp.asarray(table, jnp.float32)[side, magnitude]
    for name, table in tables.items()
  }
