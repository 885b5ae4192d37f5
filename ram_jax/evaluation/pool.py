"""Runs an iterative attack on any number of images, with a fixed batch size.

Many images are misclassified after a few steps. Therefore, the loop over steps
is in Python, with a few steps per dispatch, and finished images are replaced by
new ones. On CPUs, a dispatch is a single step, because gradients of
convolutions are slow inside XLA loops.
"""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import keys as keys_lib
from ram_jax import parallel
from ram_jax.attacks.iterative import Iterative, select
from ram_jax.contracts import Batch, Model

STEPS = 10  # per dispatch on accelerators


class Pool:
  """A batch of slots, each free or occupied by an image under attack.

  Attributes:
    success: which images are misclassified, bool [N].
    images: floats [N,H,W,C]; the input where the attack did not succeed.
    image_steps: number of steps, summed over the images.
  """

  def __init__(
    self,
    attack: Iterative,
    model: Model,
    batch: Batch,
    key: jax.Array,
    size: int,
  ) -> None:
    """Starts with all images waiting.

    Args:
      attack: the attack.
      model: the model, on the devices.
      batch: `images` floats [N,H,W,C]; `labels` int32 [N]; `targets` int32
        [N,T], tried one after another: target classes, or the numbers of an
        untargeted attack's restarts; `positions` int32 [N] in the test set.
      key: source of all randomness, together with an image's position and the
        number of the target.
      size: images per batch, over all devices; does not change results.
    """
    count, self._targets = batch["targets"].shape
    self.success, self.images = np.zeros(count, bool), np.array(batch["images"])
    self.image_steps = 0
    self._batch, self._state = batch, None
    self._shared = (*parallel.replicate((attack, key)), model)
    # (image, number of its target); other targets are appended when needed.
    self._queue = collections.deque((i, 0) for i in range(count))
    self._image, self._number = np.full(size, -1), np.zeros(size, np.int32)

  def run(self) -> "Pool":
    """Attacks each image until it is misclassified or no targets are left."""
    while self.step():
      pass
    return self

  def step(self) -> bool:
    """Fills free slots or runs a dispatch; returns whether work is left."""
    free = self._image < 0
    if self._queue and free.sum() >= min(
      len(self._queue), max(1, len(free) // 4)
    ):
      flags = self._fill(np.flatnonzero(free))
    else:
      advance = _one if jax.default_backend() == "cpu" else _several
      self._state, flags = advance(self._shared, self._state, {})
      self.image_steps += int(flags["steps"][~free].sum())
    self._release(flags)
    return bool(self._queue) or bool((self._image >= 0).any())

  def _fill(self, free: np.ndarray) -> dict[str, np.ndarray]:
    """Puts waiting images into free slots."""
    fresh = np.zeros(len(self._image), bool)
    for place in free[: len(self._queue)]:
      self._image[place], self._number[place] = self._queue.popleft()
      fresh[place] = True
    rows = np.maximum(self._image, 0)
    batch = {name: array[rows] for name, array in self._batch.items()}
    batch["targets"] = batch["targets"][np.arange(len(rows)), self._number]
    state, flags = _start(self._shared, {}, batch | {"number": self._number})
    if self._state is not None:
      both = {"old": self._state, "new": state}
      state, flags = _merge(self._shared, both, {"fresh": fresh})
    self._state = state
    return flags

  def _release(self, flags: dict[str, np.ndarray]) -> None:
    """Records successes, and frees the slots of finished images."""
    busy = self._image >= 0
    hit = busy & flags["found"]
    if hit.any():
      self._state, images = _images(self._shared, self._state, {})
      self.success[self._image[hit]] = True
      self.images[self._image[hit]] = images[hit]
    for place in np.flatnonzero(busy & flags["exhausted"] & ~hit):
      if (number := self._number[place] + 1) < self._targets:
        self._queue.append((self._image[place], number))
    self._image[hit | (busy & flags["exhausted"])] = -1


Shared = tuple[Iterative, jax.Array, Model]


def _flags(shared: Shared, state: Any, steps: Any = 0) -> dict[str, jax.Array]:
  found, exhausted = shared[0].found(state), shared[0].exhausted(state)
  steps = jnp.broadcast_to(steps, found.shape)
  return {"found": found, "exhausted": exhausted, "steps": steps}


@parallel.stateful
def _start(shared: Shared, state: Any, batch: dict[str, jax.Array]) -> Any:
  attack, key, model = shared
  keys = keys_lib.per_example(key, batch["positions"])
  keys = jax.vmap(jax.random.fold_in)(keys, batch["number"])
  state = attack.start(keys, batch, model)
  return state, _flags(shared, state)


@parallel.stateful
def _merge(shared: Shared, state: Any, batch: dict[str, jax.Array]) -> Any:
  """The new state for new images, else the old one."""
  state = select(batch["fresh"], state["new"], state["old"])
  return state, _flags(shared, state)


@parallel.stateful
def _one(shared: Shared, state: Any, batch: dict[str, jax.Array]) -> Any:
  del batch
  state = shared[0].step(state, shared[2])
  return state, _flags(shared, state, 1)


@parallel.stateful
def _several(shared: Shared, state: Any, batch: dict[str, jax.Array]) -> Any:
  """Runs several steps; images that have finished do not change."""
  del batch
  attack, _, model = shared

  def body(_: Any, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
    state, steps = carry
    ended = attack.found(state) | attack.exhausted(state)
    new = attack.step(state, model)
    return select(ended, state, new), steps + ~ended

  steps = jnp.zeros(attack.found(state).shape, jnp.int32)
  state, steps = jax.lax.fori_loop(0, STEPS, body, (state, steps))
  return state, _flags(shared, state, steps)


@parallel.stateful
def _images(shared: Shared, state: Any, batch: dict[str, jax.Array]) -> Any:
  del batch
  return state, shared[0].images(state)
