"""CIFAR-10-C's 19 corruptions at 5 severities, generated on the device.

They follow hendrycks/robustness, `ImageNet-C/create_c/make_cifar_c.py`, for
images of any size: parameters in pixels or in pixel values do not depend on the
size, parameters relative to the size are scaled, and loops that are hard-coded
to 32 pixels cover the whole image. `c_bar.py` contains the ten corruptions of
CIFAR-10-C-bar.
"""

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
