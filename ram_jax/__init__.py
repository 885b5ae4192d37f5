"""RobustAugMix in JAX: training and evaluation of robust image classifiers."""

from typing import Any


def __getattr__(name: str) -> Any:
  """Imports `autoattack` on first use."""
  if name == "autoattack":
    from ram_jax.evaluation.autoattack import autoattack

    return autoattack
  raise AttributeError(f"module 'ram_jax' has no attribute {name!r}")
