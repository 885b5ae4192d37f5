"""Operations of AugMix and TrivialAugment, with Pillow's 8-bit arithmetic.

Parameters are sampled separately, so that the operations can be compared with
Pillow's. The distribution of `OPS` is that of google-research/augmix,
`augmentations.py`; `OPS_AUTHOR` resamples as in martinez-hub/robustaugmix,
`ops.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax.image import color, filters, geometry

Levels = Callable[[jax.Array, jax.Array], jax.Array]


class Op(NamedTuple):
  """One operation of an augmentation chain.

  Attributes:
    apply: `(levels, params) -> levels` for one image, uint8 [H,W,C].
    scale: `(uniforms [2], severity, size) -> params`, float32 [1]: the argument
      of Pillow's call (bits, degrees, threshold, affine coefficient, pixels or
      factor) for random numbers in [0,1), 0 for operations without a parameter.
      `size` is (height, width); only translations depend on it.
  """

  apply: Callable[[jax.Array, jax.Array], jax.Array]
  scale: Callable[..., jax.Array]


def _op(number: Callable[[Any, Any, Any], jax.Array], transform: Levels) -> Op:
  """Makes an operation from functions that compute and use its parameter."""

  def scale(
    uniforms: jax.Array, severity: float, size: tuple[int, int]
  ) -> jax.Array:
    level = 0.1 + (severity - 0.1) * uniforms[0]
    # As in the original, the sign is applied after truncation.
    sign = jnp.where(uniforms[1] > 0.5, -1, 1)
    return jnp.reshape(number(level, sign, size), (1,)).astype(jnp.float32)

  return Op(lambda levels, params: transform(levels, params[0]), scale)


def _whole(level: jax.Array, maximum: float) -> jax.Array:
  """AugMix's int_parameter, `int(level * maximum / 10)`."""
  return jnp.floor(level * maximum / 10)


def _nothing(level: jax.Array, sign: jax.Array, size: tuple) -> jax.Array:
  del level, sign, size
  return jnp.zeros(())


def _bits(level: jax.Array, sign: jax.Array, size: tuple) -> jax.Array:
  del sign, size
  # Only severity 10 reaches 0, which current Pillow rejects.
  return jnp.maximum(4 - _whole(level, 4), 1)


def _degrees(level: jax.Array, sign: jax.Array, size: tuple) -> jax.Array:
  del size
  return sign * _whole(level, 30)


def _threshold(level: jax.Array, sign: jax.Array, size: tuple) -> jax.Array:
  del sign, size
  return 256 - _whole(level, 256)


def _coefficient(level: jax.Array, sign: jax.Array, size: tuple) -> jax.Array:
  del size
  return sign * (level * 0.3 / 10)


def _pixels_x(level: jax.Array, sign: jax.Array, size: tuple) -> jax.Array:
  return sign * _whole(level, size[1] / 3)


def _pixels_y(level: jax.Array, sign: jax.Array, size: tuple) -> jax.Array:
  return sign * _whole(level, size[0] / 3)


def _factor(level: jax.Array, sign: jax.Array, size: tuple) -> jax.Array:
  del sign, size
  return level * 1.8 / 10 + 0.1


# The first nine are the paper's; the last four overlap CIFAR-10-C.
OPS = {
  "autocontrast": _op(_nothing, lambda image, _: color.autocontrast(image)),
  "equalize": _op(_nothing, lambda image, _: color.equalize(image)),
  "posterize": _op(_bits, color.posterize),
  "rotate": _op(_degrees, geometry.rotate_bilinear),
  "solarize": _op(_threshold, color.solarize),
  "shear_x": _op(_coefficient, geometry.shear_x),
  "shear_y": _op(_coefficient, geometry.shear_y),
  "translate_x": _op(_pixels_x, geometry.translate_x),
  "translate_y": _op(_pixels_y, geometry.translate_y),
  "color": _op(_factor, color.color),
  "contrast": _op(_factor, color.contrast),
  "brightness": _op(_factor, color.brightness),
  "sharpness": _op(_factor, filters.sharpness),
}


_BINS = 31  # magnitudes of TrivialAugment


def _trivial(
  name: str, values: np.ndarray, mirrored: np.ndarray | None = None
) -> Op:
  """An operation with TrivialAugment's magnitudes, for any severity.

  Args:
    name: a key of `OPS`; empty for the identity.
    values: its parameters, all equally likely.
    mirrored: those of the other sign, used half of the time.
  """
  both = np.stack([values, values if mirrored is None else mirrored])
  table = both.astype(np.float32)

  def scale(
    uniforms: jax.Array, severity: float, size: tuple[int, int]
  ) -> jax.Array:
    del severity, size
    side = (uniforms[1] >= 0.5).astype(jnp.int32)
    magnitude = jnp.floor(table.shape[1] * uniforms[0]).astype(jnp.int32)
    return jnp.asarray(table)[side, magnitude][None]

  return Op(OPS[name].apply if name else lambda image, _: image, scale)


def _signed(name: str, most: float, plus: float = 0) -> Op:
  """An operation whose magnitudes are 0 to `most`, of both signs."""
  values = np.linspace(0, most, _BINS)
  if name.startswith("translate"):
    values = np.floor(values)
  return _trivial(name, plus + values, plus - values)


# TrivialAugment Wide (Müller and Hutter 2021), with the ranges of torchvision's
# TrivialAugmentWide. Brightness, contrast, color and sharpness overlap
# CIFAR-10-C. Unlike torchvision, affine operations interpolate bilinearly.
TRIVIAL = {
  "identity": _trivial("", np.zeros(1)),
  "shear_x": _signed("shear_x", 0.99),
  "shear_y": _signed("shear_y", 0.99),
  "translate_x": _signed("translate_x", 32),
  "translate_y": _signed("translate_y", 32),
  "rotate": _signed("rotate", 135),
  "brightness": _signed("brightness", 0.99, plus=1),
  "color": _signed("color", 0.99, plus=1),
  "contrast": _signed("contrast", 0.99, plus=1),
  "sharpness": _signed("sharpness", 0.99, plus=1),
  "posterize": _trivial("posterize", 8 - np.round(np.arange(_BINS) / 5)),
  # Levels below a fractional threshold are those below the next integer.
  "solarize": _trivial("solarize", np.ceil(np.linspace(255, 0, _BINS))),
  "autocontrast": _trivial("autocontrast", np.zeros(1)),
  "equalize": _trivial("equalize", np.zeros(1)),
}

# Whole-pixel translations do not depend on the resampling.
OPS_AUTHOR = OPS | {
  "rotate": _op(_degrees, geometry.rotate_nearest),
  "shear_x": _op(_coefficient, lambda i, c: geometry.shear_x(i, c, cubic=True)),
  "shear_y": _op(_coefficient, lambda i, c: geometry.shear_y(i, c, cubic=True)),
}
