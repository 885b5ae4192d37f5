"""Adversarial weight perturbation (Wu et al. 2020, arXiv 2004.05884)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

SMALL = 1e-20  # added to the norm of a gradient, as in the authors' code


@dataclasses.dataclass(frozen=True)
class WeightPerturbation:
  """Perturbs each weight tensor along its gradient, to increase the loss.

  Attributes:
    gamma: norm of the perturbation relative to that of the tensor; 0: none.
    first_step: number of training steps before the first perturbation.
  """

  gamma: float
  first_step: int = 0

  def __call__(self, params: Any, gradient: Any, step: jax.Array) -> Any:
    """The perturbed parameters.

    Args:
      params: parameters. Biases and BatchNorm scales are not perturbed.
      gradient: gradient of the batch's mean loss at the parameters.
      step: number of completed steps.

    Returns:
      Parameters, unchanged before `first_step`.
    """
    gamma = jnp.where(step >= self.first_step, self.gamma, 0.0)

    def add(weight: jax.Array, slope: jax.Array) -> jax.Array:
      if weight.ndim < 2:
        return weight
      size = jnp.linalg.norm(weight) / (jnp.linalg.norm(slope) + SMALL)
      return weight + gamma.astype(weight.dtype) * size * slope

    return jax.tree.map(add, params, gradient)
