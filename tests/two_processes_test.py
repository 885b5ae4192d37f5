"""Two processes with two devices each take the step that one process takes."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np

from ram_jax import metrics

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Run by every process; rows of the same global batch on all of them.
PROGRAM = """
import sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from configs import adversarial
from ram_jax import parallel, settings, train
from ram_jax.checkpoint import Checkpoints
from ram_jax.data import digits
from ram_jax.evaluators import clean
from ram_jax.models.classifier import Classifier
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
assert jax.device_count() == 4
parallel.check_agreement(2, "nothing")
# The checkpoint is common to all processes, and so is what comes back.
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(2, state)
checkpoints.close()
checkpoints = Checkpoints(sys.argv[1])
state = parallel.replicate(checkpoints.restore(training.create())[0])
checkpoints.close()
module = settings.build_model(config, digits.Source(), "float32", None)
model = Classifier(state.params, state.batch_stats, module)
host = {name: np.asarray(array)[:13] for name, array in data.items()}
correct = clean.per_example(model, host, 8)["correct"].sum()
leaves = jax.tree.leaves((state, metrics, correct))
np.savez(sys.argv[2], *[np.asarray(x) for x in leaves])
try:
  parallel.check_agreement(jax.process_index(), "the step")
  assert jax.process_count() == 1
except ValueError as error:
  assert "the step differs between the processes: [0, 1]" in str(error)
"""


def start(devices, folder, out, program=PROGRAM, **environment):
  flags = f"--xla_force_host_platform_device_count={devices}"
  environment = os.environ | {
    "XLA_FLAGS": flags,
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
    **environment,
  }
  command = [sys.executable, "-c", program, str(folder), str(out)]
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


def test_two_processes_equal_one(tmp_path):
  one = tmp_path / "one.npz"
  finish([start(4, tmp_path / "one", one)])
  address = f"localhost:{free_port()}"
  outs = [tmp_path / f"two{index}.npz" for index in range(2)]
  finish(
    [
      start(
        2,
        tmp_path / "two",
        out,
        JAX_COORDINATOR_ADDRESS=address,
        JAX_NUM_PROCESSES="2",
        JAX_PROCESS_ID=str(index),
      )
      for index, out in enumerate(outs)
    ]
  )
  wanted = np.load(one)
  assert len(wanted.files) > 20
  for found in map(np.load, outs):
    assert found.files == wanted.files
    for name in wanted.files:
      scale = max(np.linalg.norm(wanted[name]), 1e-300)
      error = np.linalg.norm(found[name] - wanted[name])
      assert error <= 1e-9 * scale, name


# The one that is asked to leave tells the other; both save the same step.
STOPPED = """
import os, pathlib, signal, sys
import jax, numpy as np
from jax.experimental import multihost_utils
from configs import standard
from ram_jax import parallel, settings, stopping, train
from ram_jax.checkpoint import Checkpoints
from ram_jax.data import digits
parallel.initialize()
config = standard.get_config("model=wrn_10_1")
config.train.batch_size = 8
config.train.epochs = 4
config.train.log_every = 3
config = settings.resolve(config)
rng = np.random.default_rng(0)
data = {
  "images": rng.integers(0, 256, (16, 8, 8, 3), np.uint8),
  "labels": rng.integers(0, 10, 16, np.int32),
}
training = train.build(config, digits.Source(), data["images"].shape)
created = jax.tree.map(np.asarray, training.create())
folder = pathlib.Path(sys.argv[1])
first = jax.process_index() == 0

def fit(name, signal_at=None):
  class Training:
    def __getattr__(self, name):
      return getattr(training, name)
    def create(self):
      return created
    def dispatch(self, state, *rest):
      if int(state.step) == signal_at and not first:
        os.kill(os.getpid(), signal.SIGTERM)
      return training.dispatch(state, *rest)
  (folder / name).mkdir(exist_ok=True)
  checkpoints = Checkpoints(folder / name / "checkpoints")
  try:
    with stopping.listen() as stop:
      state = train.fit(
        config, Training(), data, folder / name, checkpoints, stop
      )
      return jax.tree.map(np.asarray, state)
  except stopping.Stopped as error:
    return str(error)
  finally:
    checkpoints.close()

folder.mkdir(exist_ok=True)
whole = fit("whole")
for at, saved in ((0, 2), (3, 5)):  # the answer comes a dispatch later
  said = fit("cut", at)
  wanted = f"stopped by SIGTERM: step {saved} of 8 is saved, the same command"
  assert said.startswith(wanted), said
# The newest is damaged: both go back to the one before.
if first:
  (folder / "cut" / "checkpoints" / "5" / "beside" / "metadata").unlink()
multihost_utils.sync_global_devices("damaged")
resumed = fit("cut")
jax.tree.map(np.testing.assert_array_equal, whole, resumed)
assert (folder / "cut" / "checkpoints" / "5.damaged").exists()
try:
  parallel.first_process(lambda: pathlib.Path(os.devnull, "x").mkdir())
  raise AssertionError
except OSError:
  assert first
except ValueError as error:
  assert "the first process failed" in str(error) and not first
"""


def test_two_processes_leave_together(tmp_path):
  address = f"localhost:{free_port()}"
  finish(
    [
      start(
        1,
        tmp_path / "run",
        "unused",
        STOPPED,
        JAX_COORDINATOR_ADDRESS=address,
        JAX_NUM_PROCESSES="2",
        JAX_PROCESS_ID=str(index),
      )
      for index in range(2)
    ]
  )
  steps = [
    row["step"] for row in metrics.read(tmp_path / "run/cut/metrics.jsonl")
  ]
  assert steps == [2, 3, 4, 6, 8]
