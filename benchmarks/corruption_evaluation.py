r"""Times the evaluation on generated corruptions against another version.

    python -m benchmarks.corruption_evaluation --baseline=CHECKOUT

CHECKOUT is another version of this project. Every run is a new process with an
empty compilation cache. The versions alternate and must give equal results.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from benchmarks import timing

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHILD = """
import hashlib, inspect, json, sys, time
import jax, numpy as np
from configs import common, default
from ram_jax import parallel, plugins
from ram_jax.corruptions import NAMES
from ram_jax.evaluation import corruption
from ram_jax.models.classifier import Classifier

wall, processor = time.monotonic(), time.process_time()
shape = int(sys.argv[1]), 32, 32, 3
images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
labels = np.zeros(len(images), np.int32)
constants = dict(num_classes=10, mean=(0.5,) * 3, std=(0.2,) * 3)
source = type("Source", (), constants)
config = default.get_config()
config.model = common.model_spec("wrn_10_1")
module = plugins.build_model(config, source, "float32", axis_name=None)
black = np.zeros((1, *shape[1:]), np.float32)
variables = module.init(jax.random.key(0), black, False)
variables = parallel.replicate(dict(variables))
model = Classifier(variables["params"], variables["batch_stats"], module)
names = tuple(name for name in NAMES if name != "frost")
spec = config.evaluators.corruption.to_dict() | {"names": names}
evaluator = plugins.build("evaluator", spec, batch_size=512)
digest = hashlib.sha256()
with jax.default_matmul_precision("highest"):
  batch = dict(images=images, labels=labels)
  # Versions before dbd60db take images and labels.
  old = "labels" in inspect.signature(evaluator.results).parameters
  batch = batch.values() if old else [batch]
  for row in evaluator.results(model, *batch, None, lambda _, f: f()):
    part = getattr(row, "images", None)  # of a picture
    part = getattr(row, "correct", part)
    digest.update(b"" if part is None else part.tobytes())
print(json.dumps({
  "processor": time.process_time() - processor,
  "wall": time.monotonic() - wall,
  "digest": digest.hexdigest(),
}))
"""


def main() -> None:
  """Times both versions."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--baseline", required=True, help="CHECKOUT")
  parser.add_argument("--images", type=int, default=512)
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  sides = {"baseline": flags.baseline, "ours": str(ROOT)}
  rows = {side: [] for side in sides}
  for _ in range(flags.repeats):
    for side, folder in sides.items():
      rows[side].append(run(folder, flags.images))
      print(side, rows[side][-1], flush=True)
  if len({row["digest"] for side in rows.values() for row in side}) > 1:
    raise SystemExit("the versions give different results")
  result = {"images": flags.images}
  for kind in ("processor", "wall"):
    times = {side: [row[kind] for row in rows[side]] for side in sides}
    pairs = zip(times["ours"], times["baseline"], strict=True)
    result[kind] = {
      side: statistics.median(values) for side, values in times.items()
    } | {"ratio": statistics.median(a / b for a, b in pairs)}
  timing.write("corruption_evaluation", result, flags.out)


def run(folder: str, images: int) -> dict[str, float | str]:
  """Evaluates 18 corruptions at five severities in a new process.

  Args:
    folder: checkout of the version to run.
    images: number of test images.

  Returns:
    CPU time and wall time in seconds, and a digest of the results.
  """
  with tempfile.TemporaryDirectory() as cache:
    done = subprocess.run(
      [sys.executable, "-c", CHILD, str(images)],
      env=os.environ
      | {"PYTHONPATH": folder, "JAX_COMPILATION_CACHE_DIR": cache},
      capture_output=True,
      text=True,
      check=True,
      cwd=folder,
    )
  return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
  main()
