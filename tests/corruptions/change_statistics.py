"""Statistics of how a corruption changes images, for comparing random draws.

One definition for the committed statistics of the original's reruns
(`golden/reruns.json`) and for actual.
"""

import numpy as np

# Radii, in cycles per image, that part the power spectrum of the change.
EDGES = (0.5, 2, 4, 8, 12, 16)
NAMES = (
  "PSNR, mean",
  "PSNR, spread",
  "red",
  "green",
  "blue",
  *(f"log power, radius < {edge:g}" for edge in EDGES),
  "log power, corners",
)


def psnr(images, corrupted):
  """PSNR [B] in dB of uint8 [B,H,W,C].

  An unchanged image counts as if one value had changed by one level: 83 dB for
  32x32x3.
  """
  squares = (corrupted.astype(float) - images) ** 2
  error = np.maximum(squares.sum(axis=(1, 2, 3)), 1) / images[0].size
  return 10 * np.log10(255**2 / error)


def log_power(images, corrupted):
  """log10 of the change's mean power [bins], squared levels, by radius."""
  height, width = images.shape[1:3]
  change = corrupted.astype(float) - images
  power = np.abs(np.fft.fft2(change, axes=(1, 2))) ** 2 / (height * width)
  frequencies = [np.fft.fftfreq(n, 1 / n) for n in (height, width)]
  bins = np.digitize(np.hypot(*np.meshgrid(*frequencies, indexing="ij")), EDGES)
  mean = power.mean(axis=(0, 3))
  radial = [mean[bins == i].mean() for i in range(len(EDGES) + 1)]
  return np.log10(np.maximum(radial, 1e-6))


def measure(images, corrupted):
  """The statistics [NAMES] of one draw: corrupted copies of all images."""
  decibels = psnr(images, corrupted)
  return np.array(
    [
      decibels.mean(),
      decibels.std(),
      *corrupted.mean(axis=(0, 1, 2)),
      *log_power(images, corrupted),
    ]
  )
