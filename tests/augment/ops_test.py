"""Operations equal Pillow's; draws have the original's distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ram_jax.augment import ops
from tests.augment import parity_table

CASES = [
  (name, flavour)
  for flavour, table in parity_table.FLAVORS.items()
  for name in parity_table.NAMES
  if flavour == "bilinear" or table[name] is not ops.OPS[name]
]
SLOW = pytest.mark.slow
COUNT = 40000  # draws of a distribution
# Interpolated in 22-bit weights where Pillow has doubles: one level, rarely.
INTERPOLATED = {("rotate", "bilinear")} | {
  (f"shear_{axis}", flavour)
  for axis in "xy"
  for flavour in ("bilinear", "author")
}


def synthetic(shape, count):
  """Random, flat, two-level, ramp and narrow-range images."""
  rng = np.random.default_rng(0)
  height, width, channels = shape
  ramp = np.arange(width) * 255 // (width - 1) + np.zeros((height, 1), int)
  kinds = [
    lambda: rng.integers(0, 256, shape),
    lambda: np.full(shape, rng.choice([0, 1, 128, 254, 255])),
    lambda: rng.choice(rng.integers(0, 256, 2), shape),
    lambda: np.repeat(
      np.roll(ramp, rng.integers(width))[..., None], channels, 2
    ),
    lambda: np.repeat(ramp[:, ::-1, None] // 2 + 99, channels, 2),
    lambda: rng.integers(*np.sort(rng.choice(256, 2, False)), shape),
  ]
  images = [kinds[i % len(kinds)]() for i in range(count)]
  return np.stack(images).astype(np.uint8)


def check(images, name, flavour, params):
  difference = np.abs(parity_table.differences(images, name, params, flavour))
  allowed = 1e-3 if (name, flavour) in INTERPOLATED else 0
  assert difference.max() <= 1
  assert np.mean(difference > 0) <= allowed


def test_the_table_of_operations():
  points = ["autocontrast", "equalize", "posterize", "rotate", "solarize"]
  affine = ["shear_x", "shear_y", "translate_x", "translate_y"]
  enhance = ["color", "contrast", "brightness", "sharpness"]
  names = [*points, *affine, *enhance, "identity"]
  assert list(ops.OPS) == list(ops.OPS_AUTHOR) == names


@pytest.mark.parametrize("severity", [3, 10])
@pytest.mark.parametrize(("name", "flavour"), CASES)
def test_equals_pillow_on_real_images(shared_data, name, flavour, severity):
  images = np.load(shared_data / "cifar10_lossless.npz")["train_images"][:300]
  params = parity_table.draws(name, len(images), severity)
  check(images, name, flavour, params)


@pytest.mark.parametrize("shape", [(32, 32, 3), (21, 34, 1)])
@pytest.mark.parametrize(("name", "flavour"), CASES)
def test_equals_pillow_on_synthetic_images(name, flavour, shape):
  images = synthetic(shape, 300)
  params = parity_table.draws(name, 300, 10, shape[:2])
  check(images, name, flavour, params)


@pytest.mark.parametrize("flavour", ["bilinear", "author"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (21, 34, 1)])
def test_every_degree_rotates_as_pillow(flavour, shape):
  degrees = np.arange(-359.0, 361, 2.4).round()
  images = synthetic(shape, 6 * len(degrees))[::6]  # random noise
  check(images, "rotate", flavour, degrees.astype(np.float32))


def test_autocontrast_of_every_kind_of_range():
  # One image per (lowest, highest), with every level between them.
  low, high = np.triu_indices(256, 1)
  chosen = np.random.default_rng(0).choice(len(low), (10, 300, 1), False)
  shape = 300, 21, 34, 1
  ramp = np.arange(21 * 34) % 256
  for some in chosen:
    levels = np.clip(ramp, low[some], high[some]).astype(np.uint8)
    check(levels.reshape(shape), "autocontrast", "bilinear", np.zeros(300))


@pytest.mark.parametrize(("name", "flavour"), CASES)
def test_vmap_is_a_loop(name, flavour):
  images = synthetic((32, 32, 3), 300)
  params = parity_table.draws(name, 300, 3)
  batch = parity_table.batched(name, flavour)(images, params)
  one = jax.jit(parity_table.FLAVORS[flavour][name])
  loop = [one(i, p) for i, p in zip(images[:6], params, strict=False)]
  assert loop[0].dtype == jnp.uint8  # as its input
  np.testing.assert_array_equal(batch[:6], np.stack(loop))


@pytest.mark.parametrize(
  ("name", "flavour"),
  [
    case if case[0] == "sharpness" else pytest.param(*case, marks=SLOW)
    for case in CASES
  ],
)
def test_jit_is_eager(name, flavour):
  images = jnp.asarray(synthetic((32, 32, 3), 300))
  params = parity_table.draws(name, 300, 3)
  batch = parity_table.batched(name, flavour)(images, params)
  eager = parity_table.FLAVORS[flavour][name](images[0], params[0])
  np.testing.assert_array_equal(eager, batch[0])


def original(name, level):
  """AugMix's parameter before its sign, for levels [n] (NumPy, as written)."""
  whole = lambda maximum: (level * maximum / 10).astype(int)  # noqa: E731
  return {
    "posterize": lambda: np.maximum(4 - whole(4), 1),
    "rotate": lambda: whole(30),
    "solarize": lambda: 256 - whole(256),
    "translate_x": lambda: whole(32 / 3),
    "translate_y": lambda: whole(32 / 3),
  }[name]()


@pytest.mark.parametrize("severity", [3, 10])
@pytest.mark.parametrize(
  "name", ["posterize", "rotate", "solarize", "translate_x", "translate_y"]
)
def test_whole_parameters_have_the_original_probabilities(name, severity):
  count = COUNT
  drawn = np.asarray(parity_table.draws(name, count, severity))
  grid = (np.arange(1_000_000) + 0.5) / 1_000_000
  values = original(name, 0.1 + (severity - 0.1) * grid)
  if name in ("rotate", "translate_x", "translate_y"):
    values = np.concatenate([values, -values])
  value, seen = np.unique(values, return_counts=True)
  expected = seen / seen.sum()
  assert set(np.unique(drawn)) <= set(value)
  observed = np.array([np.mean(drawn == v) for v in value])
  # 5 standard errors, plus the grid's own.
  bound = 5 * np.sqrt(expected * (1 - expected) / count) + 1e-5
  assert np.all(np.abs(observed - expected) <= bound)


@pytest.mark.parametrize(
  ("name", "lowest", "highest"),
  [("shear_x", 0.003, 0.09), ("shear_y", 0.003, 0.09)]
  + [
    (n, 0.118, 0.64) for n in ("color", "contrast", "brightness", "sharpness")
  ],
)
def test_continuous_parameters_are_uniform(name, lowest, highest):
  drawn = np.asarray(parity_table.draws(name, COUNT, 3))
  size = np.abs(drawn)
  test = stats.kstest(size, "uniform", (lowest, highest - lowest))
  assert test.pvalue > 1e-3
  if name.startswith("shear"):
    assert abs(np.mean(drawn > 0) - 0.5) < 5 * 0.5 / 200  # 5 standard errors
    rank = stats.spearmanr(size, drawn > 0).statistic
    assert abs(rank) < 5 / 200  # the sign does not depend on the size


def test_translations_follow_the_image_size():
  wide = parity_table.draws("translate_x", 2000, 10, (16, 64))
  tall = parity_table.draws("translate_y", 2000, 10, (16, 64))
  assert (np.abs(wide).max(), np.abs(tall).max()) == (21, 5)
