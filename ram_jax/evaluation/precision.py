"""Precision of matrix products and convolutions in the evaluation.

The attacks' search uses `config.evaluate.precision`. All images that count
toward a result, whether clean, corrupted or adversarial, are classified in
full float32. A search with lower precision can therefore miss adversarial
images, but it cannot report false ones.
"""

import flax.struct
import jax

from ram_jax.contracts import Model

FULL = "float32"
# The only platform that supports each lower precision.
PLATFORMS = {"tensorfloat32": "gpu", "bfloat16_3x": "tpu"}


@flax.struct.dataclass
class Searched:
  """A model whose calls use the precision of an attack's search.

  Attributes:
    model: the wrapped model; direct calls to it use the ambient precision.
    precision: "float32" or a key of `PLATFORMS`.
  """

  model: Model
  precision: str = flax.struct.field(pytree_node=False)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Logits [B,K] of images [B,H,W,C]; gradients have the same precision."""
    # "high" is TensorFloat32 on GPUs, and three bfloat16 passes on TPUs.
    level = "highest" if self.precision == FULL else "high"
    with jax.default_matmul_precision(level):
      return self.model(images)


def resolve(name: str | None, field: str) -> str:
  """Checks the precision of the search, or selects this platform's default.

  Args:
    name: "float32" or a key of `PLATFORMS`. None: TensorFloat32 on GPUs, as in
      PyTorch's convolutions, and float32 elsewhere.
    field: name of the config field, for the error message.

  Returns:
    The precision.

  Raises:
    ValueError: for a precision that is unknown or not supported here.
  """
  platform = jax.default_backend()
  if name is None:
    return "tensorfloat32" if platform == "gpu" else FULL
  if name != FULL and PLATFORMS.get(name) != platform:
    raise ValueError(
      f"{field} is {name!r}: give float32, tensorfloat32 (only on GPUs) or "
      f"bfloat16_3x (only on TPUs); this platform is {platform!r}"
    )
  return name
