"""Checks that a run fits into memory before anything is allocated.

Without this check, JAX on a CPU can wait forever for an array that was never
allocated, and an accelerator fails only after compilation.
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
  """Rejects arrays that do not fit into memory.

  The required memory is a lower bound: gradients, activations and the compiled
  program need additional memory.

  Args:
    make: () -> pytree of arrays that every device stores; only its shapes are
      computed.
    copies: number of copies that exist at the same time.
    data: additional bytes on an accelerator. A CPU may share them with the
      host's arrays.
    what: name of the task, for the message.

  Raises:
    ValueError: if they do not fit; states the required and available memory.
  """
  arrays = jax.tree.leaves(jax.eval_shape(make))
  # Use Python integers, because the product may overflow 32 or 64 bits.
  size = sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)
  needed, owner = copies * size + data, "each device"
  if jax.default_backend() == "cpu":
    data = 0
    needed, owner = copies * size * jax.local_device_count(), "this machine"
  limit = available()
  if limit is None or needed <= limit:
    return
  advice = "choose a smaller config.model, or a machine with more memory"
  if needed - data <= limit:
    advice = "lower config.train.device_data_gib, so that images are streamed"
  raise ValueError(
    f"{what} needs at least {needed / GIB:.1f} GiB of memory on {owner}, "
    f"but only {limit / GIB:.1f} GiB are available: {advice}"
  )


def available(root: pathlib.Path = pathlib.Path("/")) -> int | None:
  """Maximum memory for the arrays of this process.

  Args:
    root: folder that contains `proc` and `sys`.

  Returns:
    Bytes. On accelerators, the smallest limit of their allocators; on a CPU,
    the memory that is free or can be freed, within the limits of the process's
    control groups, plus free swap space. None if unknown.
  """
  if jax.default_backend() != "cpu":
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    limits = [row["bytes_limit"] for row in stats if "bytes_limit" in row]
    return min(limits, default=None)
  try:
    rows = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
    kib = {name: text.split()[0] for name, text in (r.split(":") for r in rows)}
    free, swap = int(kib["MemAvailable"]) * 1024, int(kib["SwapFree"]) * 1024
  except (OSError, KeyError, ValueError):  # not Linux, or an unusual format
    return None
  return min([free, *_control_groups(root)]) + swap


def _control_groups(root: pathlib.Path) -> list[int]:
  """Limits in bytes of the control groups (v2, v1) of this process."""
  found, v2 = [], root / "sys/fs/cgroup"
  bases = ((v2, "memory.max"), (v2 / "memory", "memory.limit_in_bytes"))
  with contextlib.suppress(OSError):
    lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    # In a container, this may be the path on the host, while the mounted root
    # is already the container's own group. So also look in parent folders.
    groups = {os.path.normpath(x.split(":", 2)[2]).lstrip("/") for x in lines}
    for (base, name), group in itertools.product(bases, groups):
      for folder in (base / group, *(base / group).parents):
        if folder.is_relative_to(base) and (folder / name).is_file():
          text = (folder / name).read_text(encoding="utf-8").strip()
          found += [int(text)] if text.isdecimal() else []  # or "max"
  return found
