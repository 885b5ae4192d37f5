"""Augmentations beside AugMix, against their originals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from ram_jax.augment import augmix, basic, erasing, ops, trivial, waves

COUNT = 20000
AFA = (-0.04149261, -0.04030437, -0.04378272, -0.03493184)


def keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def pillow(image, name, magnitude):
  """TrivialAugment's operation on a uint8 array [H,W,C], as in torchvision."""
  source = Image.fromarray(image)
  bilinear = Image.Resampling.BILINEAR

  def affine(*matrix):
    return source.transform(
      source.size, Image.Transform.AFFINE, matrix, bilinear
    )

  enhance = {
    "brightness": ImageEnhance.Brightness,
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
  }
  if name in enhance:
    return np.asarray(enhance[name](source).enhance(1 + magnitude))
  result = {
    "identity": lambda: source,
    "shear_x": lambda: affine(1, magnitude, 0, 0, 1, 0),
    "shear_y": lambda: affine(1, 0, 0, magnitude, 1, 0),
    "translate_x": lambda: affine(1, 0, int(magnitude), 0, 1, 0),
    "translate_y": lambda: affine(1, 0, 0, 0, 1, int(magnitude)),
    "rotate": lambda: source.rotate(magnitude, bilinear),
    "posterize": lambda: ImageOps.posterize(source, int(magnitude)),
    "solarize": lambda: ImageOps.solarize(source, magnitude),
    "autocontrast": lambda: ImageOps.autocontrast(source),
    "equalize": lambda: ImageOps.equalize(source),
  }[name]()
  return np.asarray(result)


def magnitudes(name):
  """All magnitudes of an operation in torchvision's TrivialAugmentWide."""
  ranges = {"translate": 32.0, "rotate": 135.0, "shear": 0.99}
  kind = name.split("_")[0]
  if kind == "posterize":
    return 8.0 - np.round(np.arange(31) / (30 / 6))
  if kind == "solarize":
    return np.linspace(255, 0, 31)
  if name in ("identity", "autocontrast", "equalize"):
    return np.zeros(1)
  positive = np.linspace(0, ranges.get(kind, 0.99), 31)
  return np.concatenate([positive, -positive])


@pytest.mark.parametrize("name", ops.TRIVIAL)
def test_trivial_operation_equals_pillow_at_every_magnitude(name):
  expected = magnitudes(name)
  half = np.arange(31)[:, None] / 31 + 1e-4
  uniforms = np.concatenate(
    [np.hstack([half, np.full((31, 1), side)]) for side in (0.2, 0.8)]
  )[: len(expected)].astype(np.float32)
  params = ops.trivial_parameters(uniforms)[name]
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (len(expected), 32, 32, 3), np.uint8)
  images[::2] = images[::2] // 4 + 99  # narrow ranges
  ours = jax.jit(jax.vmap(ops.OPS[name]))(images, params)
  pairs = zip(images, expected, strict=True)
  theirs = np.stack([pillow(image, name, m) for image, m in pairs])
  difference = np.abs(np.asarray(ours, int) - theirs)
  # As for AugMix's operations, one level at rare pixels if interpolated.
  interpolated = name in ("shear_x", "shear_y", "rotate")
  assert difference.max() <= 1
  assert np.mean(difference > 0) <= (1e-3 if interpolated else 0)


def test_every_trivial_operation_and_magnitude_is_equally_likely():
  augment = augmix.Augment(operations=14, width=1, depth=1)
  plan, params = jax.jit(lambda k: augment._arguments(k, (32, 32)))(keys(COUNT))
  plan, params = np.asarray(plan[:, 0]), np.asarray(params[:, 0])
  assert stats.chisquare(np.bincount(plan, minlength=14)).pvalue > 1e-4
  rotations = params[plan == list(ops.TRIVIAL).index("rotate")]
  bins = np.round(np.abs(rotations) / 4.5).astype(int)
  np.testing.assert_allclose(np.abs(rotations), 4.5 * bins, rtol=1e-5)
  assert stats.chisquare(np.bincount(bins, minlength=31)).pvalue > 1e-4
  assert abs(np.mean(rotations > 0) - 15 / 31) < 0.05


def test_trivial_augment_runs_one_operation():
  images = np.random.default_rng(0).random((64, 32, 32, 3), np.float32)
  found = jax.jit(trivial.Augment())(keys(64), images)
  levels = np.asarray(found) * 255
  np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
  changed = np.abs(found - np.round(255 * images) / 255).max((1, 2, 3)) > 1e-6
  assert 45 < changed.sum() < 64  # identity, and weak magnitudes


