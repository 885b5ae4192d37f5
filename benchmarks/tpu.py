r"""Estimates the time and memory of programs on TPUs, without a TPU.

    python -m benchmarks.tpu --topology=v5e:2x2 --chips=1,4 \
        --model=resnet18 --method=robust_augmix --programs=train

Compiles the programs of training and evaluation for TPUs that need not be
present, and shows the compiler's own estimates of time and memory. Nothing is
executed. Install libtpu in a separate environment, because wherever it is
installed, every program that uses JAX looks for a TPU.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
import numpy as np
from jax import ShapeDtypeStruct as Array
from jax.experimental import topologies

from benchmarks import setting, timing, tpu_text
from configs.sweeps import techniques
from ram_jax import command_line, experiment, parallel, plugins
from ram_jax import keys as keys_lib
from ram_jax.attacks.norms import NORMS
from ram_jax.attacks.pgd import Attack, finite_gradients
from ram_jax.evaluation import (
  adversarial,
  clean,
  pool,
  precision,
  suite,
)
from ram_jax.models.classifier import Classifier
from ram_jax.training import loop as train

TRAINING_IMAGES = 50_000
STEPS = 10  # per dispatch, as on any accelerator
# Programs that depend on the method, programs of the evaluation, which do not,
# and those that `evaluation/pool.py` runs for each attack of AutoAttack.
PARTS = ("augmix", "attack")
EVALUATION = ("clean", "pgd")
POOL = ("start", "merge", "several", "images")
Lowered = tuple[Callable, tuple, int]  # pmapped function, arguments, steps


def main() -> None:
  """Compiles a program for each combination of flag values; writes the rows."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--topology", default="v5e:2x2")
  parser.add_argument("--chips", default="1")
  parser.add_argument("--model", default="resnet18")
  parser.add_argument(
    "--method",
    default="robust_augmix",
    help="methods, such as augmix; robust_augmix+ema for a technique of "
    "configs/sweeps/techniques.py; adversarial+mix.name=mixup for a field of "
    "the config",
  )
  parser.add_argument(
    "--programs",
    default="train",
    help=f"train, {', '.join(PARTS + EVALUATION)}, autoattack (all of its "
    "programs), or one of its programs, such as apgd-ce/l2/several",
  )
  parser.add_argument("--batch_size", type=int, default=128)
  parser.add_argument("--texts", help="FOLDER for the compiled programs")
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  if not importlib.util.find_spec("libtpu"):
    parser.exit(
      1,
      "libtpu is not installed: in a separate environment, run "
      f'pip install -r requirements.txt "jax[tpu]=={jax.__version__}"\n',
    )
  for topology in flags.topology.split(","):
    for case in cases(flags):
      row = measure(topology, case, flags.texts)
      print(json.dumps(row, indent=2), flush=True)
      write(topology, row, pathlib.Path(flags.out))


