"""Whether memory holds what a run needs, asked before anything is allocated.

Without the question, JAX on a CPU can wait for ever for an array that was never
made, and an accelerator fails only after the compilation.
"""

import contextlib
import itertools
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax

GIB = 2**30


def check(make: Callable[[], Any], copies: int, data: int, what: str) -> None:
  """Rejects what the memory cannot hold.

  The need is a lower bound: gradients, activations and the compiled program
  come on top.

  Args:
    make: () -> pytree of arrays that every device holds; only its shapes are
      computed.
    copies: of them that exist at the same time.
    data: bytes that an accelerator holds beside them. A CPU may share them with
      the host's arrays.
    what: needs all that, for the message.

  Raises:
    ValueError: with the memory that is needed and the one that there is.
  """
  arrays = jax.tree.leaves(jax.eval_shape(make))
  # In Python's integers: 32 or 64 bits might not hold the product.
  size = sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)
  needed, holder = copies * size + data, "each device"
  if jax.default_backend() == "cpu":
    data = 0
    needed, holder = copies * size * jax.local_device_count(), "this machine"
  limit = available()
  if limit is None or needed <= limit:
    return
  cure = "choose a smaller config.model, or a machine with more memory"
  if needed - data <= limit:
    cure = "lower config.train.device_data_gib, so that images are streamed"
  raise ValueError(
    f"{what} needs at least {needed / GIB:.1f} GiB of memory on {holder}, "
    f"{limit / GIB:.1f} GiB are available: {cure}"
  )


def available(root: pathlib.Path = pathlib.Path("/")) -> int | None:
  """Memory that the arrays of this process can have at most.

  Args:
    root: folder of the system's `proc` and `sys`.

  Returns:
    Bytes: of an accelerator, what its allocator may use; of a host, what is
    free or can be freed, swap included, within the limits of its control
    groups. None: the system does not say.
  """
  if jax.default_backend() != "cpu":
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    limits = [row["bytes_limit"] for row in stats if "bytes_limit" in row]
    return min(limits, default=None)
  try:
    rows = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
    kib = {name: text.split()[0] for name, text in (r.split(":") for r in rows)}
    free, swap = int(kib["MemAvailable"]) * 1024, int(kib["SwapFree"]) * 1024
  except (OSError, KeyError, ValueError):  # no Linux, or not its usual one
    return None
  return min([free, *_control_groups(root)]) + swap


def _control_groups(root: pathlib.Path) -> list[int]:
  """Limits in bytes of the control groups (v2, v1) that hold this process."""
  found, v2 = [], root / "sys/fs/cgroup"
  bases = ((v2, "memory.max"), (v2 / "memory", "memory.limit_in_bytes"))
  with contextlib.suppress(OSError):
    lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    # In a container the host's path may be named, but its root be mounted.
    groups = {os.path.normpath(x.split(":", 2)[2]).lstrip("/") for x in lines}
    for (base, name), group in itertools.product(bases, groups):
      for place in (base / group, *(base / group).parents):
        if place.is_relative_to(base) and (place / name).is_file():
          text = (place / name).read_text(encoding="utf-8").strip()
          found += [int(text)] if text.isdecimal() else []  # or "max"
  return found
