"""CIFAR-10-C's 19 corruptions at 5 severities, made on the device.

As hendrycks/robustness, `ImageNet-C/create_c/make_cifar_c.py`, makes them, for
images of any size: numbers of pixels and levels are the same at every size,
what is a share of the image's size there is one here, and a loop over 32 pixels
goes over them all.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from ram_jax.corruptions import blur, digital, motion, noise, spatter, weather

SEVERITIES = (1, 2, 3, 4, 5)
Corruption = Callable[..., jax.Array]


def _checked(function: Corruption) -> Corruption:
  """Rejects a severity that its parameters do not have."""

  @functools.wraps(function)
  def corruption(
    key: jax.Array, image: jax.Array, severity: int, assets: Any = None
  ) -> jax.Array:
    check_choice((), (severity,))
    return function(key, image, severity, assets)

  return corruption


# Called as `(key, image [H,W,3], severity, assets=None) -> image`: floats in
# [0,1] which are gray levels, before and after. Frost alone has assets.
CORRUPTIONS = {
  function.__name__: _checked(function)
  for function in (
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
NAMES = tuple(CORRUPTIONS)  # their order is part of a draw
# The mean over the first 15 is the benchmark's; the others are for validation.
BENCHMARK, EXTRA = NAMES[:15], NAMES[15:]
# The paper's four groups; the extra ones stand where their kind does.
CATEGORIES = {
  "noise": (*BENCHMARK[:3], "speckle_noise"),
  "blur": (*BENCHMARK[3:7], "gaussian_blur"),
  "weather": (*BENCHMARK[7:11], "spatter"),
  "digital": (*BENCHMARK[11:], "saturate"),
}


def check_choice(names: Sequence[str], severities: Sequence[int]) -> None:
  """Rejects corruptions and severities that do not exist.

  Args:
    names: of corruptions.
    severities: numbers.

  Raises:
    ValueError: naming the first that is unknown.
  """
  for name in names:
    if name not in NAMES:
      raise ValueError(
        f"corruption {name!r} is unknown: choose from {', '.join(NAMES)}"
      )
  for severity in severities:
    if severity not in SEVERITIES:
      raise ValueError(f"severity {severity} is unknown: choose from 1..5")


@functools.partial(jax.jit, static_argnames=("name", "severity"))
def corrupt(
  name: str,
  severity: int,
  keys: jax.Array,
  images: jax.Array,
  assets: Any = None,
) -> jax.Array:
  """Corrupts a batch.

  Args:
    name: of `CORRUPTIONS`.
    severity: 1 to 5.
    keys: keys [B].
    images: floats [B,H,W,3] in [0,1], of gray levels.
    assets: what frost takes, its photographs.

  Returns:
    Floats [B,H,W,3] in [0,1], of gray levels; image i depends on `keys[i]` and
    `images[i]` alone.

  Raises:
    ValueError: on an unknown name or severity.
  """
  check_choice((name,), (severity,))
  function = CORRUPTIONS[name]
  return jax.vmap(lambda key, image: function(key, image, severity, assets))(
    keys, images
  )
