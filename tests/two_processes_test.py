"""Two processes with two devices each take the step that one process takes."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Run by every process; rows of the same global batch on all of them.
PROGRAM = """
import sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from configs import adversarial
from ram_jax import parallel, settings, train
from ram_jax.data import digits
parallel.initialize()
config = adversarial.get_config("model=wrn_10_1")
config.method.attack.steps = 2
config.train.batch_size = 8
config = settings.resolve(config)
rng = np.random.default_rng(0)
data = {
  "images": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
  "labels": rng.integers(0, 10, 16, np.int32),
}
training = train.build(config, digits.Source(), data["images"].shape)
state, data, key = parallel.replicate(
  (training.create(), data, jax.random.key(0))
)
for step in range(2):
  indices = 8 * step + np.arange(8, dtype=np.int32)[None]
  state, metrics = training.dispatch(
    state, data, key, parallel.shard(indices, axis=1)
  )
  jax.block_until_ready(metrics)
if parallel.is_first_process():
  leaves = jax.tree.leaves((state, metrics))
  np.savez(sys.argv[1], *[np.asarray(x) for x in leaves])
assert jax.device_count() == 4
"""


def start(devices, out, **environment):
  flags = f"--xla_force_host_platform_device_count={devices}"
  environment = os.environ | {
    "XLA_FLAGS": flags,
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
    **environment,
  }
  command = [sys.executable, "-c", PROGRAM, str(out)]
  return subprocess.Popen(
    command, env=environment, stderr=subprocess.PIPE, text=True
  )


def finish(processes):
  for process in processes:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]


def free_port():
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return probe.getsockname()[1]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
  out = tmp_path_factory.mktemp("one") / "state.npz"
  finish([start(4, out)])
  return np.load(out)


def test_two_processes_equal_one(one_process, tmp_path):
  address = f"localhost:{free_port()}"
  processes = [
    start(
      2,
      tmp_path / f"state{index}.npz",
      JAX_COORDINATOR_ADDRESS=address,
      JAX_NUM_PROCESSES="2",
      JAX_PROCESS_ID=str(index),
    )
    for index in range(2)
  ]
  finish(processes)
  assert not (tmp_path / "state1.npz").exists()  # one process writes
  two = np.load(tmp_path / "state0.npz")
  assert len(two.files) == len(one_process.files) > 20
  for name in two.files:
    wanted = one_process[name]
    scale = max(np.linalg.norm(wanted), 1e-300)
    assert np.linalg.norm(two[name] - wanted) <= 1e-9 * scale, name
