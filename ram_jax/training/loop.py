"""The one training loop."""

import contextlib
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ram_jax import memory, parallel, plugins
from ram_jax.augment.mixing import Mixing
from ram_jax.data import feed, pipeline
from ram_jax.runs import provenance
from ram_jax.runs import signals as stopping
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.runs.metrics import announce
from ram_jax.training import averaging, optim, post_mortem, step
from ram_jax.training import split as split_lib
from ram_jax.training.log import Log
from ram_jax.training.perturbation import WeightPerturbation
from ram_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Training:
  """The training run that a config describes, ready to start.

  Attributes:
    create: () -> the state before the first step.
    settings: the run's settings, on the host.
    dispatch: (state, data, settings, indices) -> (state, metrics), pmapped; the
      same function for runs that only differ in their settings.
    diagnose: `post_mortem.diagnose`, pmapped; the same arguments for one step.
    add_statistics: `step.Program.add_statistics`, pmapped, for averaged weights
      whose running statistics are estimated after training; else None.
    schedule: learning rate by step.
    seed: the run's seed.
    batch_size: images per step.
    steps_per_epoch: full batches per epoch; the last partial batch is dropped.
    total_steps: steps of the whole run.
    per_dispatch: steps in one dispatch; it divides `total_steps`, so that one
      compiled program serves the whole run.
    streamed: whether each dispatch gets only its own rows from the host.
  """

  create: Callable[[], TrainState]
  settings: step.Settings
  dispatch: Callable
  diagnose: Callable
  add_statistics: Callable | None
  schedule: Callable
  seed: int
  batch_size: int
  steps_per_epoch: int
  total_steps: int
  per_dispatch: int
  streamed: bool


def build(
  config: ConfigDict,
  source: Any,
  images_shape: tuple[int, ...],
  start: Callable[[Any], tuple[Any, Any]] | None = None,
  devices: parallel.Devices = None,
) -> Training:
  """Builds the training run of a config; rejects invalid fields.

  Args:
    config: resolved.
    source: the data set.
    images_shape: [N,H,W,C] of the training images.
    start: module -> parameters and running statistics to start from; None:
      random initialization.
    devices: see `parallel.training_dispatch`.

  Returns:
    The training run.

  Raises:
    ValueError: naming the field and what is allowed.
  """
  train, batch_norm = config.train, config.batch_norm
  parallel.check_batch_size(train.batch_size, "config.train.batch_size")
  steps_per_epoch = pipeline.steps_per_epoch(images_shape[0], train.batch_size)
  total_steps = steps_per_epoch * train.epochs
  if total_steps >= 2**31:
    raise ValueError(
      f"config.train.epochs is {train.epochs}: that is {total_steps} steps, "
      "but the maximum is 2^31 - 1"
    )
  of_sgd = config.optimizer.to_dict()
  peak = of_sgd.pop("learning_rate")
  axis_name = parallel.AXIS if batch_norm.sync else None
  program = step.Program(
    module=plugins.build_model(config, source, train.dtype, axis_name),
    image_shape=tuple(images_shape[1:]),
    crop_flip=plugins.build("augment", config.augment),
    separate_views=batch_norm.views == "separate",
    attack_batch_norm=batch_norm.attack,
    perturbation=WeightPerturbation(
      config.awp.gamma, config.awp.first_epoch * steps_per_epoch
    ),
    split=split_lib.build(config),
    label_smoothing=train.label_smoothing,
    ramp_steps=train.epsilon_ramp * total_steps,
    attack_steps=_attack_steps(config, steps_per_epoch),
    mixing=None if config.mix.name == "none" else Mixing(**config.mix),
    unroll=train.unroll,
    optimizer=optim.Optimizer(
      steps_per_epoch=steps_per_epoch, epochs=train.epochs, **of_sgd
    ),
    averaging=averaging.Averaging(
      **config.average, steps_per_epoch=steps_per_epoch, total_steps=total_steps
    ),
  )
  streamed = math.prod(images_shape) > train.device_data_gib * 2**30
  # Streams of the seed: 0 for initial weights, 1 for the steps.
  init_key, key = (
    jax.random.fold_in(jax.random.key(config.seed), i) for i in range(2)
  )
  settings = _settings(config, key, peak)
  init, dispatch, diagnose, add_statistics = _programs(
    program, streamed, devices and tuple(devices)
  )
  first = functools.partial(init, init_key)
  if start:
    first = functools.partial(program.begin, *start(program.module))
  return Training(
    create=first,
    settings=settings,
    dispatch=dispatch,
    diagnose=diagnose,
    add_statistics=add_statistics,
    schedule=functools.partial(program.optimizer.rate, peak),
    seed=config.seed,
    batch_size=train.batch_size,
    steps_per_epoch=steps_per_epoch,
    total_steps=total_steps,
    per_dispatch=largest_divisor(total_steps, train.steps_per_dispatch),
    streamed=streamed,
  )


def _settings(config: ConfigDict, key: jax.Array, peak: float) -> step.Settings:
  """The numbers of a run, on the host."""
  unroll = config.train.unroll
  method = plugins.build("method", config.method, unroll=unroll)
  for name, field in (("epsilon_ramp", "step_size"), ("attack_steps", "limit")):
    value = config.train[name]
    if value and not hasattr(getattr(method, "attack", None), field):
      raise ValueError(
        f"config.train.{name} is {value}, but the method {config.method.name} "
        f"has no attack (such as pgd) with the field {field}: use the default"
      )
  numbers = jax.tree.map(
    lambda x: np.asarray(x, jnp.result_type(float)), (method, peak)
  )
  return step.Settings(key, *numbers)


