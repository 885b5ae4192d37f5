"""Devices and processes: the only file that says pmap or names their axis.

State and data carry no device axis: they are placed once, replicated over the
local devices, and pmapped functions take and return them whole (`in_axes` and
`out_axes` None). What leaves so was reduced or gathered over the axis first.
"""

import contextlib
import functools
import glob
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

AXIS = "devices"
# Where Kubernetes names the hosts of a slice.
SLICE = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
SLICE += ("TPU_PROCESS_ADDRESSES_PATH",)  # since jax 0.12


def initialize() -> None:
  """Joins the other processes of a multi-host run, where there are any.

  On a Cloud TPU, JAX asks the machine itself for the slice's other hosts;
  elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name
  them.

  Raises:
    ValueError: if only some of the three are set, or there is no device.
  """
  # JAX would catch SIGTERM and name a step at which to save, but counts them by
  # one, where a dispatch has several, as does orbax: `runs/signals.py` does it.
  jax.config.update("jax_enable_preemption_service", False)
  if jax.distributed.is_initialized():
    return
  if "JAX_COORDINATOR_ADDRESS" in os.environ:
    numbers = []
    for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
      text = os.environ.get(name)
      if not (text or "").isdecimal():
        raise ValueError(
          f"JAX_COORDINATOR_ADDRESS is set, and {name} is {text!r}: give a "
          "whole number, or set none of them"
        )
      numbers.append(int(text))
    jax.distributed.initialize(os.environ["JAX_COORDINATOR_ADDRESS"], *numbers)
  elif on_cloud_tpu():
    jax.distributed.initialize()
  try:
    jax.devices()
  except RuntimeError as error:
    raise ValueError(f"JAX finds no device: {error}") from error


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
  """Around a program: where one process of several fails, none waits long.

  At exit JAX waits for the other processes, for minutes, while they wait in a
  collective for the one that failed. So a failure ends the process at once, and
  the others by the connection that it closes, or by its missing heartbeats.
  """
  try:
    yield
  except BaseException as error:
    leaving = isinstance(error, SystemExit)
    if jax.distributed.is_initialized() and not (leaving and not error.code):
      if not leaving:
        traceback.print_exc()
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(error.code if leaving else 1)
    raise


def on_cloud_tpu() -> bool:
  """Whether this machine has TPU chips of a slice that JAX can ask about."""
  platforms = os.environ.get("JAX_PLATFORMS", "")
  if platforms and "tpu" not in platforms.split(","):
    return False
  # Where the chips of one kind or another show themselves to Linux.
  chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
  # As jax/_src/clusters/cloud_tpu_cluster.py; a notebook's TPU, which may not
  # be asked about, is alone.
  slice_known = "TPU_SKIP_MDS_QUERY" not in os.environ or any(
    name in os.environ for name in SLICE
  )
  installed = importlib.util.find_spec("libtpu") is not None
  return bool(chips) and installed and slice_known


def is_first_process() -> bool:
  """Whether this process writes the run's files."""
  return jax.process_index() == 0


def check_batch_size(batch_size: int, field: str) -> None:
  """Rejects a batch that the devices cannot share evenly.

  Args:
    batch_size: examples in the global batch.
    field: the config field that holds it, for the message.

  Raises:
    ValueError: if it is not a positive multiple of the device count.
  """
  count = jax.device_count()
  if batch_size < 1 or batch_size % count:
    below = batch_size // count * count
    raise ValueError(
      f"{field} is {batch_size}: it must be a positive multiple of the "
      f"{count} devices, such as {max(below, count)} or {below + count}"
    )


def check_agreement(number: int, what: str) -> None:
  """Rejects processes that would resume from different places.

  Args:
    number: this process's own.
    what: what it is and why it may differ, for the message.

  Raises:
    ValueError: if another process has another number.
  """
  if jax.process_count() > 1:
    numbers = multihost_utils.process_allgather(np.int32(number)).tolist()
    if len(set(numbers)) > 1:
      raise ValueError(f"{what} differs between the processes: {numbers}")


def largest(number: int) -> jax.Array:
  """Starts to find the largest of the processes' numbers.

  Args:
    number: this process's own, int32.

  Returns:
    It, the same in every process; reading it waits for the devices.
  """
  found = _largest(np.full(jax.local_device_count(), number, np.int32))
  if jax.default_backend() == "cpu":
    found.block_until_ready()  # collectives must not pile up there
  return found


def any_process(flag: bool) -> bool:
  """Whether a flag is raised in any process; they wait for each other."""
  return bool(largest(flag)) if jax.process_count() > 1 else flag


def first_process(function: Callable[[], None]) -> None:
  """Calls a function in the first process; if it fails, all do.

  Args:
    function: takes and returns nothing.

  Raises:
    ValueError: in the others that it failed; in the first what it raised.
    OSError: what it raised.
  """
  error = None
  if is_first_process():
    try:
      function()
    except (ValueError, OSError) as caught:
      error = caught
  if any_process(error is not None) and not error:
    error = ValueError("the first process failed: its own output says why")
  if error:
    raise error


