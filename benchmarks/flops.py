"""Floating-point operations of a network, and the peak rate of a device."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks import timing

# Cost of a step in forward passes: a backward pass to the pixels counts as one,
# and a backward pass to weights and activations as two.
PASSES = {
  "standard": lambda attack_steps: 3,
  "adversarial": lambda attack_steps: 2 * attack_steps + 3,
  "augmix": lambda attack_steps: 9,
  "robust_augmix": lambda attack_steps: 2 * attack_steps + 9,
}


def forward(module: nn.Module, size: int = 32) -> int:
  """Counts the operations of one image's forward pass, even those on padding.

  Args:
    module: the network.
    size: side of the image.

  Returns:
    Twice the number of multiplications in convolutions and matrix products.
  """
  images = jnp.zeros((1, size, size, 3))
  init = jax.eval_shape(lambda: module.init(jax.random.key(0), images, False))
  traced = jax.make_jaxpr(lambda v, x: module.apply(v, x, False))(init, images)
  return _count(traced.jaxpr)


def _count(jaxpr: Any) -> int:
  total = 0
  for equation in jaxpr.eqns:
    for value in equation.params.values():
      inner = getattr(value, "jaxpr", value)
      total += _count(inner) if hasattr(inner, "eqns") else 0
    outputs = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "conv_general_dilated":
      kernel = equation.invars[1].aval.shape
      features = equation.params["dimension_numbers"].rhs_spec[0]
      total += 2 * outputs * math.prod(kernel) // kernel[features]
    elif equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      shape = equation.invars[0].aval.shape
      total += 2 * outputs * math.prod(shape[i] for i in contracted)
  return total


def matmul_peak(dtype: str, size: int, repeats: int = 5) -> float:
  """Measures the speed of a large matrix product on one device.

  Args:
    dtype: dtype of the matrices.
    size: number of rows and columns.
    repeats: number of rounds; the median is used.

  Returns:
    FLOP/s.
  """
  matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
  # Several products per call, so that the launch overhead is negligible.
  product = jax.jit(lambda a: (a @ a) @ a @ a)
  found = timing.compare({"matmul": lambda: product(matrix)}, repeats)
  return 3 * 2 * size**3 / found["matmul"]["seconds"]
