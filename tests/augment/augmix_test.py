"""AugMix: equal to Pillow's chains, iid, the same in any batch or device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ram_jax.augment import augmix, ops
from tests.augment import parity_table

KEYS = jax.random.split(jax.random.key(5), 37)
FEW = 8  # images of all tests that can share a compiled program
SLOW = pytest.mark.slow


def images(count=37, shape=(32, 32, 3)):
  """Smooth ramps with noise, on 256 levels: near to real images."""
  rng = np.random.default_rng(0)
  ramp = np.linspace(0, 150, shape[1])[:, None] + np.zeros(shape)
  noise = rng.normal(0, 20, (count, *shape)) + rng.integers(
    0, 99, (count, 1, 1, 1)
  )
  return jnp.asarray(np.clip(ramp + noise, 0, 255).round() / 255, jnp.float32)


@functools.cache
def program(augment):
  """`(keys, images)` to chains and their mix: one program for all tests."""

  def chains_and_mix(keys, images):
    chains = augment.chains(keys, images)
    return chains, augment.mix(keys, images, chains)

  return jax.jit(chains_and_mix)


@functools.cache
def plans(augment, count=20000):
  keys = jax.random.split(jax.random.key(1), count)
  return [np.asarray(p) for p in jax.jit(jax.vmap(augment._plan))(keys)]


def replay(augment, keys, levels, flavour):
  """Executes the drawn plans one by one with Pillow: levels [B,W,H,W,C]."""
  plan_keys = jnp.stack([jax.random.split(key)[0] for key in keys])
  plan, uniforms = jax.vmap(augment._plan)(plan_keys)
  size, names = levels.shape[1:3], list(ops.OPS)
  params = ops.parameters(uniforms, augment.severity, size)
  result = np.repeat(levels[:, None], augment.width, axis=1)
  for i, chain, slot in np.ndindex(*plan.shape):
    number = int(plan[i, chain, slot])
    if number < augment.operations:
      name = names[number]
      param = params[name][i, chain, slot] if name in params else 0
      result[i, chain] = parity_table.pillow(
        result[i, chain], name, param, flavour
      )
  return result


@pytest.mark.parametrize(
  "augment",
  [augmix.Augment(), augmix.Augment(13, "author", 2, 3, severity=10)],
)
def test_chains_equal_pillow(augment):
  batch, keys = images()[:FEW], KEYS[:FEW]
  levels = np.asarray(jnp.round(batch * 255)).astype(np.uint8)
  expected = replay(augment, keys, levels, augment.resampling)
  ours = np.asarray(jnp.round(program(augment)(keys, batch)[0] * 255))
  # A level lost to interpolation can grow in an equalisation after it.
  assert np.mean(ours != expected) <= 1e-3
  distinct = np.unique(ours.reshape(FEW * augment.width, -1), axis=0)
  assert len(distinct) == FEW * augment.width
  # The other resampling changes the chains that have such an operation.
  other = {"bilinear": "author", "author": "bilinear"}[augment.resampling]
  other = replay(augment, keys, levels, other)
  share = np.mean(np.any(expected != other, axis=(2, 3, 4)))
  # Of the operations 3/9 differ: of depths 1 to 3, 1 - mean((2/3)^d) = 0.53;
  # and 3/13: of depth 3, 1 - (10/13)^3 = 0.54.
  assert 0.2 < share < 0.8


def test_the_mix_is_the_drawn_one_and_is_not_rounded():
  augment, batch, keys = augmix.Augment(), images()[:FEW], KEYS[:FEW]
  chains, ours = program(augment)(keys, batch)
  chains, ours = np.asarray(chains, np.float64), np.asarray(ours)
  mix_keys = jnp.stack([jax.random.split(key)[1] for key in keys])
  weights, share = [np.asarray(a) for a in augment._weights(mix_keys)]
  share = share[:, None, None, None]
  mixed = np.einsum("bw,bwijc->bijc", weights, chains)
  target = (1 - share) * np.asarray(batch) + share * mixed
  np.testing.assert_allclose(ours, target, atol=3e-7)
  assert np.abs(255 * ours - np.round(255 * ours)).max() > 0.4


@pytest.mark.parametrize("count", [FEW, pytest.param(37, marks=SLOW)])
def test_an_example_depends_on_its_own_key_and_image_alone(count):
  augment, batch, keys = augmix.Augment(), images()[:count], KEYS[:count]
  together = np.asarray(program(augment)(keys, batch)[1])
  for i in (0, 5, count - 1):
    alone = program(augment)(keys[i : i + 1], batch[i : i + 1])[1]
    np.testing.assert_array_equal(alone[0], together[i])
  order = np.random.default_rng(0).permutation(count)
  permuted = program(augment)(keys[order], batch[order])[1]
  np.testing.assert_array_equal(permuted, together[order])


@pytest.mark.parametrize("devices", [pytest.param(2, marks=SLOW), 4])
def test_devices_do_not_change_a_bit(devices):
  augment, batch, keys = augmix.Augment(), images()[:FEW], KEYS[:FEW]
  one = np.asarray(program(augment)(keys, batch)[1])
  shards = jax.tree.map(
    lambda a: a.reshape(devices, FEW // devices, *a.shape[1:]), (keys, batch)
  )
  spread = jax.pmap(augment, devices=jax.devices()[:devices])(*shards)
  np.testing.assert_array_equal(np.asarray(spread).reshape(one.shape), one)


def test_mixing_weights_from_gammas_do_not_depend_on_the_batch():
  augment = augmix.Augment(alpha=0.3)
  chains = jnp.stack([images(), images() ** 2, 1 - images()], axis=1)
  mix = jax.jit(augment.mix)
  together = np.asarray(mix(KEYS, images(), chains))
  alone = mix(KEYS[:1], images()[:1], chains[:1])
  np.testing.assert_array_equal(alone, together[:1])


def test_wide_types_change_no_level():
  augment, batch, keys = augmix.Augment(), images()[:FEW], KEYS[:FEW]
  expected = np.asarray(program(augment)(keys, batch)[0])
  with jax.enable_x64(True):
    wide = np.asarray(batch, np.float64).round(12)
    wide = jax.jit(augment.chains)(keys, jnp.asarray(wide))
    assert wide.dtype == jnp.float64
    np.testing.assert_array_equal(
      np.round(wide * 255), (expected * 255).round()
    )


def test_depth_is_the_number_of_operations():
  plan, _ = plans(augmix.Augment(depth=2, width=1), 50)
  assert plan.shape == (50, 1, 2) and plan.max() < 9


@pytest.mark.parametrize("operations", [9, 13])
def test_operations_and_depths_are_uniform_and_independent(operations):
  plan, uniforms = plans(augmix.Augment(operations))
  depth = np.sum(plan < operations, axis=2)
  # Chi-squared over many draws; p > 1e-4 with fixed seeds.
  assert stats.chisquare(np.bincount(depth.ravel())[1:]).pvalue > 1e-4
  assert np.all((plan < operations) == (np.arange(3) < depth[..., None]))
  used = plan[plan < operations]
  assert stats.chisquare(np.bincount(used, minlength=operations)).pvalue > 1e-4
  pairs = {
    "chains of an image": (plan[:, 0, 0], plan[:, 1, 0]),
    "slots of a chain": plan[depth[:, 0] > 1, 0, :2].T,
    "images": (plan[:-1, 0, 0], plan[1:, 0, 0]),
    "depths": (depth[:, 0] - 1, depth[:, 1] - 1),
    "depth and operation": (depth[:, 0] - 1, plan[:, 0, 0]),
    "level and operation": (
      (9 * uniforms[:, 0, 0, 0]).astype(int),
      plan[:, 0, 0],
    ),
    "level and sign": (8 * uniforms[:, 0, 0]).astype(int).T,
  }
  for name, (first, second) in pairs.items():
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-4, name


@pytest.mark.parametrize("alpha", [0.5, 1.0, pytest.param(3.0, marks=SLOW)])
def test_weights_are_dirichlet_and_shares_beta(alpha):
  count = 20000
  augment = augmix.Augment(alpha=alpha)
  keys = jax.random.split(jax.random.key(2), count)
  weights, share = [np.asarray(a) for a in jax.jit(augment._weights)(keys)]
  np.testing.assert_allclose(weights.sum(axis=1), 1, atol=3e-7)
  assert weights.min() >= 0
  # Marginals of Dirichlet(a, a, a) are Beta(a, 2a); their covariance is
  # -a^2 / ((3a)^2 (3a + 1)) = -1 / (9 (3a + 1)).
  for i in range(3):
    law = stats.beta(alpha, 2 * alpha)
    assert stats.kstest(weights[:, i], law.cdf).pvalue > 1e-4
  product = weights[:, 0] * weights[:, 1]
  expected = 1 / 9 - 1 / (9 * (3 * alpha + 1))
  error = product.std() / np.sqrt(count)
  assert abs(product.mean() - expected) < 5 * error
  law = stats.beta(alpha, alpha)
  assert stats.kstest(share, law.cdf).pvalue > 1e-4
  assert abs(stats.spearmanr(share, weights[:, 0]).statistic) < 5 / count**0.5


@pytest.mark.parametrize("shape", [(1, 20, 33, 3), (5, 28, 28, 1)])
def test_any_size_runs_and_lowers_for_tpu(shape):
  augment = augmix.Augment(13, "author")
  function = jax.jit(
    lambda seed, x: augment(jax.random.split(jax.random.key(seed), len(x)), x)
  )
  batch = images(shape[0], shape[1:])
  exported = jax.export.export(function, platforms=["tpu"])(
    jnp.uint32(0), batch
  )
  text = exported.mlir_module()
  # The histogram and its lookup are products there.
  assert "dot_general" in text
  assert exported.out_avals[0].shape == shape


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"operations": 10}, "operations is 10: give 9 or 13 or 14"),
    ({"resampling": "cubic"}, "'cubic': give bilinear or author"),
    ({"width": 0}, "width is 0: give an integer, at least 1"),
    ({"width": 3.0}, "width is 3.0"),
    ({"depth": (1, 3)}, r"depth is \(1, 3\): give an integer"),
    ({"depth": 0}, r"depth is 0: give an integer, .* -1 \(random, from 1 to 3"),
    ({"severity": 11}, "severity is 11: give a number from 1 to 10"),
    ({"alpha": 0}, "alpha is 0: give a finite number above 0"),
    ({"alpha": float("nan")}, "alpha is nan"),
  ],
)
def test_a_wrong_field_is_refused_at_construction(fields, message):
  with pytest.raises(ValueError, match=message):
    augmix.Augment(**fields)