def replicate(tree: Any) -> Any:
  """Places arrays of the host, or of one device, on every local device."""
  return jax.device_put(tree, _sharding())


def place(tree: Any) -> Any:
  """Places rows on the local devices that they are for.

  Args:
    tree: arrays [local devices, ...] on the host.

  Returns:
    The same values, row i on local device i alone.
  """
  return jax.device_put(tree, _sharding(AXIS))


def _sharding(*axes: str) -> jax.sharding.NamedSharding:
  # The mesh has pmap's own axis name: equal shardings, so no copy on entry.
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def shard(array: np.ndarray, axis: int = 0) -> np.ndarray:
  """This process's part of a global batch, one row per local device.

  Args:
    array: the global batch, [..., B, ...] with B at `axis`.
    axis: where the batch axis is.

  Returns:
    [local devices, ..., B / devices, ...].
  """
  local = jax.local_device_count()
  parts = np.split(array, jax.device_count(), axis)
  first = jax.process_index() * local
  return np.stack(parts[first : first + local])


def positions(local_batch: int) -> jax.Array:
  """Inside a mapped function: this device's positions in the global batch."""
  return jax.lax.axis_index(AXIS) * local_batch + jax.numpy.arange(local_batch)


@jax.named_scope("communication")
def mean(tree: Any) -> Any:
  """Inside a mapped function: the mean over all devices."""
  return jax.lax.pmean(tree, AXIS)


@functools.partial(jax.pmap, axis_name=AXIS, out_axes=None)
def _largest(number: jax.Array) -> jax.Array:
  return jax.lax.pmax(number, AXIS)


def gather(tree: Any) -> Any:
  """Inside a mapped function: the rows of all devices, in order."""
  return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, tiled=True), tree)


def training_dispatch(
  function: Callable, streamed: bool = False, donate: bool = True
) -> Callable:
  """Maps a training function over the devices.

  Args:
    function: (state, data, key, indices) -> (state, metrics), where state and
      key are the same on all devices and so are both results.
    streamed: every device has data of its own, not all the same.
    donate: the state's memory is used for the new one.

  Returns:
    The same function; its `indices` have a leading axis of local devices, and
    its data too if they are streamed.
  """
  return jax.pmap(
    function,
    axis_name=AXIS,
    in_axes=(None, 0 if streamed else None, None, 0),
    out_axes=None,
    donate_argnums=0 if donate else (),
  )


def per_example(function: Callable) -> Callable:
  """Maps a function over a data set, whatever its size, batch by batch.

  Args:
    function: (shared, positions [b], batch) -> pytree of [b, ...], where row i
      depends on example i and `shared` alone.

  Returns:
    (shared, batch, batch_size) -> the results of all N examples in order, as
    numpy arrays; `batch` is a dict of arrays [N, ...]. The last batch is filled
    up with copies of example 0, whose results are dropped. Every process gets
    all the results.
  """

  def gathered(shared: Any, index: jax.Array, batch: dict) -> Any:
    return gather(function(shared, index, batch))

  mapped = jax.pmap(
    gathered, axis_name=AXIS, in_axes=(None, 0, 0), out_axes=None
  )

  def run(shared: Any, batch: dict[str, np.ndarray], batch_size: int) -> Any:
    size = len(next(iter(batch.values())))
    results = []
    for index in _padded(size, batch_size):
      rows = {name: shard(array[index]) for name, array in batch.items()}
      result = mapped(shared, shard(index), rows)
      results.append(jax.tree.map(np.asarray, result))
    return jax.tree.map(lambda *x: np.concatenate(x)[:size], *results)

  return run


def stateful(function: Callable) -> Callable:
  """Maps a step of an iterative computation over a batch on the devices.

  Args:
    function: (shared, state, batch) -> (state, results), pytrees of [b, ...],
      where row i depends on row i and `shared` alone.

  Returns:
    (shared, state, batch) -> (state, results): the state stays on the devices,
    [local devices, b, ...]; `batch` is a dict of arrays [B, ...]; every process
    gets all results, as numpy arrays.
  """

  def gathered(shared: Any, state: Any, batch: dict) -> Any:
    state, results = function(shared, state, batch)
    return state, gather(results)

  mapped = jax.pmap(
    gathered,
    axis_name=AXIS,
    in_axes=(None, 0, 0),
    out_axes=(0, None),
  )

  def run(shared: Any, state: Any, batch: dict[str, np.ndarray]) -> Any:
    rows = {name: shard(array) for name, array in batch.items()}
    state, results = mapped(shared, state, rows)
    return state, jax.tree.map(np.asarray, results)

  return run


def _padded(size: int, batch_size: int) -> Iterator[np.ndarray]:
  for start in range(0, size, batch_size):
    index = np.arange(start, start + batch_size, dtype=np.int32)
    yield np.where(index < size, index, 0)
