"""Runs sampled chains: one implementation per platform, identical results.

A chain is a row of the plan: indices of operations, each with its parameter. An
index without an operation leaves the image unchanged.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ram_jax.augment import ops
from ram_jax.image import color, warp

# The operations that are lookup tables or affine warps, in the plan's order.
_NAMES = tuple(ops.OPS)[:9]
# Largest displacement in rows that `table_and_warp` supports: the size of a
# warp's program grows with the square of the displacement.
_MAX_ROWS = 16


def run(
  operations: Sequence[ops.Op],
  severity: float,
  levels: jax.Array,
  plan: jax.Array,
  params: jax.Array,
) -> jax.Array:
  """Runs chains with the fastest implementation for the platform.

  Args:
    operations: the operations that the plan's indices refer to.
    severity: the severity for which the parameters were drawn.
    levels: uint8 [N,H,W,C].
    plan: int32 [N,slots].
    params: float32 [N,slots], 0 where the plan has no operation.

  Returns:
    uint8 [N,H,W,C].
  """
  everywhere = functools.partial(dense, operations)
  tpu = everywhere
  if covered(operations, severity, levels.shape):
    tpu = functools.partial(table_and_warp, severity)
  return jax.lax.platform_dependent(
    levels,
    plan,
    params,
    cpu=functools.partial(one_by_one, operations),
    tpu=tpu,
    default=everywhere,
  )


def one_by_one(operations: Sequence[ops.Op], *chains: jax.Array) -> jax.Array:
  """For CPUs: a loop over chains runs only the sampled operations."""
  return jax.lax.map(lambda one: _chain(operations, *one), chains)


def dense(operations: Sequence[ops.Op], *chains: jax.Array) -> jax.Array:
  """For GPUs, and TPUs if not `covered`: all operations run on all chains.

  In each slot, every chain then selects the result of its own operation. Each
  operation compiles to a few large kernels, and nothing waits for the host.
  """
  return jax.vmap(functools.partial(_chain, operations))(*chains)


def _chain(
  operations: Sequence[ops.Op],
  levels: jax.Array,
  plan: jax.Array,
  params: jax.Array,
) -> jax.Array:
  """Runs one chain [H,W,C]; vmap turns its branches into a selection."""
  branches = [*operations, lambda levels, _: levels]

  def slot(levels: jax.Array, step: tuple) -> tuple:
    return jax.lax.switch(step[0], branches, levels, step[1]), None

  return jax.lax.scan(slot, levels, (plan, params))[0]


def covered(
  operations: Sequence[ops.Op], severity: float, shape: Sequence[int]
) -> bool:
  """Whether `table_and_warp` covers these operations and images [N,H,W,C]."""
  _, height, width, _ = shape
  same = tuple(operations) == tuple(ops.OPS[name] for name in _NAMES)
  near = warp.bounds(severity, height).rows <= _MAX_ROWS
  return same and height == width and near


def table_and_warp(
  severity: float, levels: jax.Array, plan: jax.Array, params: jax.Array
) -> jax.Array:
  """For TPUs: every slot is a table per channel and then an affine warp.

  An operation that is only a table is followed by the identity warp, and one
  that is only a warp follows the identity table, so nothing is selected. There
  are no gathers, and the last axis of the images in the loop is pixels or
  chains, never channels.
  """
  count, size, _, channels = levels.shape
  limits = warp.bounds(severity, size)

  def slot(words: jax.Array, step: tuple) -> tuple:
    planes = _unpack(words.reshape(-1, count).T, channels)
    planes = planes.reshape(channels * count, -1)
    tables = _tables(planes, *(jnp.tile(x, channels) for x in step))
    planes = color.map_planes(planes, tables).reshape(channels, count, -1)
    words = _pack(planes).T.reshape(size, size, count)
    motion = {name: _param(name, *step) for name in _NAMES}
    return warp.warp(words, motion, limits), None

  planes = jnp.moveaxis(levels, 3, 0).astype(jnp.float32)
  words = _pack(planes.reshape(channels, count, -1)).T
  words = words.reshape(size, size, count)
  words, _ = jax.lax.scan(slot, words, (plan.T, params.T))
  return _unpack(words, channels).transpose(3, 1, 2, 0).astype(jnp.uint8)


def _pack(planes: jax.Array) -> jax.Array:
  """Packs integer-valued floats [C,...] in 0..255 into bytes of int32 [...]."""
  total = sum(plane * 256**i for i, plane in enumerate(planes))
  return total.astype(jnp.int32)


def _unpack(words: jax.Array, channels: int) -> jax.Array:
  """The lowest C bytes of int32 [...], as int32 [C,...]."""
  return jnp.stack([words >> 8 * i & 255 for i in range(channels)])


def _param(
  name: str, number: jax.Array, param: jax.Array, otherwise: float = 0
) -> jax.Array:
  """The parameter where the operation is `name`, else that of an identity."""
  return jnp.where(number == _NAMES.index(name), param, otherwise)


def _tables(
  planes: jax.Array, number: jax.Array, param: jax.Array
) -> jax.Array:
  """Tables [N,256] of the operations for planes [N,P], or identities."""
  number, param = number[:, None], param[:, None]
  counts = color.counts_of_planes(planes)
  lowest = jnp.min(planes, -1, keepdims=True)
  highest = jnp.max(planes, -1, keepdims=True)
  level = jnp.arange(color.LEVELS, dtype=jnp.uint8)
  table = color.solarize(level, _param("solarize", number, param, 256))
  table = color.posterize(table, _param("posterize", number, param, 8))
  for name, made in (
    ("equalize", color.equalize_table(counts)),
    ("autocontrast", color.autocontrast_table(lowest, highest)),
  ):
    table = jnp.where(number == _NAMES.index(name), made, table)
  return table