def test_planar_wave_equals_that_of_afa():
  """Values of nis-research/afa-augment, `gen_planar_waves`, in float32."""
  found = waves.planar_wave(jnp.array([3, 17]), jnp.array([-0.7, -2.5]), 32)
  chosen = [found[0, 0, 0], found[5, 20, 0], found[0, 0, 1], found[31, 7, 1]]
  np.testing.assert_allclose(chosen, AFA, atol=2e-6)
  np.testing.assert_allclose(jnp.linalg.norm(found, axis=(0, 1)), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["planar", "lattice"])
def test_waves_have_their_norms_and_frequencies(kind):
  augment = waves.Augment(kind, low=2, high=4, strength=0.5)
  images = np.full((500, 32, 32, 3), 0.5, np.float32)
  added = np.asarray(jax.jit(augment)(keys(500), images)) - 0.5
  norms = np.linalg.norm(added.reshape(500, -1, 3), axis=1)
  if kind == "lattice":
    np.testing.assert_allclose(norms, 0.5, rtol=1e-3)
    np.testing.assert_allclose(
      np.abs(added), np.abs(added[..., :1]) * np.ones(3), atol=2e-7
    )
    assert np.abs(added - added[..., :1]).max() > 0.01
  else:
    assert stats.kstest(norms.ravel(), stats.expon(scale=0.5).cdf).pvalue > 1e-4
  spectrum = np.abs(np.fft.fft2(added, axes=(1, 2))).reshape(500, -1, 3)
  row, column = np.unravel_index(spectrum.argmax(1), (32, 32))
  row, column = (np.minimum(x, 32 - x) for x in (row, column))
  radius = np.hypot(row, column)
  most = 4 * 2**0.5 if kind == "lattice" else 4 * 32 / 31 + 0.6
  assert radius.min() > 1.2 and radius.max() <= most
  assert len(np.unique(row)) > 2 and len(np.unique(column)) > 2


def rectangle(rng):
  """torchvision's RandomErasing.get_params, for 32x32 pixels."""
  for _ in range(10):
    area = 32 * 32 * rng.uniform(0.02, 0.33)
    ratio = np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
    height, width = np.round(np.sqrt([area * ratio, area / ratio]))
    if height < 32 and width < 32:
      return height, width
  return 0, 0


def test_erased_rectangles_have_torchvisions_distribution():
  plain = basic.Augment(flip=False, padding=0)
  augment = erasing.Augment(plain, value=0.25)
  images = np.ones((4000, 32, 32, 3), np.float32)
  found = np.asarray(jax.jit(augment)(keys(4000), images))
  assert set(np.unique(found)) == {0.25, 1}
  erased = found[..., 0] < 1
  chosen = erased.any((1, 2))
  assert abs(chosen.mean() - 0.5) < 0.04
  heights = erased.any(2).sum(1)[chosen]
  widths = erased.any(1).sum(1)[chosen]
  np.testing.assert_array_equal(heights * widths, erased.sum((1, 2))[chosen])
  rng = np.random.default_rng(0)
  theirs = np.array([rectangle(rng) for _ in range(4000)])
  for ours, expected in ((heights, theirs[:, 0]), (widths, theirs[:, 1])):
    assert stats.ks_2samp(ours, expected).pvalue > 1e-4
  # Every corner that fits is equally likely, so the borders are reached.
  assert erased[:, 0].any(1).sum() > 50 and erased[:, -1].any(1).sum() > 50


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (lambda: waves.Augment("sine"), "kind is 'sine': give planar or lattice"),
    (lambda: waves.Augment(low=4), "high is 3: give an integer, at least 4"),
    (lambda: waves.Augment(strength=0.0), "strength is 0.0"),
    (lambda: erasing.Augment(None, probability=2), "probability is 2"),
    (lambda: erasing.Augment(None, area=(0.5, 0.1)), "0 < min <= max <= 1"),
  ],
)
def test_value_out_of_range_is_named(make, words):
  with pytest.raises(ValueError, match=words):
    make()


@pytest.mark.parametrize(
  "augment",
  [
    trivial.Augment(),
    waves.Augment(),
    waves.Augment("lattice"),
    erasing.Augment(trivial.Augment()),
  ],
  ids=["trivial", "planar", "lattice", "erasing"],
)
def test_an_example_depends_on_its_own_key_and_image_alone(augment):
  images = np.random.default_rng(1).random((9, 32, 32, 3), np.float32)
  run = jax.jit(augment)
  together = np.asarray(run(keys(9), images))
  order = np.random.default_rng(2).permutation(9)
  np.testing.assert_array_equal(
    run(keys(9)[order], images[order]), together[order]
  )
  assert (together != images).any()
