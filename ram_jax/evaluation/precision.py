"""Precision of matrix products and convolutions in the evaluation.

Attacks search in `config.evaluate.precision`. Everything that is counted, on
clean, corrupted and adversarial images, is classified in full float32. A lower
precision can therefore miss adversarial images, but it cannot invent them.
"""

import flax.struct
import jax

from ram_jax.contracts import Model

FULL = "float32"
# The only platform that has a lower precision.
PLATFORMS = {"tensorfloat32": "gpu", "bfloat16_3x": "tpu"}


@flax.struct.dataclass
class Searched:
  """A model as an attack's search sees it.

  Attributes:
    model: the model; call it to classify in the ambient precision.
    precision: "float32" or a key of `PLATFORMS`.
  """

  model: Model
  precision: str = flax.struct.field(pytree_node=False)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Logits [B,K] of images [B,H,W,C], whose gradients are as precise."""
    # "high" is TensorFloat32 on GPUs, three products of bfloat16 on TPUs.
    level = "highest" if self.precision == FULL else "high"
    with jax.default_matmul_precision(level):
      return self.model(images)


def resolve(name: str | None, field: str) -> str:
  """Checks the precision of the search, or chooses it for this platform.

  Args:
    name: "float32" or a key of `PLATFORMS`. None: TensorFloat32 on GPUs, as in
      PyTorch's convolutions, and float32 elsewhere.
    field: where it was given, for the message.

  Returns:
    The precision.

  Raises:
    ValueError: for an unknown one, or one that this platform does not have.
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
