"""Profiles training: the time of each part of a step."""

import contextlib
import dataclasses
import itertools
import pathlib
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from ram_jax import experiment, parallel, plugins, trace
from ram_jax.data import feed, pipeline
from ram_jax.runs import folder as run_folder
from ram_jax.runs import provenance
from ram_jax.runs.metrics import announce
from ram_jax.training import loop as training_loop

SCHEMA = 1
FOLDER = "profile"
PROGRAM = "program.txt"  # the compiled program, stored beside its trace
HOST = "host"
WARM_UP, DISPATCHES = 2, 3


def profile(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
  """Traces a few dispatches at the start of a training run.

  Only `profile/` in the folder is read or written, so a run in the folder is
  not changed.

  Args:
    config: a complete config from `configs/`.
    workdir: the folder in which `profile/` is created.

  Returns:
    The content of profile.json in the first process, {} in the others.

  Raises:
    ValueError: for an invalid config, unusable data, or a trace that names no
      instruction of the program.
  """
  config, file = experiment.with_weights(config)
  source = plugins.build("dataset", config.dataset)
  train = pipeline.load(source, "train", config.train.images)
  training, data = experiment.build_training(config, source, train, file)
  folder = pathlib.Path(workdir) / FOLDER
  if parallel.is_first_process():  # fail now, not after compiling
    folder.mkdir(parents=True, exist_ok=True)
  training_loop.check_memory(training, data, 1, "profiling")
  # By default, the compilation cache's key ignores the metadata, which
  # contains the scopes.
  jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
  program, timing = _trace(training, data, folder)
  if not parallel.is_first_process():
    return {}
  found = _found(config, program, folder, timing)
  run_folder.write_json(found, folder / "profile.json")
  return found


def _trace(
  training: training_loop.Training,
  data: dict[str, Any],
  folder: pathlib.Path,
) -> tuple[Any, dict[str, float]]:
  """Runs and traces dispatches; returns the compiled program and timings."""
  # As in training.loop.fit, except for the number of steps.
  steps = (WARM_UP + 2 * DISPATCHES) * training.per_dispatch
  short = dataclasses.replace(training, total_steps=steps)
  made = training.create(), training.settings
  state, settings = parallel.replicate(made)
  program = None
  fed = feed.dispatches(short, data, now=0)

  def run(count: int) -> float:
    """Runs some dispatches and returns how many seconds they take."""
    nonlocal state, program
    start = time.monotonic()
    for rows, indices in itertools.islice(fed, count):
      batch = (state, rows, settings, indices)
      # The call below gets this program from the cache. With several hosts, a
      # compiled program cannot be called directly.
      program = program or training.dispatch.lower(*batch).compile()
      state, metrics = training.dispatch(*batch)
      if jax.default_backend() == "cpu":  # as in training, see log.py
        jax.block_until_ready(metrics)
    jax.block_until_ready(metrics)
    return time.monotonic() - start

  announce("compiling, then tracing")
  run(WARM_UP)
  timing = {"untraced_seconds": run(DISPATCHES)}
  tracing = contextlib.nullcontext()
  if parallel.is_first_process():
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # it would slow the host down
    tracing = jax.profiler.trace(
      folder, create_perfetto_trace=True, profiler_options=options
    )
  with tracing:
    timing |= {"seconds": run(DISPATCHES)}
  timing["steps"] = DISPATCHES * training.per_dispatch
  return program, timing


def _found(
  config: ConfigDict, program: Any, folder: pathlib.Path, timing: dict[str, Any]
) -> dict[str, Any]:
  """The content of profile.json."""
  paths = folder.glob("plugins/profile/*/*.xplane.pb")
  path = max(paths, key=lambda path: path.stat().st_mtime)
  profile_data = jax.profiler.ProfileData.from_file(str(path))
  text = program.as_text()
  (path.parent / PROGRAM).write_text(text, encoding="utf-8")
  total = trace.by_part(text, profile_data)
  if not (busy := sum(total.values())):
    raise ValueError(
      f"{path} names no instruction of the program: on this device, the time "
      "cannot be attributed to parts; view the trace in XProf or Perfetto"
    )
  devices = jax.local_device_count()
  parts = {name: seconds / devices for name, seconds in total.items()}
  return {
    "schema": SCHEMA,
    "config": config.to_dict(),
    "device": provenance.environment()["device"],
    "dispatches": DISPATCHES,
    **timing,
    "parts": parts | {HOST: timing["seconds"] - busy / devices},
    "attributed": 1 - total[trace.OTHER] / busy,
    "trace": str(path.relative_to(folder).parent),
  }
