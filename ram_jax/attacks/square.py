"""Square attack (Andriushchenko et al., arXiv 1912.00049).

A random search that uses scores but no gradients.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import losses
from ram_jax.attacks import iterative, objectives
from ram_jax.attacks.norms import radius_inside
from ram_jax.contracts import Arrays, Model

# After each of these iterations, the area of the windows is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_TILES = 5  # per side, of the first perturbation in L2
_TINY = 1e-12  # avoids division by zero


@flax.struct.dataclass
class State(iterative.State):
  """State of the attack; `best`: the images with the lowest margin so far.

  Attributes:
    keys: the examples' keys [B]; the draws of a query depend on its example's
      key and its number.
    margin: the margin of `best` [B]: the label's logit minus the largest other
      one, negative if and only if the image is misclassified.
  """

  keys: jax.Array
  margin: jax.Array


@flax.struct.dataclass
class Draw:
  """The random draws for one query of one example.

  Attributes:
    corners: upper-left corners of two windows, integers [2, 2].
    transposed: whether the pattern is transposed.
    signs: +1 or -1 for each channel, [C].
  """

  corners: jax.Array
  transposed: jax.Array
  signs: jax.Array


def _draw(key: jax.Array, shape: tuple[int, ...], size: jax.Array) -> Draw:
  """Draws a query.

  As in the original code, windows do not reach the last row or column, unless
  they are as large as the image.
  """
  bits = jax.random.bits(key, (5 + shape[2],), jnp.uint32)
  ends = jnp.maximum(jnp.asarray(shape[:2], jnp.int32) - size, 1)
  # The modulo bias is below ends / 2^32.
  corners = bits[:4].reshape(2, 2) % ends.astype(jnp.uint32)
  coins = (bits[4:] >> 31).astype(jnp.int32)
  return Draw(corners.astype(jnp.int32), coins[0], 2 * coins[1:] - 1)


@flax.struct.dataclass
class Square(iterative.Iterative):
  """Square: random search with square-shaped changes, one query per step.

  Follows AutoAttack (fra31/auto-attack `square.py`, margin loss, schedule not
  rescaled), with two differences. Each example has its own draws, whereas in
  AutoAttack, all examples of a batch share the positions of the windows and, in
  L2, the orientation of the pattern or, in L-infinity, the signs. Perturbations
  stay inside the ball by a margin of a few rounding errors.

  Attributes:
    steps: number of queries after the first one.
    p_init: fraction of the pixels that the first windows cover, in (0, 1].
  """

  steps: int = flax.struct.field(pytree_node=False, default=5000)
  p_init: float = flax.struct.field(pytree_node=False, default=0.8)

  def start(self, keys: jax.Array, batch: Arrays, model: Model) -> State:
    """State after the first query; see `iterative.Iterative`."""
    images, labels = batch["images"], batch["labels"]
    start = {"l2": self._l2_start, "linf": self._linf_start}[self.norm]
    zeros = jnp.zeros(labels.shape, jnp.int32)
    first = jax.vmap(start)(_fold(keys, zeros), images)
    return State(
      batch=batch,
      iteration=zeros,
      best=first,
      keys=keys,
      margin=_margin(model(first), labels).astype(images.dtype),
    )

  def step(self, state: State, model: Model) -> State:
    """One query for every example; see `iterative.Iterative`."""
    candidate = self._propose(state)
    margin = _margin(model(candidate), state.batch["labels"])
    margin = margin.astype(state.margin.dtype)
    better = margin < state.margin
    return state.replace(
      iteration=state.iteration + 1,
      best=iterative.select(better, candidate, state.best),
      margin=jnp.where(better, margin, state.margin),
    )

  def found(self, state: State) -> jax.Array:
    """Whether an example is misclassified, bool [B]."""
    return state.margin < 0

  def window_sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Side of the windows in each stage of the schedule.

    Args:
      shape: (H, W, C) of the images.

    Returns:
      Sides in pixels; in L2 odd and at least 3, unless the image is too small.
      The stages end after iterations 10, 50, 200, 500, 1000, 2000, 4000, 6000
      and 8000.
    """
    sizes = []
    for stage in range(len(_HALVINGS) + 1):
      side = round(math.sqrt(self.p_init / 2**stage * math.prod(shape[:2])))
      side = max(side, 3) | 1 if self.norm == "l2" else max(side, 1)
      sizes.append(min(side, *shape[:2]))
    return tuple(sizes)

  def _propose(self, state: State) -> jax.Array:
    """The next candidates [B,H,W,C]."""
    change = {"l2": self._l2_change, "linf": self._linf_change}[self.norm]

    def propose(
      key: jax.Array, given: jax.Array, best: jax.Array, iteration: jax.Array
    ) -> jax.Array:
      stage = jnp.sum(iteration > np.asarray(_HALVINGS), dtype=jnp.int32)
      size = jnp.asarray(self.window_sizes(given.shape))[stage]
      return change(_draw(key, given.shape, size), stage, given, best)

    keys = _fold(state.keys, state.iteration + 1)
    given = state.batch["images"]
    return jax.vmap(propose)(keys, given, state.best, state.iteration)

  def _l2_start(self, key: jax.Array, image: jax.Array) -> jax.Array:
    """The image plus a perturbation made of tiles, each with a pattern."""
    height, width, channels = image.shape
    side = max(height // _TILES, 1)
    shape = (height // side, width // side)
    transposed, signs = jax.random.split(key)
    transposed = jax.random.bernoulli(transposed, shape=shape)
    signs = jax.random.rademacher(signs, (*shape, channels), jnp.int32)
    pattern = _pattern(side)
    tiles = jnp.where(transposed[..., None, None], pattern.T, pattern)
    tiles = tiles[..., None].astype(image.dtype) * signs[:, :, None, None]
    rows, columns = (size * side for size in shape)
    delta = tiles.swapaxes(1, 2).reshape(rows, columns, -1)
    before = max((height - _TILES * side) // 2, 0)
    delta = jnp.pad(delta, ((before, side), (before, side), (0, 0)))
    return _add(image, delta[:height, :width], self.epsilon)

  def _l2_change(
    self, drawn: Draw, stage: jax.Array, given: jax.Array, best: jax.Array
  ) -> jax.Array:
    """Transfers the norm of a second window to a pattern in the first one."""
    delta, sizes = best - given, self.window_sizes(given.shape)
    first, second = (
      _window(corner, jnp.asarray(sizes)[stage], given.shape)
      for corner in drawn.corners
    )
    old = _channels(delta * first)
    freed = _squares(delta * jnp.maximum(first, second))
    unused = self.epsilon**2 - jnp.sum(jnp.square(delta))
    norm = jnp.sqrt(jnp.maximum(unused / given.shape[2], 0) + freed)
    pattern = _placed(drawn, sizes, stage, given)
    new = pattern * drawn.signs + delta * first / (old + _TINY)
    new = new * (norm / (_channels(new) + _TINY))
    delta = jnp.where(first > 0, new, delta * (1 - second))
    return _add(given, delta, self.epsilon)

  def _linf_start(self, key: jax.Array, image: jax.Array) -> jax.Array:
    """The image plus vertical stripes of plus or minus epsilon."""
    signs = jax.random.rademacher(key, (1, *image.shape[1:]), image.dtype)
    radius = radius_inside(self.epsilon, image.dtype)
    return jnp.clip(image + radius * signs, 0, 1)

  def _linf_change(
    self, drawn: Draw, stage: jax.Array, given: jax.Array, best: jax.Array
  ) -> jax.Array:
    """Sets the perturbation in a window to +-epsilon, one sign per channel."""
    size = jnp.asarray(self.window_sizes(given.shape))[stage]
    window = _window(drawn.corners[0], size, given.shape)
    radius = radius_inside(self.epsilon, best.dtype)
    moved = best + 2 * radius * (window * drawn.signs)
    moved = jnp.clip(moved, given - radius, given + radius)
    return jnp.clip(moved, 0, 1)


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
  # the largest possible norm of the sum's rounding errors, because in a pattern
  # these do not average out.
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
  # Patterns are padded on all sides, so that a slice can place them anywhere.
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
  """A sum of concentric squares, the k-th weighted by 1/k^2, of norm 1."""
  rows = np.abs(np.arange(height) - height // 2)[:, None]
  columns = np.abs(np.arange(width) - width // 2)
  distance = np.maximum(rows, columns)
  count = max(height, width) // 2 + 1
  bump = sum((distance < k) / k**2 for k in range(1, count + 1))
  return bump / np.linalg.norm(bump) if bump.size else bump


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
