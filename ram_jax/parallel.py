"""Devices and processes: the only file that uses pmap or names the device axis.

The training state, and data that is not streamed, have no device axis: they are
replicated over the local devices once, and pmapped functions take and return
them as they are (`in_axes` and `out_axes` None). Outputs are reduced or
gathered over the axis before they are returned, except the state of `stateful`.
"""

import concurrent.futures
import contextlib
import functools
import glob
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

AXIS = "devices"
Devices = Sequence[jax.Device] | None
# Environment variables with which the processes of a run find each other.
JOINING = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Environment variables in which Kubernetes lists the hosts of a slice.
SLICE = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
SLICE += ("TPU_PROCESS_ADDRESSES_PATH",)  # since jax 0.12
# XLA releases Python's global interpreter lock (GIL) while it compiles.
COMPILERS = min(16, os.cpu_count() or 1)
_COMPILING = concurrent.futures.ThreadPoolExecutor(COMPILERS, "compile")


def initialize() -> None:
  """Connects to the other processes of a multi-host run, if there are any.

  On a Cloud TPU, JAX finds the other hosts of the slice in the machine's
  metadata; elsewhere, JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
  JAX_PROCESS_ID specify how to connect to the other processes.

  Raises:
    ValueError: if only some of these variables are set, or the last two are not
      integers; or if JAX finds no device.
  """
  # `runs/signals.py` handles SIGTERM instead. JAX's service would choose a step
  # at which to save, but it and orbax assume one step per dispatch.
  jax.config.update("jax_enable_preemption_service", False)
  # Environment variables must not change the draws of a run.
  jax.config.update("jax_default_prng_impl", "threefry2x32")
  jax.config.update("jax_threefry_partitionable", True)
  if jax.distributed.is_initialized():
    return
  address, *numbers = texts = [os.environ.get(name) for name in JOINING]
  if texts.count(None) < len(texts):
    for name, text in zip(JOINING, texts, strict=True):
      if not text or (name != JOINING[0] and not text.isdecimal()):
        raise ValueError(
          f"{name} is {text!r}: set all of {', '.join(JOINING)}, the last two "
          "to integers, or none of them"
        )
    jax.distributed.initialize(address, *map(int, numbers))
  elif on_cloud_tpu():
    jax.distributed.initialize()
  try:
    jax.devices()
  except RuntimeError as error:
    raise ValueError(f"JAX finds no device: {error}") from error


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
  """Wraps a program so that all processes end soon after one of them ends.

  At exit, JAX waits several minutes for the other processes, while they wait in
  a collective for the failed one. Therefore, a failed process ends immediately.
  The others end because of its closed connection or its missing heartbeats. A
  single process also ends immediately, because the interpreter would wait for
  computations that are still running, and might crash then.
  """
  try:
    yield
  except BaseException as error:
    leaving = isinstance(error, SystemExit)
    failed = not leaving or error.code
    if failed if jax.distributed.is_initialized() else leaving:
      if not leaving:
        traceback.print_exc()
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(error.code if leaving else 1)
    raise


def on_cloud_tpu() -> bool:
  """Whether this machine has TPU chips whose slice JAX can look up."""
  platforms = os.environ.get("JAX_PLATFORMS", "")
  if platforms and "tpu" not in platforms.split(","):
    return False
  # The device files of the different kinds of chips.
  chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
  # As in jax/_src/clusters/cloud_tpu_cluster.py. A notebook's TPU, whose
  # metadata must not be queried, is a single host.
  slice_known = "TPU_SKIP_MDS_QUERY" not in os.environ or any(
    name in os.environ for name in SLICE
  )
  installed = importlib.util.find_spec("libtpu") is not None
  return bool(chips) and installed and slice_known


def is_first_process() -> bool:
  """Whether this process writes the run's files."""
  return jax.process_index() == 0