def cases(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """Lists the cases: all combinations of the values of the flags.

  Args:
    flags: command-line flags.

  Yields:
    Program, model, method (None for the evaluation), chips and batch size.
  """
  programs = []
  for name in flags.programs.split(","):
    programs += every_attack() if name == "autoattack" else [name]
  for model in flags.model.split(","):
    for program in programs:
      trained = program == "train" or program in PARTS
      for method in flags.method.split(",") if trained else (None,):
        for chips in map(int, flags.chips.split(",")):
          case = {"program": program, "model": model, "method": method}
          yield case | {"chips": chips, "batch_size": flags.batch_size}


def every_attack() -> list[str]:
  """Lists the programs of AutoAttack, without duplicates."""
  names = {}
  for name, stage in suite.ATTACKS.items():
    for norm in NORMS:
      attack = stage.make(norm=norm, epsilon=0.5)
      names.setdefault(attack, f"{name}/{norm}")
  return [f"{name}/{part}" for name in names.values() for part in POOL]


def chips(topology: str, count: int) -> list[jax.Device]:
  """Returns compile-only devices for the chips of a topology.

  Args:
    topology: name of the topology, such as `v5e:2x2`.
    count: number of chips.

  Returns:
    The first `count` devices.
  """
  found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
  return list(found.devices[:count])


def measure(
  topology: str, case: dict[str, Any], texts: str | None = None
) -> dict[str, Any]:
  """Compiles one program and reads the compiler's estimates.

  Args:
    topology: name of the topology, such as `v5e:2x2`.
    case: from `cases`.
    texts: folder for the compiled program's text, if any.

  Returns:
    The case, compile time, memory in MiB, and `tpu_text.estimates`; or the case
    and the compiler's error.
  """
  start = time.monotonic()
  mapped, arguments, steps = build(case, chips(topology, case["chips"]))
  # As in training and evaluation.
  with jax.default_matmul_precision("highest"):
    lowered = mapped.lower(*arguments)
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    return case | {"error": str(error)[:2000]}
  text = compiled.as_text()
  if texts:
    name = "_".join(str(x).replace("/", "_") for x in case.values())
    path = pathlib.Path(texts) / f"{topology.replace(':', '_')}_{name}.txt"
    path.write_text(text, encoding="utf-8")
  memory = compiled.memory_analysis()
  sizes = {
    name: round(getattr(memory, f"{name}_size_in_bytes") / 2**20, 1)
    for name in ("argument", "output", "alias", "temp", "generated_code")
  }
  seconds = round(time.monotonic() - start)
  row = case | {"compile_seconds": seconds, "memory_mib": sizes}
  return row | tpu_text.estimates(text, steps)


def build(case: dict[str, Any], devices: list[jax.Device]) -> Lowered:
  """Builds the program of a case.

  Args:
    case: from `cases`.
    devices: the chips to compile for.

  Returns:
    The pmapped function, its abstract arguments, and the number of steps (of
    training, or of an attack in a pool) per call.
  """
  program, size = case["program"], case["batch_size"]
  method, _, technique = (case["method"] or "standard").partition("+")
  config = setting.CONFIGS[method].get_config(f"model={case['model']}")
  if "=" in technique:
    command_line.override(config, [f"--config.{technique}"])
  else:
    techniques.TECHNIQUES[technique or "control"](config)
  # What `experiment.resolve` chooses on accelerators.
  config.train.update(
    dtype="bfloat16", unroll=False, steps_per_dispatch=STEPS, batch_size=size
  )
  config = experiment.resolve(config)
  source, shape = setting.Source(), (TRAINING_IMAGES, 32, 32, 3)
  training = train.build(config, source, shape, devices=devices)
  state = jax.eval_shape(training.create)
  key = jax.eval_shape(jax.random.key, 0)
  rows = len(devices), size // len(devices)
  if program == "train":
    data = {  # as `feed.as_rows` returns it
      "images": Array((shape[0], math.prod(shape[1:])), np.uint8),
      "labels": Array(shape[:1], np.int32),
    }
    indices = Array((rows[0], STEPS, rows[1]), np.int32)
    settings = jax.eval_shape(lambda: training.settings)
    return training.dispatch, (state, data, settings, indices), STEPS
  dtype = config.train.dtype if program in PARTS else "float32"
  module = plugins.build_model(config, source, dtype, None)
  model = Classifier(state.params, state.batch_stats, module)
  batch = {
    "images": Array((*rows, 32, 32, 3), np.uint8),
    "labels": Array(rows, np.int32),
  }
  positions = Array(rows, np.int32)
  if program in EVALUATION:
    function, shared = _evaluation(program, model, key)
    mapped = parallel.example_dispatch(function.__wrapped__, devices)
    return mapped, (shared, positions, batch), 1
  batch |= {"images": Array((*rows, 32, 32, 3), np.float32)}
  batch |= {name: positions for name in ("positions", "targets", "number")}
  if program in PARTS:
    method = plugins.build("method", config.method, unroll=False)
    mapped = parallel.stateful_dispatch(_part(program, method), devices)
    return mapped, ((key, model), {}, batch), 1
  attack, norm, name = program.split("/")
  attack = suite.ATTACKS[attack].make(norm=norm, epsilon=0.5)
  shared = attack, key, finite_gradients(model)
  return _pooled(name, shared, batch, devices)


def _evaluation(
  program: str, model: Classifier, key: Any
) -> tuple[Callable, Any]:
  if program == "clean":
    return clean.per_example, model
  return adversarial.robust, (
    Attack(0.5, 0.125, 10, start="sphere"),
    key,
    precision.Searched(model, precision.FULL),
  )


def _part(program: str, method: Any) -> Callable:
  """Builds AugMix or the training attack as a function of a batch."""

  def run(shared: Any, state: Any, batch: dict[str, jax.Array]) -> Any:
    key, model = shared
    keys = keys_lib.per_example(key, batch["positions"])
    if program == "augmix":
      return method.augment(keys, batch["images"]), {}
    return method.attack(keys, batch["images"], batch["labels"], model), {}

  return run


def _pooled(
  name: str, shared: Any, batch: dict[str, Any], devices: list[jax.Device]
) -> Lowered:
  """Builds a program of `pool.py`."""
  program = getattr(pool, f"_{name}").__wrapped__
  mapped = parallel.stateful_dispatch(program, devices)
  if name == "start":
    return mapped, (shared, {}, batch), 1
  local = jax.tree.map(lambda x: Array(x.shape[1:], x.dtype), batch)
  state, _ = jax.eval_shape(pool._start.__wrapped__, shared, {}, local)
  state = jax.tree.map(
    lambda x: Array((len(devices), *x.shape), x.dtype), state
  )
  if name == "merge":
    fresh = {"fresh": Array(batch["labels"].shape, bool)}
    return mapped, (shared, {"old": state, "new": state}, fresh), 1
  return mapped, (shared, state, {}), pool.STEPS if name == "several" else 1


def write(topology: str, row: dict[str, Any], folder: pathlib.Path) -> None:
  """Adds a row to a topology's file, or replaces the row of the same case.

  Args:
    topology: name of the topology, such as `v5e:2x2`.
    row: from `measure`.
    folder: folder of the benchmarks' results.
  """
  path = folder / f"tpu_{topology.replace(':', '_')}.json"
  rows = []
  if path.exists():
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
  case = ("program", "model", "method", "chips", "batch_size")
  rows = [old for old in rows if any(old[k] != row[k] for k in case)] + [row]
  versions = {p: importlib.metadata.version(p) for p in ("jax", "libtpu")}
  found = {"topology": topology, "versions": versions, "rows": rows}
  path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
