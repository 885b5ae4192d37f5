"""Every operation beside Pillow's: the reference of the tests, and a table.

`python tests/augment/parity_table.py` prints, as markdown, the fraction of gray
levels that differ on the real images in ../shared/data.
"""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageOps

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for running it as a script

from ram_jax.augment import ops  # noqa: E402

NAMES = tuple(ops.OPS)[:13]  # without the identity
FLAVORS = {"bilinear": ops.OPS, "author": ops.OPS_AUTHOR}
# (rotation, affine) as in AugMix's code and in RobustAugMix's.
RESAMPLING = {
  "bilinear": (Image.Resampling.BILINEAR, Image.Resampling.BILINEAR),
  "author": (Image.Resampling.NEAREST, Image.Resampling.BICUBIC),
}


def pillow(image, name, param, flavour):
  """Applies Pillow's operation to a uint8 array [H,W,C]."""
  gray = image.shape[-1] == 1
  source = Image.fromarray(image[..., 0] if gray else image)
  rotation, affine = RESAMPLING[flavour]
  param = float(param)

  def transform(*matrix):
    return source.transform(
      source.size, Image.Transform.AFFINE, matrix, resample=affine
    )

  result = {
    "autocontrast": lambda: ImageOps.autocontrast(source),
    "equalize": lambda: ImageOps.equalize(source),
    "posterize": lambda: ImageOps.posterize(source, int(param)),
    "rotate": lambda: source.rotate(int(param), resample=rotation),
    "solarize": lambda: ImageOps.solarize(source, int(param)),
    "shear_x": lambda: transform(1, param, 0, 0, 1, 0),
    "shear_y": lambda: transform(1, 0, 0, param, 1, 0),
    "translate_x": lambda: transform(1, 0, int(param), 0, 1, 0),
    "translate_y": lambda: transform(1, 0, 0, 0, 1, int(param)),
    "color": lambda: ImageEnhance.Color(source).enhance(param),
    "contrast": lambda: ImageEnhance.Contrast(source).enhance(param),
    "brightness": lambda: ImageEnhance.Brightness(source).enhance(param),
    "sharpness": lambda: ImageEnhance.Sharpness(source).enhance(param),
  }[name]()
  return np.asarray(result).reshape(image.shape)


@functools.cache
def batched(name, flavour):
  """The compiled operation on batches, one for all callers."""
  return jax.jit(jax.vmap(FLAVORS[flavour][name]))


@functools.cache
def drawing(size):
  """The compiled draw `(keys, severity)` of all; both flavours share it."""

  def draw(key, severity):
    uniforms = jax.random.uniform(key, (2,), jnp.float32)
    return ops.parameters(uniforms, severity, size)

  return jax.jit(jax.vmap(draw, in_axes=(0, None)))


def differences(images, name, params, flavour):
  """Ours minus Pillow's, gray levels int [B,H,W,C]; `params` [B]."""
  ours = np.asarray(batched(name, flavour)(images, jnp.asarray(params)))
  pairs = zip(images, np.asarray(params), strict=True)
  theirs = [pillow(i, name, p, flavour) for i, p in pairs]
  return ours.astype(int) - np.stack(theirs)


def draws(name, count, severity, size=(32, 32), seed=0):
  """Parameters [count] drawn for an operation; zeros if it has none."""
  keys = jax.random.split(jax.random.key(seed), count)
  return drawing(size)(keys, severity).get(name, jnp.zeros(count))


def main():
  path = ROOT.parent / "shared" / "data" / "cifar10_lossless.npz"
  images = np.load(path)["train_images"]
  print(
    f"Grey levels that differ from Pillow {PIL.__version__}, {len(images)} "
    "images of 32x32x3, one draw each; no difference exceeds the last column."
  )
  print("\n| operation | resampling | severity 3 | severity 10 | largest |")
  print("|---|---|---|---|---|")
  for name in NAMES:
    same = ops.OPS[name] is ops.OPS_AUTHOR[name]
    for flavour in ("bilinear",) if same else FLAVORS:
      params = [draws(name, len(images), severity) for severity in (3, 10)]
      found = [np.abs(differences(images, name, p, flavour)) for p in params]
      rates = [f"{np.mean(f > 0):.1e}" if f.any() else "0" for f in found]
      label = "either" if same else flavour
      largest = max(f.max() for f in found)
      print(
        f"| {name} | {label} | {' | '.join(rates)} | {largest} |", flush=True
      )


if __name__ == "__main__":
  main()
