"""One training step for every method: views, forward, loss, update."""

import copy
import dataclasses
import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ram_jax import keys as keys_lib
from ram_jax import losses, parallel
from ram_jax.augment.mixing import Mixing
from ram_jax.image.color import dequantize
from ram_jax.models.batch_norm import MOMENTUM
from ram_jax.models.classifier import Classifier, forward_views
from ram_jax.training.averaging import Averaging
from ram_jax.training.optim import Optimizer
from ram_jax.training.perturbation import WeightPerturbation
from ram_jax.training.split import AUXILIARY, Split
from ram_jax.training.state import TrainState

# Entries of metrics.jsonl that methods cannot report.
RESERVED = {"step", "epoch", "loss", "learning_rate", "timing"}
RESERVED |= {"gradient_norm", "parameter_norm", "statistics_norm"}

# Images uint8 [N,H*W*C] and labels int32 [N], by name.
Data = dict[str, jax.Array]


@flax.struct.dataclass
class Pass:
  """The results of one forward and backward pass over a batch on one device.

  Attributes:
    images: [b,H,W,C] of each view, in the views' order.
    logits: [b,K] of each view.
    targets: targets of the method's loss.
    metrics: the loss and the method's metrics, [b] by name.
    gradient: gradient of the mean loss.
    params: the parameters at which it was computed.
    batch_stats: the new running statistics.
  """

  images: tuple[jax.Array, ...]
  logits: tuple[jax.Array, ...]
  targets: Any
  metrics: dict[str, jax.Array]
  gradient: Any
  params: Any
  batch_stats: Any


@flax.struct.dataclass
class Settings:
  """Numeric settings of a run; runs that only differ in these share a program.

  Attributes:
    key: the run's key.
    method: a `Method` of `ram_jax.methods`, a pytree (`plugins.make_pytree`).
    learning_rate: initial learning rate, before warm-up is applied.
  """

  key: jax.Array
  method: Any
  learning_rate: jax.Array


