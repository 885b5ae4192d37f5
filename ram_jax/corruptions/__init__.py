"""CIFAR-10-C's 19 corruptions at 5 severities, generated on the device.

They follow hendrycks/robustness, `ImageNet-C/create_c/make_cifar_c.py`, for
images of any size: parameters in pixels and pixel values do not depend on the
size, parameters relative to the size are scaled, and loops over 32 pixels cover
all pixels. `c_bar.py` contains the ten corruptions of CIFAR-10-C-bar.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ram_jax.corruptions import (
  blur,
  c_bar,
  digital,
  motion,
  noise,
  spatter,
  weather,
)
from ram_jax.corruptions.corruption import SEVERITIES as SEVERITIES
from ram_jax.corruptions.corruption import Apply, check_severity
from ram_jax.image import color

CORRUPTIONS = {
  corruption.name: corruption
  for corruption in (
    noise.gaussian_noise,
    noise.shot_noise,
    noise.impulse_noise,
    blur.defocus_blur,
    blur.glass_blur,
    motion.motion_blur,
    blur.zoom_blur,
    weather.snow,
    weather.frost,
    weather.fog,
    digital.brightness,
    digital.contrast,
    digital.elastic_transform,
    digital.pixelate,
    digital.jpeg_compression,
    noise.speckle_noise,
    blur.gaussian_blur,
    spatter.spatter,
    digital.saturate,
  )
}
C_BAR = {corruption.name: corruption for corruption in c_bar.ALL}
EVERY = CORRUPTIONS | C_BAR
NAMES = tuple(CORRUPTIONS)  # in each set, the order affects random draws
SETS = {"cifar_c": NAMES, "cifar_c_bar": tuple(C_BAR)}
# The benchmark's mean is over the first 15; the others are for validation.
BENCHMARK, EXTRA = NAMES[:15], NAMES[15:]
# The paper's four groups, with the extra corruptions in matching groups.
CATEGORIES = {
  "noise": (*BENCHMARK[:3], "speckle_noise"),
  "blur": (*BENCHMARK[3:7], "gaussian_blur"),
  "weather": (*BENCHMARK[7:11], "spatter"),
  "digital": (*BENCHMARK[11:], "saturate"),
}


def check_choice(
  names: Sequence[str],
  severities: Sequence[int],
  known: Sequence[str] = tuple(EVERY),
) -> None:
  """Rejects corruptions and severities that do not exist.

  Args:
    names: names of corruptions.
    severities: numbers.
    known: names of the corruptions that exist.

  Raises:
    ValueError: with the first unknown one.
  """
  for name in names:
    if name not in known:
      raise ValueError(
        f"corruption {name!r} is unknown: choose from {', '.join(known)}"
      )
  for severity in severities:
    check_severity(severity)


def corrupt(
  name: str,
  severity: int,
  keys: jax.Array,
  images: jax.Array,
  assets: Any = None,
) -> jax.Array:
  """Corrupts a batch.

  Args:
    name: of `EVERY`.
    severity: 1 to 5.
    keys: keys [B].
    images: floats [B,H,W,3] in [0,1], multiples of 1/255.
    assets: the photographs for frost.

  Returns:
    Floats [B,H,W,3] in [0,1], multiples of 1/255; image i only depends on
    `keys[i]` and `images[i]`.

  Raises:
    ValueError: on an unknown name or severity.
  """
  check_choice((name,), (severity,))
  corruption = EVERY[name]
  parameters = corruption.parameters(severity, images.shape[1:], assets)
  levels = apply(corruption.apply, keys, color.quantize(images), parameters)
  return color.dequantize(levels, images.dtype)


@functools.partial(jax.jit, static_argnums=0)
def apply(
  function: Apply, keys: jax.Array, levels: jax.Array, parameters: Any
) -> jax.Array:
  """Corrupts a batch, uint8 [B,H,W,C]; see `Corruption`."""
  applied = jax.vmap(function, in_axes=(0, 0, None))(keys, levels, parameters)
  return applied.astype(jnp.uint8)
