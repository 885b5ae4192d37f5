"""Square attack (Andriushchenko et al., arXiv 1912.00049).

A random search that uses scores but no gradients.
"""

import math
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import losses
from ram_jax.attacks import iterative, objectives
from ram_jax.attacks.norms import radius_inside
from ram_jax.contracts import Model

# After each of these iterations, the area of the windows is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_TILES = 5  # per side, of the first perturbation in L2
_TINY = 1e-12  # avoids division by zero


@flax.struct.dataclass
class State:
  """State of the attack; every leaf has a leading axis B.

  Attributes:
    keys: the examples' keys [B]; a query's draws depend on its key and number.
    given: the clean images [B,H,W,C].
    labels: their classes [B].
    best: images with the lowest margin so far [B,H,W,C].
    margin: their margin [B]: the label's logit minus the largest other one,
      negative if and only if the image is misclassified.
    iteration: number of steps so far, integers [B].
  """

  keys: jax.Array
  given: jax.Array
  labels: jax.Array
  best: jax.Array
  margin: jax.Array
  iteration: jax.Array


@flax.struct.dataclass
class Attack(iterative.Iterative):
  """Square: random search with square-shaped changes, one query per step.

  Follows AutoAttack (fra31/auto-attack `square.py`, margin loss, schedule not
  rescaled), with one difference: in AutoAttack, all examples of a batch share
  the positions of the windows; here each example draws its own.

  Attributes:
    steps: number of queries after the first one.
    p_init: fraction of the pixels that the first windows cover, in (0, 1].
  """

  steps: int = flax.struct.field(pytree_node=False, default=5000)
  p_init: float = flax.struct.field(pytree_node=False, default=0.8)

  label: ClassVar[str] = "Square"

  def start(
    self,
    keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    targets: jax.Array,
    model: Model,
  ) -> State:
    """The first query, as in `iterative.Iterative`."""
    del targets
    start = {"l2": _l2_start, "linf": _linf_start}[self.norm]
    first = jax.vmap(lambda key, image: start(key, image, self.epsilon))(
      _fold(keys, jnp.zeros(labels.shape, jnp.int32)), images
    )
    return State(
      keys=keys,
      given=images,
      labels=labels,
      best=first,
      margin=_margin(model(first), labels).astype(images.dtype),
      iteration=jnp.zeros(labels.shape, jnp.int32),
    )

  def step(self, state: State, model: Model) -> State:
    """One query for every example, as in `iterative.Iterative`."""
    iteration = state.iteration
    keys = _fold(state.keys, iteration + 1)
    candidate = self._propose(keys, state.given, state.best, iteration)
    margin = _margin(model(candidate), state.labels).astype(state.margin.dtype)
    better = margin < state.margin
    return state.replace(
      best=iterative.select(better, candidate, state.best),
      margin=jnp.where(better, margin, state.margin),
      iteration=iteration + 1,
    )

  def images(self, state: State) -> jax.Array:
    """Adversarial images, or the clean ones, [B,H,W,C]."""
    return iterative.select(self.found(state), state.best, state.given)

  def found(self, state: State) -> jax.Array:
    """Whether an example is misclassified, bool [B]."""
    return state.margin < 0

  def _propose(
    self,
    keys: jax.Array,
    given: jax.Array,
    best: jax.Array,
    iteration: jax.Array,
  ) -> jax.Array:
    """The next candidates [B,H,W,C]."""
    sizes = window_sizes(self.norm, given.shape[1:3], self.p_init)
    change = {"l2": _l2_change, "linf": _linf_change}[self.norm]

    def propose(
      key: jax.Array, given: jax.Array, best: jax.Array, iteration: jax.Array
    ) -> jax.Array:
      stage = jnp.sum(iteration > np.asarray(_HALVINGS), dtype=jnp.int32)
      drawn = _draw(key, given.shape, jnp.asarray(sizes)[stage])
      return change(drawn, given, best, self.epsilon, sizes, stage)

    return jax.vmap(propose)(keys, given, best, iteration)


@flax.struct.dataclass
class Draw:
  """The random draws for one query of one example.

  Attributes:
    corners: upper left corners of two windows, integers [2, 2].
    transposed: whether the pattern is transposed.
    signs: +1 or -1 for each channel, [C].
  """

  corners: jax.Array
  transposed: jax.Array
  signs: jax.Array


