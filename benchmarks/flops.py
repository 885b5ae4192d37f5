"""Floating-point operations of a network, and the peak rate of a device."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks import timing

# Forward passes that a step costs: a backward pass to the pixels is worth
# one more, one to the weights and the activations two.
PASSES = {
  "standard": lambda attack_steps: 3,
  "adversarial": lambda attack_steps: 2 * attack_steps + 3,
  "augmix": lambda attack_steps: 9,
  "robust_augmix": lambda attack_steps: 2 * attack_steps + 9,
}


def forward(module: nn.Module, size: int = 32) -> int:
  """Operations of one image's forward pass, padding included.

  Args:
    module: the network.
    size: side of the image.

  Returns:
    Twice the multiplications of its convolutions and products of matrices.
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
  """Operations a second of one large product of matrices on one device.

  Args:
    dtype: of the matrices.
    size: their side.
    repeats: rounds, of which the median counts.

  Returns:
    FLOP/s.
  """
  matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
  # Several products in a call: its start costs little beside them.
  product = jax.jit(lambda a: (a @ a) @ a @ a)
  found = timing.compare({"matmul": lambda: product(matrix)}, repeats)
  return 3 * 2 * size**3 / found["matmul"]["seconds"]
