"""ram_jax's training step and its parts, as functions to be timed."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import setting, timing
from ram_jax import experiment, losses, parallel, plugins
from ram_jax.data import feed
from ram_jax.image.color import dequantize
from ram_jax.models.classifier import Classifier, forward_views
from ram_jax.training import loop as train
from ram_jax.training import optim

DATA_SIZE = 1024


@dataclasses.dataclass(frozen=True)
class Step:
  """A method's step for one network and batch size.

  Attributes:
    config: the resolved config.
    module: the network, without a device axis.
    training: the training that `main.py` would run.
    run: runs the steps of one dispatch; the caller waits for the result.
    per_dispatch: number of steps per dispatch.
    compiled_text: returns the compiled program as HLO text.
  """

  config: ConfigDict
  module: Any
  training: train.Training
  run: Callable[[], Any]
  per_dispatch: int
  compiled_text: Callable[[], str]


def build(method: str, model: str, batch_size: int, **overrides: Any) -> Step:
  """Builds the training program, with random images.

  Args:
    method: a key of `setting.CONFIGS`.
    model: short name of the network, such as `resnet18`.
    batch_size: images per step, over all devices.
    **overrides: further fields of the config, by their dotted names.

  Returns:
    The step. Every call of `run` continues the training.
  """
  config = setting.CONFIGS[method].get_config(f"model={model}")
  # With a small learning rate, all values stay finite.
  fixed = {"train.batch_size": batch_size, "optimizer.learning_rate": 1e-3}
  config.update_from_flattened_dict(fixed | overrides)
  config = experiment.resolve(config)
  source = setting.Source()
  images = timing.pictures(DATA_SIZE)
  built = train.build(config, source, images.shape)
  labels = np.arange(DATA_SIZE, dtype=np.int32) % source.num_classes
  data = feed.as_rows({"images": images, "labels": labels})
  state = [built.create()]
  state[0], data, settings = parallel.replicate(
    (state[0], data, built.settings)
  )
  shape = built.per_dispatch, batch_size
  rows = np.random.default_rng(0).integers(0, DATA_SIZE, shape, np.int32)

  def run() -> Any:
    indices = parallel.shard(rows, axis=1)
    state[0], metrics = built.dispatch(state[0], data, settings, indices)
    return metrics

  def compiled_text() -> str:
    indices = parallel.shard(rows, axis=1)
    lowered = built.dispatch.lower(state[0], data, settings, indices)
    return lowered.compile().as_text()

  module = plugins.build_model(config, source, config.train.dtype, None)
  return Step(config, module, built, run, built.per_dispatch, compiled_text)


def parts(step: Step) -> dict[str, Callable[[], Any]]:
  """Builds the parts of a RobustAugMix step as separate programs.

  Args:
    step: a step of RobustAugMix.

  Returns:
    Functions by name; the caller waits for their results. `attack` computes all
    gradients of the attack, one call per gradient.
  """
  config, module, batch = step.config, step.module, step.config.train.batch_size
  state = step.training.create()
  images = dequantize(jax.numpy.asarray(timing.pictures(batch)))
  labels = np.arange(batch, dtype=np.int32) % 10
  model = Classifier(state.params, state.batch_stats, module)
  unroll = config.train.unroll
  method = plugins.build("method", config.method, unroll=unroll)
  keys = jax.random.split(jax.random.key(0), batch)

  @jax.jit
  def gradient(model: Classifier, x: jax.Array, labels: jax.Array) -> jax.Array:
    return jax.grad(lambda x: losses.cross_entropy(model(x), labels).sum())(x)

  def gradients() -> jax.Array:
    x = images
    for _ in range(config.method.attack.steps):
      x = gradient(model, x, labels)
    return x

  @jax.jit
  def learn(params: Any, batch_stats: Any, views: tuple, labels: Any) -> Any:
    def objective(params: Any) -> tuple[jax.Array, Any]:
      logits, statistics = forward_views(
        module, params, batch_stats, views, True, config.train.unroll
      )
      return method.loss(logits, labels)[0].mean(), statistics

    return jax.grad(objective, has_aux=True)(params)

  optimizer = optim.Optimizer("constant", 1, 1, 0.9, True, 5e-4, True, 0)(1e-3)

  @functools.partial(jax.jit, donate_argnums=0)
  def update(carry: tuple, gradient: Any) -> tuple:
    params, opt_state = carry
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return jax.tree.map(jax.numpy.add, params, updates), opt_state

  carry = [jax.tree.map(jax.numpy.copy, (state.params, state.opt_state))]

  def updates() -> Any:
    carry[0] = update(carry[0], state.params)
    return carry[0]

  augment = jax.jit(method.augment)
  views = (images, images, images)
  return {
    "attack": gradients,
    "forward_backward": lambda: learn(
      state.params, state.batch_stats, views, labels
    ),
    "update": updates,
    "augmix": lambda: augment(keys, images),
  }
