"""The input of training dispatches: the whole data set, or only the rows used.

A set of up to `train.device_data_gib` is copied to the devices once, and each
dispatch receives indices into it. For a larger set, each dispatch receives its
own rows and indices into them. Both cases run the same step function, and their
results are bit-identical.
"""

import collections
import concurrent.futures
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ram_jax import parallel
from ram_jax.data import pipeline

# Dispatches whose rows are gathered in advance, besides those already started.
AHEAD = 2


def dispatches(
  training: Any, data: dict[str, np.ndarray], now: int
) -> Iterator[tuple[Any, Any]]:
  """Yields the data and indices of each dispatch, to the end of the run.

  Streamed rows are gathered in a thread and copied to the devices in advance.
  Closing the iterator ends the thread.

  Args:
    training: a `training.loop.Training`.
    data: `images` uint8 [N,H,W,C] and `labels` int32 [N]; on the host, possibly
      memory-mapped.
    now: number of updates so far.

  Yields:
    `data` and `indices` for `training.dispatch`.
  """
  data = as_rows(data)
  order = functools.partial(
    pipeline.batch_indices,
    training.seed,
    count=training.per_dispatch,
    size=len(data["labels"]),
    batch_size=training.batch_size,
  )
  starts = range(now, training.total_steps, training.per_dispatch)
  if training.streamed:
    yield from _ahead(functools.partial(_rows, data, order), starts)
    return
  data = parallel.replicate(data)
  for start in starts:
    # Copied explicitly, so that dispatches make no implicit transfers.
    yield data, parallel.place(parallel.shard(order(start), axis=1))


def as_rows(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Flattens images into rows, as the training step expects.

  A TPU would copy [N,H,W,C] into another layout in every dispatch.

  Args:
    data: `images` [N,H,W,C] and `labels` [N].

  Returns:
    `images` [N,H*W*C], a view if possible, and `labels`.
  """
  images = data["images"]
  return data | {"images": images.reshape(len(images), -1)}


def _rows(
  data: dict[str, np.ndarray],
  order: Callable[[int], np.ndarray],
  start: int,
) -> tuple[Any, Any]:
  """A dispatch's rows for the local devices of this process."""
  shards = parallel.shard(order(start), axis=1)
  devices, steps, size = shards.shape
  chosen = shards.reshape(devices, steps * size)
  rows = {name: array[chosen] for name, array in data.items()}
  indices = np.arange(steps * size, dtype=np.int32).reshape(1, steps, size)
  return parallel.place((rows, np.repeat(indices, devices, axis=0)))


def _ahead(
  make: Callable[[int], tuple[Any, Any]], starts: Iterable[int]
) -> Iterator[tuple[Any, Any]]:
  """Yields the results of `make` in order, computed in advance in a thread."""
  with concurrent.futures.ThreadPoolExecutor(1, "feed") as pool:
    waiting = collections.deque()
    for start in starts:
      waiting.append(pool.submit(make, start))
      if len(waiting) > AHEAD:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
