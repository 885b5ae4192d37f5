"""AugMix (Hendrycks et al., ICLR 2020): mixed chains of random operations.

As in the original, operations, levels, depths and weights are drawn
independently for every image. How the chains are then run depends on the
platform, but the result does not.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ram_jax import checks
from ram_jax import keys as random
from ram_jax.augment import execution, ops
from ram_jax.image import color

_FLAVORS = {"bilinear": ops.OPS, "author": ops.OPS_AUTHOR}

_LANES = 16


@dataclasses.dataclass(frozen=True)
class Augment:
  """AugMix of a batch: `(1 - m) x + m * sum_i w_i chain_i(x)`.

  Attributes:
    operations: 9 (the paper's), 13 (with color, contrast, brightness and
      sharpness, which overlap the corruptions of CIFAR-10-C), or 14 (those of
      TrivialAugment, with its magnitudes; some overlap these corruptions, too).
    resampling: 'bilinear' as in AugMix's code; 'author' as in the code of
      RobustAugMix (nearest-neighbor rotation, bicubic shear). Not used by the
      14 operations.
    width: chains per image; their weights are w ~ Dirichlet(alpha).
    depth: operations per chain; -1: uniform from 1 to 3, as in AugMix's code.
    severity: largest level, 1 to 10; not used by the 14 operations.
    alpha: parameter of the Dirichlet distribution and of m ~ Beta(alpha,
      alpha).

  Raises:
    ValueError: at construction, on a value outside its range.
  """

  operations: int = 9
  resampling: str = "bilinear"
  width: int = 3
  depth: int = -1
  severity: float = 3
  alpha: float = 1.0

  def __post_init__(self) -> None:
    checks.check(
      vars(self),
      operations=checks.one_of(9, 13, 14),
      resampling=checks.one_of(*_FLAVORS),
      width=checks.integer(1),
      severity=("a number from 1 to 10", lambda v: 1 <= v <= 10),
      alpha=checks.POSITIVE,
      depth=(
        "an integer, at least 1, or -1 (random, from 1 to 3)",
        lambda v: type(v) is int and (v == -1 or v >= 1),
      ),
    )

  @jax.named_scope("augment")
  def __call__(self, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Augments a batch; example i only depends on keys[i] and images[i].

    Args:
      keys: typed keys [B].
      images: floats [B,H,W,C] in [0,1], C = 1 or 3, rounded to 8-bit levels
        inside the chains.

    Returns:
      Images [B,H,W,C] in [0,1], mixed in floats and not rounded.
    """
    return self.mix(keys, images, self.chains(keys, images))

  def chains(self, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Runs every image through its chains.

    Args:
      keys: typed keys [B].
      images: floats [B,H,W,C] in [0,1].

    Returns:
      Images [B,width,H,W,C], rounded to 256 levels.
    """
    batch, height, width, channels = images.shape
    plan_keys, _ = random.split(keys)
    plan, params = self._arguments(plan_keys, (height, width))
    levels = jnp.repeat(color.quantize(images), self.width, axis=0)
    operations = tuple(self._operations().values())
    levels = execution.run(operations, self.severity, levels, plan, params)
    levels = levels.reshape(batch, self.width, height, width, channels)
    return color.dequantize(levels, images.dtype)

  def mix(
    self, keys: jax.Array, images: jax.Array, chains: jax.Array
  ) -> jax.Array:
    """Mixes chains with each other and with their image.

    Args:
      keys: typed keys [B], the ones given to `chains`.
      images: floats [B,H,W,C] in [0,1].
      chains: floats [B,width,H,W,C] in [0,1].

    Returns:
      Images [B,H,W,C] in [0,1].
    """
    _, mix_keys = random.split(keys)
    weights, share = self._weights(mix_keys)
    weights = weights.astype(images.dtype)[..., None, None, None]
    share = share.astype(images.dtype)[:, None, None, None]
    mixed = sum(
      _product(weights[:, i], chains[:, i]) for i in range(self.width)
    )
    return jnp.clip(_product(1 - share, images) + _product(share, mixed), 0, 1)

  def _weights(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The chains' weights [B,width] and the augmented fractions m [B]."""
    if self.alpha == 1:
      return jax.vmap(self._spacings)(keys)
    # On CPUs, exp() rounds differently in vector code, so always use vectors.
    count = keys.shape[0]
    rows = jnp.arange(-(-count // _LANES) * _LANES) % count
    drawn = jax.vmap(self._gammas)(keys[rows])
    weights, share = jax.lax.optimization_barrier(drawn)
    return weights[:count], share[:count]

  def _spacings(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Dirichlet(1), as the gaps between sorted uniforms, and Beta(1, 1)."""
    uniforms = jax.random.uniform(key, (self.width,), jnp.float32)
    cuts = jnp.sort(uniforms[1:])
    ends = jnp.zeros(1, jnp.float32), jnp.ones(1, jnp.float32)
    return jnp.diff(jnp.concatenate([ends[0], cuts, ends[1]])), uniforms[0]

  def _gammas(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Dirichlet(alpha) and Beta(alpha, alpha), as normalized gammas."""
    shape = (self.width + 2,)
    logs = jax.random.loggamma(key, self.alpha, shape, jnp.float32)
    weights = jax.nn.softmax(logs[: self.width])
    return weights, jax.nn.softmax(logs[self.width :])[0]

  def _operations(self) -> dict[str, ops.Op]:
    """The operations that the numbers in a plan refer to, by name."""
    if self.operations == len(ops.TRIVIAL):
      return {name: ops.OPS[name] for name in ops.TRIVIAL}
    return dict(list(_FLAVORS[self.resampling].items())[: self.operations])

  def _arguments(
    self, keys: jax.Array, size: tuple[int, int]
  ) -> tuple[jax.Array, jax.Array]:
    """The plan of all chains, and its operations' parameters: [N,slots]."""
    plan, uniforms = jax.vmap(self._plan)(keys)
    plan = plan.reshape(len(keys) * self.width, -1)
    uniforms = uniforms.reshape(*plan.shape, 2)
    if self.operations == len(ops.TRIVIAL):
      drawn = ops.trivial_parameters(uniforms)
    else:
      drawn = ops.parameters(uniforms, self.severity, size)
    params = jnp.zeros(plan.shape, jnp.float32)
    for number, name in enumerate(self._operations()):
      params = jnp.where(plan == number, drawn[name], params)
    return plan, params

  def _plan(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Operations [width,slots] of one image's chains and their uniforms.

    Slots beyond a chain's depth contain the number `operations`, which stands
    for no operation.
    """
    least, most = (1, 3) if self.depth == -1 else (self.depth, self.depth)
    # A single draw with one axis saves seconds of compilation.
    shape = (self.width, 1 + 3 * most)
    drawn = jax.random.uniform(key, (shape[0] * shape[1],), jnp.float32)
    drawn = drawn.reshape(shape)
    depth, choice, uniforms = jnp.split(drawn, (1, 1 + most), axis=1)
    depth = least + jnp.floor(depth * (most - least + 1))
    choice = jnp.floor(choice * self.operations).astype(jnp.int32)
    plan = jnp.where(jnp.arange(most) < depth, choice, self.operations)
    return plan, uniforms.reshape(self.width, most, 2)


def _product(first: jax.Array, second: jax.Array) -> jax.Array:
  """The product of numbers in [0,1], never fused with a following sum.

  Otherwise, which of two products a compiler fuses depends on the batch size;
  the minimum prevents this.
  """
  return jnp.minimum(first * second, 1)
