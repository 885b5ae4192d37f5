"""A short version of benchmarks/memory.py."""

import numpy as np
import pytest

from benchmarks import memory
from ram_jax import plugins
from tests import tiny


@pytest.mark.parametrize(
  "streamed", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_memory_is_bounded(monkeypatch, streamed):
  """Keeping 80 dispatches would take 1.9 MiB (rows) and 48 MiB (states)."""
  # As large as the benchmark's network, with less to compile and to compute.
  monkeypatch.setattr(
    plugins, "build_model", lambda *_: tiny.Net(widths=(64, 128))
  )
  found = np.array(memory.measure(dispatches=120, streamed=streamed))
  assert found.shape == (120, 2)
  resident, on_devices = found[40:].T
  assert on_devices.max() - on_devices.min() < 0.5
  # The allocator's own moods are 30 MiB in 2000 dispatches.
  assert resident[-20:].mean() - resident[:20].mean() < 25