def check_batch_size(batch_size: int, field: str) -> None:
  """Rejects a batch size that is not divisible by the number of devices.

  Args:
    batch_size: examples in the global batch.
    field: the config field with the batch size, for the message.

  Raises:
    ValueError: if it is not a positive multiple of the device count.
  """
  count = jax.device_count()
  if batch_size < 1 or batch_size % count:
    near = max(1, batch_size // count) * count
    raise ValueError(
      f"{field} is {batch_size}: it must be a positive multiple of the number "
      f"of devices, {count}, such as {near} or {near + count}"
    )


def check_agreement(number: int, what: str) -> None:
  """Rejects processes that would resume from different states.

  Args:
    number: this process's number.
    what: what the number is and why it may differ, for the message.

  Raises:
    ValueError: if the numbers of the processes differ.
  """
  if jax.process_count() > 1:
    numbers = multihost_utils.process_allgather(np.int32(number)).tolist()
    if len(set(numbers)) > 1:
      raise ValueError(f"{what} differs between the processes: {numbers}")


def largest(number: int) -> jax.Array:
  """Starts computing the maximum of a number over the processes.

  Args:
    number: this process's number, int32.

  Returns:
    The maximum, equal in every process; reading it waits for the devices.
  """
  found = _largest(np.full(jax.local_device_count(), number, np.int32))
  if jax.default_backend() == "cpu":
    found.block_until_ready()  # collectives must not pile up on CPUs
  return found


def any_process(flag: bool) -> bool:
  """Whether a flag is set in any process; all processes must call this."""
  return bool(largest(flag)) if jax.process_count() > 1 else flag


def first_process(function: Callable[[], None]) -> None:
  """Calls a function in the first process; if it fails, all processes fail.

  Args:
    function: takes no arguments and returns nothing.

  Raises:
    ValueError: in the other processes; in the first, if the function raised it.
    OSError: in the first process, if the function raised it.
  """
  error = None
  if is_first_process():
    try:
      function()
    except (ValueError, OSError) as caught:
      error = caught
  if any_process(error is not None) and not error:
    error = ValueError("the first process failed: see its output")
  if error:
    raise error


def replicate(tree: Any) -> Any:
  """Copies arrays on the host, or on one device, to every local device."""
  return jax.device_put(tree, _sharding())


def place(tree: Any) -> Any:
  """Copies each row to its local device.

  Args:
    tree: arrays [local devices, ...] on the host.

  Returns:
    The same values, with row i only on local device i.
  """
  return jax.device_put(tree, _sharding(AXIS))


def _sharding(*axes: str) -> jax.sharding.NamedSharding:
  # The mesh uses pmap's axis name, so the shardings are equal and pmap copies
  # nothing.
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def shard(array: np.ndarray, axis: int = 0) -> np.ndarray:
  """This process's part of a global batch, one row per local device.

  Args:
    array: the global batch, [..., B, ...] with B at `axis`.
    axis: the batch axis.

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


@jax.named_scope("communication")
def previous(tree: Any) -> Any:
  """Inside a mapped function: each row's predecessor in the global batch.

  The predecessor of the first row is the last row. The result does not depend
  on how the batch is split over devices.
  """
  count = jax.lax.axis_size(AXIS)
  ring = [(i, (i + 1) % count) for i in range(count)]

  def shift(rows: jax.Array) -> jax.Array:
    before = jax.lax.ppermute(rows[-1:], AXIS, ring)
    return jax.numpy.concatenate([before, rows[:-1]])

  return jax.tree.map(shift, tree)


def training_dispatch(
  function: Callable,
  streamed: bool = False,
  donate: bool = True,
  devices: Devices = None,
) -> Callable:
  """Maps a training function over the devices.

  Args:
    function: (state, data, settings, indices) -> (state, metrics), where state,
      settings and both results are equal on all devices.
    streamed: whether each device gets its own rows instead of a copy of all
      data.
    donate: whether the memory of the state is reused for the new state.
    devices: devices to compile for, which need not be attached; None: the local
      devices.

  Returns:
    The pmapped function; its `indices` have a leading axis of local devices,
    and so does its data if it is streamed.
  """
  return jax.pmap(
    function,
    axis_name=AXIS,
    in_axes=(None, 0 if streamed else None, None, 0),
    out_axes=None,
    donate_argnums=0 if donate else (),
    devices=devices,
  )


def example_dispatch(function: Callable, devices: Devices = None) -> Callable:
  """The pmapped function that `per_example` calls for each batch.

  Args:
    function: see `per_example`.
    devices: see `training_dispatch`.

  Returns:
    The pmapped function, (shared, positions, batch) -> ((), results). Positions
    and batch have a leading axis of local devices.
  """

  def stateless(*arguments: Any) -> tuple[tuple[()], Any]:
    return (), function(*arguments)

  return stateful_dispatch(stateless, devices)


def per_example(function: Callable) -> Callable:
  """Maps a function over a data set of any size, batch by batch.

  Args:
    function: (shared, positions [b], batch) -> pytree of [b, ...], where row i
      only depends on example i and `shared`.

  Returns:
    (shared, batch, batch_size) -> the results of all N examples in order, as
    numpy arrays; `batch` is a dict of arrays [N, ...]. The last batch is padded
    with copies of example 0, whose results are dropped. Every process gets all
    results. The returned function's attribute `prepare` takes the same
    arguments and starts compiling the program in a background thread.
  """
  mapped = example_dispatch(function)
  prepared: dict[Any, concurrent.futures.Future] = {}

  def arguments(
    shared: Any, batch: dict[str, np.ndarray], index: np.ndarray
  ) -> tuple[Any, ...]:
    rows = {name: shard(array[index]) for name, array in batch.items()}
    return shared, shard(index), rows

  def prepare(
    shared: Any, batch: dict[str, np.ndarray], batch_size: int
  ) -> None:
    # With several hosts, a compiled program cannot be called directly.
    if jax.process_count() > 1:
      return
    first = next(_padded(len(next(iter(batch.values()))), batch_size))
    example = arguments(shared, batch, first)
    if (shapes := _shapes(example)) not in prepared:
      prepared[shapes] = _COMPILING.submit(mapped.lower(*example).compile)

  @functools.wraps(function)
  def run(shared: Any, batch: dict[str, np.ndarray], batch_size: int) -> Any:
    size = len(next(iter(batch.values())))
    results = []
    for index in _padded(size, batch_size):
      example = arguments(shared, batch, index)
      found = prepared.get(_shapes(example)) if prepared else None
      _, result = (_waited_for(found) if found else mapped)(*example)
      results.append(jax.tree.map(np.asarray, result))
    return jax.tree.map(lambda *x: np.concatenate(x)[:size], *results)

  run.prepare = prepare
  return run


def _waited_for(program: concurrent.futures.Future) -> Callable:
  """Waits for a program, and records the wait as compilation time."""
  started = time.monotonic()
  found = program.result()
  jax.monitoring.record_event_duration_secs(
    "/jax/core/compile/waiting", time.monotonic() - started
  )
  return found


def _shapes(tree: Any) -> Any:
  """What the program for these arguments depends on."""
  leaves, structure = jax.tree.flatten(tree)
  return structure, tuple((x.shape, x.dtype) for x in leaves)


def stateful_dispatch(function: Callable, devices: Devices = None) -> Callable:
  """The pmapped function that `stateful` calls for each batch.

  Args:
    function: see `stateful`.
    devices: see `training_dispatch`.

  Returns:
    The pmapped function; state and batch have a leading axis of local devices.
  """

  def gathered(shared: Any, state: Any, batch: dict) -> Any:
    state, results = function(shared, state, batch)
    return state, gather(results)

  return jax.pmap(
    gathered,
    axis_name=AXIS,
    in_axes=(None, 0, 0),
    out_axes=(0, None),
    devices=devices,
  )


def stateful(function: Callable) -> Callable:
  """Maps a step of an iterative computation over a batch on the devices.

  Args:
    function: (shared, state, batch) -> (state, results), pytrees of [b, ...],
      where row i of the outputs depends only on row i of the inputs and
      `shared`.

  Returns:
    (shared, state, batch) -> (state, results): the state stays on the devices,
    [local devices, b, ...]; `batch` is a dict of arrays [B, ...]; every process
    gets all results, as numpy arrays.
  """
  mapped = stateful_dispatch(function)

  @functools.wraps(function)
  def run(shared: Any, state: Any, batch: dict[str, np.ndarray]) -> Any:
    rows = {name: shard(array) for name, array in batch.items()}
    state, results = mapped(shared, state, rows)
    return state, jax.tree.map(np.asarray, results)

  return run


def even_batches(size: int, batch_size: int) -> int:
  """Size of the batches if they are as equal as possible.

  `per_example` pads the last batch. Batches of this size need less padding, but
  a separately compiled program.

  Args:
    size: number of examples, at least 1.
    batch_size: maximum, a multiple of the number of devices.

  Returns:
    A multiple of the number of devices, at most `batch_size`.
  """
  count = -(-size // batch_size)
  return -(-size // (count * jax.device_count())) * jax.device_count()


def _padded(size: int, batch_size: int) -> Iterator[np.ndarray]:
  for start in range(0, size, batch_size):
    index = np.arange(start, start + batch_size, dtype=np.int32)
    yield np.where(index < size, index, 0)
