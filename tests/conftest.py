"""Fixtures for all tests: a shared compilation cache, and real data."""

import os
import pathlib

# Before jax is imported: four simulated devices for the equalities between
# device counts, and the longer patience that they need on few cores.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + " --xla_force_host_platform_device_count=4"
  + " --xla_cpu_collective_call_terminate_timeout_seconds=300"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from ram_jax import plugins
from tests import tiny

ROOT = pathlib.Path(__file__).resolve().parents[1]


# Files with few but long tests. They start first, so that no process waits for
# another one at the end.
LONG = (
  "two_processes_test",
  "sweep_test",
  "combinations_test",
  "main_test",
  "digits_test",
  "reliability_test",
  "autoattack_test",
  "random_config_test",
  "bucket_test",
  "torch_parity_test",
  "step_test",
  "tpu_export_test",
)


def pytest_collection_modifyitems(items):
  """Sorts the tests of `LONG` to the front, and keeps the order otherwise."""
  place = {name: i for i, name in enumerate(LONG)}
  items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
  """Caches compiled programs during a run of the tests (CI: across runs)."""
  folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
  if not folder:
    folder = str(tmp_path_factory.mktemp("jax_cache"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder  # for child processes
  jax.config.update("jax_compilation_cache_dir", folder)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="module")
def quick_compilation():
  """Compilation without most optimizations, in a fraction of the time.

  For files whose programs run briefly and whose numbers have a tolerance: not
  for those that compare bits of differently compiled programs.
  """
  jax.clear_caches()
  jax.config.update("jax_disable_most_optimizations", True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # for child processes
    yield
  jax.config.update("jax_disable_most_optimizations", False)
  jax.clear_caches()  # no other file uses these programs


@pytest.fixture(scope="module")
def tiny_network():
  """Replaces the network of every config by a tiny one, for a whole file."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(plugins, "build_model", tiny.build_model)
    yield


@pytest.fixture
def x64():
  """Enables float64 for one test."""
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope="session")
def shared_data():
  """Folder of real CIFAR-10 data next to the checkout; skips if missing."""
  folder = ROOT.parent / "shared" / "data"
  if not (folder / "cifar10_lossless.npz").exists():
    pytest.skip(f"real CIFAR-10 data is not at {folder}")
  return folder
