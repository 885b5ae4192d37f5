"""Available and required memory."""

import types

import jax
import numpy as np
import pytest

from ram_jax import memory

GIB = 2**30
MEMINFO = "MemTotal: 24 kB\nMemAvailable: 8388608 kB\nSwapFree: 1048576 kB\n"
V1, V2 = "sys/fs/cgroup/memory/", "sys/fs/cgroup/"
NO_LIMIT = str(2**63 - 4096)


def write(root, files):
  for name, text in files.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
  return root


@pytest.mark.parametrize(
  ("group", "limits", "gib"),
  [
    ("0::/a/b\n", {}, 9),
    ("0::/a/b\n", {f"{V2}a/b/memory.max": "max\n"}, 9),
    ("0::/a/b\n", {f"{V2}a/memory.max": str(2 * GIB)}, 3),
    ("0::/a/b\n", {f"{V2}a/b/memory.max": str(99 * GIB)}, 9),
    ("0::/../x\n", {f"{V2}memory.max": str(2 * GIB)}, 3),
    ("5:cpu:/\n4:memory:/a\n", {f"{V1}a/memory.limit_in_bytes": NO_LIMIT}, 9),
    ("4:memory:/host/a\n", {f"{V1}memory.limit_in_bytes": str(GIB)}, 2),
  ],
)
def test_host(tmp_path, group, limits, gib):
  files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": group}
  assert memory.available(write(tmp_path, files | limits)) == gib * GIB


def test_unknown_memory(tmp_path):
  assert memory.available(tmp_path) is None
  assert memory.available(write(tmp_path, {"proc/meminfo": "odd"})) is None
  assert memory.available() > 2**20  # this one


@pytest.fixture
def accelerators(monkeypatch):
  """Two, of 8 and 4 GiB; or as many as there are rows."""

  def of(*rows):
    found = [types.SimpleNamespace(memory_stats=lambda r=r: r) for r in rows]
    monkeypatch.setattr(jax, "local_devices", lambda: found)

  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  of({"bytes_limit": 8 * GIB}, {"bytes_limit": 4 * GIB})
  return of


def state():
  return {"w": np.zeros((2**14, 2**14), "f4")}  # 1 GiB


def test_accelerators(accelerators):
  memory.check(state, 2, 2 * GIB, "training")
  with pytest.raises(ValueError) as caught:
    memory.check(state, 5, GIB, "training")
  assert str(caught.value) == (
    "training needs at least 6.0 GiB of memory on each device, but only 4.0 "
    "GiB are available: choose a smaller config.model, or a machine with more "
    "memory"
  )
  with pytest.raises(ValueError, match=r"lower config\.train\.device_data_gib"):
    memory.check(state, 2, 3 * GIB, "training")
  accelerators({}, None)
  memory.check(state, 99, 0, "training")
