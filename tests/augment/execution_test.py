"""All executions give the same levels, on CPUs, where each can run.

`augmix_test` compares one of them with Pillow.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.augment import augmix, execution

SLOW = pytest.mark.slow


def images(count, shape):
  """Noise on few and on many levels, and flat images."""
  rng = np.random.default_rng(0)
  some = [
    rng.integers(*np.sort(rng.choice(256, 2, False)), shape, endpoint=True)
    if i % 9
    else np.full(shape, rng.integers(256))
    for i in range(count)
  ]
  return np.stack(some).astype(np.uint8)


def run(function, *arguments):
  """Compiled in half the time; whole numbers do not depend on it."""
  fast = {"xla_backend_optimization_level": 0}
  return np.asarray(jax.jit(function, compiler_options=fast)(*arguments))


@pytest.mark.parametrize(
  ("severity", "shape"),
  [
    (3, (32, 32, 3)),
    (10, (9, 9, 1)),
    *(
      pytest.param(severity, (size, size, 3), marks=SLOW)
      for severity in (1, 4.5, 8, 10)
      for size in (8, 10, 32)
    ),
  ],
)
def test_executions_are_equal(severity, shape):
  augment = augmix.Augment(severity=severity)
  keys = jax.random.split(jax.random.key(7), 40)
  plan, params = augment._arguments(keys, shape[:2])
  assert set(np.unique(plan)) == set(range(10))
  chains = images(len(plan), shape), plan, params
  operations = tuple(augment._operations().values())
  ours = run(functools.partial(execution.one_by_one, operations), *chains)
  for other in (
    functools.partial(execution.dense, operations),
    functools.partial(execution.table_and_warp, severity),
  ):
    np.testing.assert_array_equal(run(other, *chains), ours)


def text(shape, platform):
  """AugMix's program for a platform."""

  def program(seed, x):
    keys = jax.random.split(jax.random.key(seed), len(x))
    return augmix.Augment()(keys, x)

  export = jax.export.export(jax.jit(program), platforms=[platform])
  return export(jnp.uint32(0), jnp.zeros(shape)).mlir_module()


def test_each_platform_has_its_execution():
  tpu, cpu = (text((2, 8, 8, 1), platform) for platform in ("tpu", "cpu"))
  assert "gather" not in tpu
  # On CPUs alone, there is a loop over chains, too.
  assert tpu.count("stablehlo.while(") < cpu.count("stablehlo.while(")


@pytest.mark.parametrize(
  ("fields", "size", "covered"),
  [
    ({}, (32, 32), True),
    ({}, (32, 33), False),
    ({"operations": 13}, (32, 32), False),
    ({"resampling": "author"}, (32, 32), False),
    ({"severity": 10}, (96, 96), False),
  ],
)
def test_what_tables_and_warps_cover(fields, size, covered):
  augment = augmix.Augment(**fields)
  operations, shape = tuple(augment._operations().values()), (2, *size, 3)
  ours = execution.covered(operations, augment.severity, shape)
  assert ours == covered