def _draw(key: jax.Array, shape: tuple[int, ...], size: jax.Array) -> Draw:
  """Draws a query; as in the original code, no window touches the far edges."""
  bits = jax.random.bits(key, (5 + shape[2],), jnp.uint32)
  ends = jnp.maximum(jnp.asarray(shape[:2], jnp.int32) - size, 1)
  # The modulo bias is below ends / 2^32.
  corners = bits[:4].reshape(2, 2) % ends.astype(jnp.uint32)
  coins = (bits[4:] >> 31).astype(jnp.int32)
  return Draw(corners.astype(jnp.int32), coins[0], 2 * coins[1:] - 1)


def window_sizes(
  norm: str, shape: tuple[int, int], p_init: float
) -> tuple[int, ...]:
  """Side of the windows in each stage of the schedule.

  Args:
    norm: 'l2', where they are odd and at least 3, or 'linf'.
    shape: (H, W) of the images.
    p_init: fraction of the pixels that the first windows cover.

  Returns:
    Sides in pixels; the stages end after iterations 10, 50, 200, 500, 1000,
    2000, 4000, 6000 and 8000.
  """
  sizes = []
  for stage in range(len(_HALVINGS) + 1):
    side = round(math.sqrt(p_init / 2**stage * math.prod(shape)))
    side = max(side, 3) | 1 if norm == "l2" else max(side, 1)
    sizes.append(min(side, *shape))
  return tuple(sizes)