@dataclasses.dataclass(frozen=True)
class Program:
  """What a compiled step depends on; its methods are the step and its parts.

  Every random number is a function of (settings.key, state.step, position in
  the global batch, purpose).

  Attributes:
    module: the model.
    image_shape: (H, W, C).
    crop_flip: an `Augment` that is applied first (flip and crop).
    separate_views: whether to compute BatchNorm statistics for each view (the
      author's three forward passes) or over all views together (AugMix's code).
    attack_batch_norm: `running` or `batch` statistics during the attack.
    perturbation: perturbs the parameters before the forward and backward pass
      that the update uses, unless its gamma is 0.
    split: how BatchNorm is split; the attack uses the auxiliary set.
    label_smoothing: weight of the uniform distribution in the loss's targets.
    ramp_steps: number of steps over which the attack's epsilon and step size
      rise from 0; 0 for none.
    attack_steps: pairs (first training step, attack steps from then on), in
      ascending order, starting at step 0; empty: the attack's own `steps`.
    mixing: mixes each image with its predecessor in the global batch; None: no
      mixing.
    unroll: whether to unroll the loop over the steps of a dispatch
      (convolutions in a loop are slow on CPUs); also passed to `forward_views`.
    optimizer: initial learning rate -> the run's optimizer.
    averaging: how the weights are averaged.
  """

  module: nn.Module
  image_shape: tuple[int, int, int]
  crop_flip: Any
  separate_views: bool
  attack_batch_norm: str
  perturbation: WeightPerturbation
  split: Split | None
  label_smoothing: float
  ramp_steps: float
  attack_steps: tuple[tuple[int, int], ...]
  mixing: Mixing | None
  unroll: bool
  optimizer: Optimizer
  averaging: Averaging

  def create(self, key: jax.Array) -> TrainState:
    """The state before the first step, with random parameters."""
    images = jnp.zeros((1, *self.image_shape))
    variables = self.module.init(key, images, train=False)
    return self.begin(variables["params"], variables["batch_stats"])

  def begin(self, params: Any, batch_stats: Any) -> TrainState:
    """The state before the first step, from given variables of the model."""
    if self.split:
      params, batch_stats = self.split.double(params, batch_stats)
    average = None
    if self.averaging.name != "none":
      average = {"params": params, "batch_stats": batch_stats}
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=batch_stats,
      # The optimizer's first state does not depend on the learning rate.
      opt_state=self.optimizer(0.0).init(params),
      average=jax.tree.map(jnp.copy, average),
    )

  def differentiate(
    self, state: TrainState, data: Data, settings: Settings, indices: jax.Array
  ) -> tuple[Pass, tuple[str, ...]]:
    """Computes a batch's views and the gradient of the loss; updates nothing.

    Args:
      state: the state, equal on every device.
      data: the whole set, or this device's rows if the data is streamed.
      settings: equal on every device.
      indices: int32 [b], this device's part of the batch.

    Returns:
      This device's results, and the views' names.
    """
    key = jax.random.fold_in(settings.key, state.step)
    images, view_keys = self._images(data, key, indices)
    labels = data["labels"][indices]
    if self.mixing:
      classes = self.module.num_classes
      images, labels = _mixed(self.mixing, key, images, labels, classes)
    batch = {"images": images, "labels": labels}
    method = settings.method
    if self.ramp_steps:
      method = _weaker(method, jnp.minimum(1, state.step / self.ramp_steps))
    if self.attack_steps:
      method = _shorter(method, self.attack_steps, state.step)
    variables = state.params, state.batch_stats
    if self.split:
      variables = self.split.select(*variables, AUXILIARY)
    model = Classifier(*variables, self.module, self.attack_batch_norm)
    views, targets = method.views(view_keys, batch, model)
    if self.label_smoothing:
      classes = self.module.num_classes
      targets = losses.smooth(targets, classes, self.label_smoothing)
    # Tuples keep the order of the views; JAX would sort the keys of a dict.
    names, view_images = zip(*views, strict=True)
    view_images = jax.lax.stop_gradient(view_images)

    forward = functools.partial(
      forward_views,
      self.module,
      separate=self.separate_views,
      unroll=self.unroll,
    )

    @jax.named_scope("forward")
    def objective(params: Any) -> tuple[jax.Array, Any]:
      variables, images = (params, state.batch_stats), view_images
      if self.split:
        images = dict(zip(names, view_images, strict=True))
        logits, batch_stats = self.split.forward(forward, *variables, images)
      else:
        logits, batch_stats = forward(*variables, images)
      loss, metrics = method.loss(logits, targets)
      if taken := sorted(RESERVED & metrics.keys()):
        raise ValueError(
          f"the method reports a metric called {taken[0]}, which is the name "
          "of another entry of metrics.jsonl: choose another name"
        )
      return loss.mean(), (logits, {"loss": loss} | metrics, batch_stats)

    params, gradient = state.params, jax.grad(objective, has_aux=True)
    if self.perturbation.gamma:
      ascent, _ = gradient(params)
      params = self.perturbation(params, parallel.mean(ascent), state.step)
    slope, (logits, metrics, batch_stats) = gradient(params)
    parts = (view_images, logits, targets, metrics, slope, params, batch_stats)
    return Pass(*parts), names

  def train_steps(
    self, state: TrainState, data: Data, settings: Settings, indices: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """Runs several steps in one dispatch; must run inside a mapped function.

    Args:
      state: see `differentiate`.
      data: see `differentiate`.
      settings: see `differentiate`.
      indices: int32 [K, b], this device's part of K batches.

    Returns:
      The state after K steps and metrics [K], equal on every device. The norms
      in the metrics are finite only if every number in the new state is.
    """

    def body(state: TrainState, row: jax.Array) -> tuple[TrainState, Any]:
      # Accelerators would otherwise use lower precision for float32 products;
      # products of bfloat16 numbers are exact anyway.
      with jax.default_matmul_precision("highest"):
        return self._train_step(state, data, settings, row)

    if not self.unroll:
      return jax.lax.scan(body, state, indices)
    rows = []
    for row in indices:
      state, metrics = body(state, row)
      rows.append(metrics)
    return state, jax.tree.map(lambda *x: jnp.stack(x), *rows)

  def _train_step(
    self, state: TrainState, data: Data, settings: Settings, indices: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """Updates the state on one batch."""
    found, _ = self.differentiate(state, data, settings, indices)
    # The statistics differ between devices if BatchNorm is not synchronized.
    gradient, batch_stats, metrics = parallel.mean(
      (found.gradient, found.batch_stats, jax.tree.map(jnp.mean, found.metrics))
    )
    with jax.named_scope("update"):
      # Weight decay is applied to the perturbed weights, as in the code of the
      # authors of adversarial weight perturbation.
      updates, opt_state = self.optimizer(settings.learning_rate).update(
        gradient, state.opt_state, found.params
      )
      params = optax.apply_updates(state.params, updates)
      now, average = state.step + 1, state.average
      if self.averaging.name != "none":
        average = self.averaging.update(average, params, batch_stats, now)
      state = TrainState(now, params, batch_stats, opt_state, average)
      metrics["gradient_norm"] = optax.tree.norm(gradient)
      metrics["parameter_norm"] = optax.tree.norm(state.params)
      metrics["statistics_norm"] = optax.tree.norm(batch_stats)
    return state, metrics

  def add_statistics(
    self,
    total: dict[str, Any],
    data: Data,
    settings: Settings,
    indices: jax.Array,
  ) -> tuple[dict[str, Any], tuple[()]]:
    """Adds the BatchNorm statistics of a batch; runs inside a mapped function.

    Args:
      total: `step`, the number of batches so far; `params` of the model; and
        `batch_stats`, the sum of the batches' means and unbiased variances.
      data: see `differentiate`.
      settings: see `differentiate`; only its key is used.
      indices: int32 [1, b], this device's part of the batch.

    Returns:
      The new total, and no metrics.
    """
    key = jax.random.fold_in(settings.key, total["step"])
    images, _ = self._images(data, key, indices[0])
    zeros = jax.tree.map(jnp.zeros_like, total["batch_stats"])
    variables = {"params": total["params"], "batch_stats": zeros}
    with jax.default_matmul_precision("highest"):  # as in `train_steps`
      _, update = self.module.apply(
        variables, images, True, mutable=["batch_stats"]
      )

    def add(old: jax.Array, new: jax.Array) -> jax.Array:
      # The running statistics started at 0.
      return old + new / (1 - MOMENTUM)

    found = parallel.mean(update["batch_stats"])
    sums = jax.tree.map(add, total["batch_stats"], found)
    return total | {"batch_stats": sums, "step": total["step"] + 1}, ()

  def _images(
    self, data: Data, key: jax.Array, indices: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """This device's images of a batch, and keys for their views."""
    keys = keys_lib.per_example(key, parallel.positions(len(indices)))
    crop_keys, view_keys = keys_lib.split(keys)
    with jax.named_scope("crop_flip"):
      images = data["images"][indices].reshape(-1, *self.image_shape)
      return self.crop_flip(crop_keys, dequantize(images)), view_keys


def _weaker(method: Any, share: jax.Array) -> Any:
  """The method, with its attack's epsilon and step size times `share`."""
  sizes = {n: getattr(method.attack, n) for n in ("epsilon", "step_size")}
  sizes = {name: share.astype(x.dtype) * x for name, x in sizes.items()}
  return _with_attack(method, **sizes)


def _shorter(
  method: Any, attack_steps: tuple[tuple[int, int], ...], now: jax.Array
) -> Any:
  """The method with an attack of the scheduled number of steps."""
  starts, counts = jnp.asarray(attack_steps, jnp.int32).T
  limit = counts[jnp.sum(now >= starts) - 1]
  most = max(count for _, count in attack_steps)
  return _with_attack(method, steps=most, limit=limit)


def _with_attack(method: Any, **fields: Any) -> Any:
  """A copy of the method in which fields of the attack are replaced."""
  changed = copy.copy(method)
  object.__setattr__(changed, "attack", method.attack.replace(**fields))
  return changed


def _mixed(
  mixing: Mixing,
  key: jax.Array,
  images: jax.Array,
  labels: jax.Array,
  classes: int,
) -> tuple[jax.Array, jax.Array]:
  """This device's images and class probabilities, mixed in pairs."""
  keys = keys_lib.per_example(key, parallel.positions(len(labels)))
  *_, keys = keys_lib.split(keys, 3)  # the first two are those of `_images`
  batch = images, losses.one_hot(labels, classes)
  return mixing(keys, batch, parallel.previous(batch))