def _attack_steps(
  config: ConfigDict, steps_per_epoch: int
) -> tuple[tuple[int, int], ...]:
  """`train.attack_steps`, with epochs converted to training steps."""
  if not (schedule := config.train.attack_steps):
    return ()
  first = () if schedule[0][0] == 0 else ((0, config.method.attack.steps),)
  return *first, *((epoch * steps_per_epoch, n) for epoch, n in schedule)


@functools.lru_cache(maxsize=8)
def _programs(
  program: step.Program, streamed: bool, devices: parallel.Devices
) -> tuple[Callable, Callable, Callable, Callable | None]:
  """Builds `Training`'s create (which takes a key) and its other functions.

  Cached: for equal arguments, it returns the same functions, so that the runs
  of a process share their compiled programs.
  """
  mapped = functools.partial(
    parallel.training_dispatch, streamed=streamed, devices=devices
  )
  diagnose = functools.partial(post_mortem.diagnose, program)
  average, statistics = program.averaging, None
  if average.name != "none" and average.batch_norm == "reestimated":
    statistics = mapped(program.add_statistics)
  init, steps = jax.jit(program.create), mapped(program.train_steps)
  return init, steps, mapped(diagnose, donate=False), statistics


def check_memory(
  training: Training, data: dict[str, np.ndarray], states: int, what: str
) -> None:
  """Rejects training that does not fit into memory.

  Args:
    training: from `build`.
    data: `images` and `labels`, on the host.
    states: number of states that exist at the same time.
    what: name of the task, for the message.

  Raises:
    ValueError: with the required and the available memory.
  """
  size = 0 if training.streamed else sum(x.nbytes for x in data.values())
  memory.check(training.create, states, size, what)


def fit(
  config: ConfigDict,
  training: Training,
  data: dict[str, np.ndarray],
  folder: pathlib.Path,
  checkpoints: Checkpoints,
  stop: stopping.Stop | None = None,
) -> TrainState:
  """Trains from the newest intact checkpoint, or from the start, to the end.

  Args:
    config: resolved.
    training: from `build`.
    data: `images` uint8 [N,H,W,C] and `labels` int32 [N].
    folder: the run's folder.
    checkpoints: the run's checkpoints.
    stop: checked after every dispatch.

  Returns:
    The last state, on the devices.

  Raises:
    stopping.Stopped: after a signal.
    FloatingPointError: after a step with a NaN or an infinity.
  """
  stop = stop or stopping.Stop()
  state, total = training.create(), training.total_steps
  open_line = None
  if checkpoints.latest_step() is not None:
    state, open_line = checkpoints.restore(state)
    announce(f"resuming from step {int(state.step)} of {total}")
  now = int(state.step)
  parallel.check_agreement(
    now, f"the step to resume from (is {folder} shared by all hosts?)"
  )
  if now < total:
    provenance.record(folder, now)
  state, settings = parallel.replicate((state, training.settings))
  fed = feed.dispatches(training, data, now)
  watch = post_mortem.Watch(training, data, settings, folder / "post_mortem")
  watch.keep(state)
  save_every = config.train.checkpoint_every * training.steps_per_epoch
  log = Log(training, folder, now, open_line)
  with contextlib.closing(fed), contextlib.closing(log):
    for rows, indices in fed:
      state, metrics = training.dispatch(state, rows, settings, indices)
      before, now = now, now + training.per_dispatch
      log.add(metrics)
      save = crosses(before, now, save_every) or now == total
      if now == total and training.add_statistics:
        fed.close()
        del rows  # frees the data on the devices before it is copied again
        state = _with_statistics(training, data, settings, state)
      if save or crosses(before, now, config.train.log_every):
        with watch.explaining():
          log.write(now)
        watch.keep(state)
      leave = stop.requested()
      if save or leave:
        with watch.explaining():
          open_line = log.open_line()
        checkpoints.save(now, state, open_line)
      if leave:
        raise stopping.Stopped(stop.number, f"step {now} of {total} is saved")
  return state


def _with_statistics(
  training: Training,
  data: dict[str, np.ndarray],
  settings: step.Settings,
  state: TrainState,
) -> TrainState:
  """Averaged weights, with running statistics computed over one epoch."""
  zeros = jax.tree.map(np.zeros_like, state.average["batch_stats"])
  total = {"params": state.average["params"], "batch_stats": zeros}
  total = jax.tree.map(np.asarray, total) | {"step": np.int32(0)}
  total = parallel.replicate(total)
  count = training.steps_per_epoch
  epoch = dataclasses.replace(training, total_steps=count, per_dispatch=1)
  for rows, indices in feed.dispatches(epoch, data, now=0):
    total, _ = training.add_statistics(total, rows, settings, indices)
    jax.block_until_ready(total["step"])  # on CPUs, dispatches must not pile up
  means = jax.tree.map(lambda x: x / count, total["batch_stats"])
  average = {"params": total["params"], "batch_stats": means}
  return state.replace(average=average)


def crosses(before: int, now: int, every: int) -> bool:
  """Whether a multiple of `every` is in (before, now]."""
  return now // every > before // every


def largest_divisor(number: int, limit: int) -> int:
  """The largest divisor of `number` that is at most `limit`."""
  return max(d for d in range(1, min(number, limit) + 1) if number % d == 0)