def _l2_start(
  key: jax.Array, image: jax.Array, epsilon: jax.Array | float
) -> jax.Array:
  """The image plus a perturbation of tiles, each with a pattern."""
  height, width, channels = image.shape
  side = _tile(image.shape)
  shape = (height // side, width // side)
  transposed, signs = jax.random.split(key)
  transposed = jax.random.bernoulli(transposed, shape=shape)
  signs = jax.random.rademacher(signs, (*shape, channels), jnp.int32)
  return _l2_tiled(transposed, signs, image, epsilon)


def _l2_tiled(
  transposed: jax.Array,
  signs: jax.Array,
  image: jax.Array,
  epsilon: jax.Array | float,
) -> jax.Array:
  """As `_l2_start`, for given draws: bool [R,C], signs [R,C,channels]."""
  height, width, _ = image.shape
  side = _tile(image.shape)
  pattern = _pattern(side)
  tiles = jnp.where(transposed[..., None, None], pattern.T, pattern)
  tiles = tiles[..., None].astype(image.dtype) * signs[:, :, None, None]
  rows, columns = (size * side for size in transposed.shape)
  delta = tiles.swapaxes(1, 2).reshape(rows, columns, -1)
  before = max((height - _TILES * side) // 2, 0)
  delta = jnp.pad(delta, ((before, side), (before, side), (0, 0)))
  return _add(image, delta[:height, :width], epsilon)


def _tile(shape: tuple[int, ...]) -> int:
  return max(shape[0] // _TILES, 1)


def _l2_change(
  drawn: Draw,
  given: jax.Array,
  best: jax.Array,
  epsilon: jax.Array | float,
  sizes: tuple[int, ...],
  stage: jax.Array,
) -> jax.Array:
  """Transfers the norm of a second window to a pattern in the first one."""
  delta = best - given
  first, second = (
    _window(corner, jnp.asarray(sizes)[stage], given.shape)
    for corner in drawn.corners
  )
  old = _channels(delta * first)
  freed = _squares(delta * jnp.maximum(first, second))
  unused = epsilon**2 - jnp.sum(jnp.square(delta))
  norm = jnp.sqrt(jnp.maximum(unused / given.shape[2], 0) + freed)
  pattern = _placed(drawn, sizes, stage, given)
  new = pattern * drawn.signs + delta * first / (old + _TINY)
  new = new * (norm / (_channels(new) + _TINY))
  delta = jnp.where(first > 0, new, delta * (1 - second))
  return _add(given, delta, epsilon)


def _squares(x: jax.Array) -> jax.Array:
  """Sum of squares of each channel, [1,1,C]."""
  return jnp.sum(jnp.square(x), (0, 1), keepdims=True)


def _channels(x: jax.Array) -> jax.Array:
  """Euclidean norm of each channel, [1,1,C]."""
  return jnp.sqrt(_squares(x))


def _add(
  given: jax.Array, delta: jax.Array, epsilon: jax.Array | float
) -> jax.Array:
  """Adds the perturbation, scaled to norm epsilon, and clips to [0, 1]."""
  norm = jnp.sqrt(jnp.sum(jnp.square(delta)))
  # Inside the ball by a few rounding errors, as in `norms.l2_project`, and by
  # those of all pixels of the sum, which may add up in patterns.
  rounding = float(jnp.finfo(delta.dtype).eps)
  limit = epsilon * (1 - 8 * rounding) - math.sqrt(delta.size) * rounding / 4
  delta = delta / (norm + _TINY) * jnp.maximum(limit, 0)
  # This clipping does not change values; it keeps the compiler from fusing
  # multiplication and addition, which would skip a rounding for some batch
  # sizes only.
  return jnp.clip(given + jnp.clip(delta, -epsilon, epsilon), 0, 1)


def _window(
  corner: jax.Array, size: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  """1 inside a square window and 0 elsewhere, integers [H,W,1]."""
  rows, columns = (
    (np.arange(length) >= start) & (np.arange(length) < start + size)
    for length, start in zip(shape[:2], corner, strict=True)
  )
  return (rows[:, None, None] & columns[:, None]).astype(jnp.int32)


def _placed(
  drawn: Draw, sizes: tuple[int, ...], stage: jax.Array, image: jax.Array
) -> jax.Array:
  """The stage's pattern in the first window and 0 elsewhere, [H,W,1]."""
  height, width, _ = image.shape
  # Padded on all sides, so that a slice can put it at any position.
  table = np.zeros((len(sizes), 2, 2 * height, 2 * width))
  for row, size in zip(table, sizes, strict=True):
    place = np.s_[height : height + size, width : width + size]
    row[0][place], row[1][place] = _pattern(size), _pattern(size).T
  top, left = drawn.corners[0]
  pattern = jax.lax.dynamic_slice(
    jnp.asarray(table, image.dtype),
    (stage, drawn.transposed, height - top, width - left),
    (1, 1, height, width),
  )
  return pattern[0, 0, :, :, None]


def _pattern(size: int) -> np.ndarray:
  """Two bumps of opposite sign, one above the other, with total norm 1."""
  above = size // 2
  halves = [_bump(above, size), -_bump(size - above, size)]
  pattern = np.concatenate(halves)
  return pattern / np.linalg.norm(pattern)


def _bump(height: int, width: int) -> np.ndarray:
  """A sum of concentric squares, the k-th weighted with 1/k^2, of norm 1."""
  rows = np.abs(np.arange(height) - height // 2)[:, None]
  columns = np.abs(np.arange(width) - width // 2)
  distance = np.maximum(rows, columns)
  count = max(height, width) // 2 + 1
  bump = sum((distance < k) / k**2 for k in range(1, count + 1))
  return bump / np.linalg.norm(bump) if bump.size else bump


def _linf_start(
  key: jax.Array, image: jax.Array, epsilon: jax.Array | float
) -> jax.Array:
  """The image plus vertical stripes of plus or minus epsilon."""
  signs = jax.random.rademacher(key, (1, *image.shape[1:]), image.dtype)
  radius = radius_inside(epsilon, image.dtype)
  return jnp.clip(image + radius * signs, 0, 1)


def _linf_change(
  drawn: Draw,
  given: jax.Array,
  best: jax.Array,
  epsilon: jax.Array | float,
  sizes: tuple[int, ...],
  stage: jax.Array,
) -> jax.Array:
  """Sets the perturbation in a window to +-epsilon, one sign per channel."""
  window = _window(drawn.corners[0], jnp.asarray(sizes)[stage], given.shape)
  radius = radius_inside(epsilon, best.dtype)
  moved = best + 2 * radius * (window * drawn.signs)
  moved = jnp.clip(moved, given - radius, given + radius)
  return jnp.clip(moved, 0, 1)


def _margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Label's logit minus the largest other one [B], negative if wrong."""
  gap = jnp.where(
    losses.finite(logits), -objectives.margin(logits, labels), -jnp.inf
  )
  # Ties are broken in favor of the first class.
  wrong = ~losses.correct(logits, labels)
  tiny = float(jnp.finfo(logits.dtype).tiny)
  return jnp.where(wrong, jnp.minimum(gap, -tiny), gap)


def _fold(keys: jax.Array, numbers: jax.Array) -> jax.Array:
  """Keys [B] of the queries with these numbers [B]."""
  return jax.vmap(jax.random.fold_in)(keys, numbers)
