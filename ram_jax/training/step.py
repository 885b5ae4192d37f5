"""One training step for every method: views, forward, loss, update."""

import copy
import functools
from collections.abc import Callable
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
from ram_jax.training.perturbation import WeightPerturbation
from ram_jax.training.split import AUXILIARY, Split
from ram_jax.training.state import TrainState


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


def differentiate(
  state: TrainState,
  data: dict[str, jax.Array],
  settings: Settings,
  indices: jax.Array,
  *,
  module: nn.Module,
  image_shape: tuple[int, int, int],
  crop_flip: Any,
  separate_views: bool,
  attack_batch_norm: str,
  perturbation: WeightPerturbation | None,
  split: Split | None,
  label_smoothing: float,
  ramp_steps: float,
  attack_steps: tuple[tuple[int, int], ...],
  mixing: Mixing | None,
  unroll: bool,
) -> tuple[Pass, tuple[str, ...]]:
  """Computes a batch's views and the gradient of the loss, without the update.

  Every random number is a function of (settings.key, state.step, position in
  the global batch, purpose).

  Args:
    state: the state, equal on every device.
    data: `images` uint8 [N,H*W*C] and `labels` int32 [N]: the whole set, or
      this device's rows if the data is streamed.
    settings: equal on every device.
    indices: int32 [b], this device's part of the batch.
    module: the model.
    image_shape: (H, W, C).
    crop_flip: an `Augment` that is applied first (flip and crop).
    separate_views: whether to compute BatchNorm statistics for each view (the
      author's three forward passes) or over all views together (AugMix's code).
    attack_batch_norm: `running` or `batch` statistics during the attack.
    perturbation: perturbs the parameters before the forward and backward pass
      that the update uses; None for none.
    split: how BatchNorm is split; the attack uses the auxiliary set.
    label_smoothing: weight of the uniform distribution in the loss's targets.
    ramp_steps: number of steps over which the attack's epsilon and step size
      rise from 0; 0 for none.
    attack_steps: pairs (first training step, attack steps from then on), in
      ascending order, starting at step 0; empty: the attack's own `steps`.
    mixing: mixes each image with its predecessor in the global batch; None for
      none.
    unroll: for CPUs, see `forward_views`.

  Returns:
    This device's results, and the views' names.
  """
  key = jax.random.fold_in(settings.key, state.step)
  images, view_keys = _images(data, key, indices, image_shape, crop_flip)
  labels = data["labels"][indices]
  if mixing:
    images, labels = _mixed(mixing, key, images, labels, module.num_classes)
  batch = {"images": images, "labels": labels}
  method = settings.method
  if ramp_steps:
    method = _weaker(method, jnp.minimum(1, state.step / ramp_steps))
  if attack_steps:
    method = _shorter(method, attack_steps, state.step)
  variables = state.params, state.batch_stats
  if split:
    variables = split.select(*variables, AUXILIARY)
  model = Classifier(*variables, module, batch_norm=attack_batch_norm)
  views, targets = method.views(view_keys, batch, model)
  if label_smoothing:
    targets = losses.smooth(targets, module.num_classes, label_smoothing)
  # Tuples keep the order of the views; JAX would sort the keys of a dict.
  names, view_images = zip(*views, strict=True)
  view_images = jax.lax.stop_gradient(view_images)

  forward = functools.partial(
    forward_views, module, separate=separate_views, unroll=unroll
  )

  @jax.named_scope("forward")
  def objective(params: Any) -> tuple[jax.Array, Any]:
    variables, images = (params, state.batch_stats), view_images
    if split:
      images = dict(zip(names, view_images, strict=True))
      logits, batch_stats = split.forward(forward, *variables, images)
    else:
      logits, batch_stats = forward(*variables, images)
    loss, metrics = method.loss(logits, targets)
    return loss.mean(), (logits, {"loss": loss} | metrics, batch_stats)

  params, gradient = state.params, jax.grad(objective, has_aux=True)
  if perturbation:
    ascent, _ = gradient(params)
    params = perturbation(params, parallel.mean(ascent), state.step)
  slope, (logits, metrics, batch_stats) = gradient(params)
  parts = (view_images, logits, targets, metrics, slope, params, batch_stats)
  return Pass(*parts), names


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


def _images(
  data: dict[str, jax.Array],
  key: jax.Array,
  indices: jax.Array,
  image_shape: tuple[int, int, int],
  crop_flip: Any,
) -> tuple[jax.Array, jax.Array]:
  """This device's images of a batch, and keys for their views."""
  keys = keys_lib.per_example(key, parallel.positions(len(indices)))
  crop_keys, view_keys = keys_lib.split(keys)
  with jax.named_scope("crop_flip"):
    images = data["images"][indices].reshape(-1, *image_shape)
    return crop_flip(crop_keys, dequantize(images)), view_keys


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


def train_step(
  state: TrainState,
  data: dict[str, jax.Array],
  settings: Settings,
  indices: jax.Array,
  *,
  optimizer: Callable[[jax.Array], optax.GradientTransformation],
  averaging: Averaging | None,
  **static: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Updates the state on one batch; runs inside a mapped function.

  Args:
    state: see `differentiate`.
    data: see `differentiate`.
    settings: see `differentiate`.
    indices: see `differentiate`.
    optimizer: initial learning rate -> the run's optimizer.
    averaging: how the weights are averaged, if at all.
    **static: see `differentiate`.

  Returns:
    The new state and scalar metrics, equal on every device. The norms in the
    metrics are finite only if every number in the new state is.
  """
  found, _ = differentiate(state, data, settings, indices, **static)
  # The statistics differ between devices if BatchNorm is not synchronized.
  gradient, batch_stats, metrics = parallel.mean(
    (found.gradient, found.batch_stats, jax.tree.map(jnp.mean, found.metrics))
  )
  with jax.named_scope("update"):
    # The weight decay is that of the perturbed weights, as in the code of
    # adversarial weight perturbation.
    updates, opt_state = optimizer(settings.learning_rate).update(
      gradient, state.opt_state, found.params
    )
    params = optax.apply_updates(state.params, updates)
    now, average = state.step + 1, state.average
    if averaging:
      average = averaging.update(average, params, batch_stats, now)
    state = TrainState(now, params, batch_stats, opt_state, average)
    metrics["gradient_norm"] = optax.tree.norm(gradient)
    metrics["parameter_norm"] = optax.tree.norm(state.params)
    metrics["statistics_norm"] = optax.tree.norm(batch_stats)
  return state, metrics


def train_steps(
  state: TrainState,
  data: dict[str, jax.Array],
  settings: Settings,
  indices: jax.Array,
  *,
  unroll: bool,
  **static: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Runs several steps in one dispatch.

  Args:
    state: see `differentiate`.
    data: see `differentiate`.
    settings: see `differentiate`.
    indices: int32 [K, b], this device's part of K batches.
    unroll: repeat the step's program K times instead of looping over it
      (convolutions in a loop are slow on CPUs); see also `forward_views`.
    **static: see `train_step`.

  Returns:
    The state after K steps and metrics [K].
  """

  def body(state: TrainState, row: jax.Array) -> tuple[TrainState, Any]:
    # Accelerators would otherwise use lower precision for float32 products;
    # products of bfloat16 numbers are exact anyway.
    with jax.default_matmul_precision("highest"):
      return train_step(state, data, settings, row, unroll=unroll, **static)

  if not unroll:
    return jax.lax.scan(body, state, indices)
  rows = []
  for row in indices:
    state, metrics = body(state, row)
    rows.append(metrics)
  return state, jax.tree.map(lambda *x: jnp.stack(x), *rows)


def add_statistics(
  total: dict[str, Any],
  data: dict[str, jax.Array],
  settings: Settings,
  indices: jax.Array,
  *,
  module: nn.Module,
  image_shape: tuple[int, int, int],
  crop_flip: Any,
) -> tuple[dict[str, Any], tuple[()]]:
  """Adds the BatchNorm statistics of a batch; runs inside a mapped function.

  Args:
    total: `step`, the number of batches so far; `params` of the model; and
      `batch_stats`, the sum of the batches' means and unbiased variances.
    data: see `differentiate`.
    settings: see `differentiate`; only its key is used.
    indices: int32 [1, b], this device's part of the batch.
    module: see `differentiate`.
    image_shape: see `differentiate`.
    crop_flip: see `differentiate`.

  Returns:
    The new total, and no metrics.
  """
  key = jax.random.fold_in(settings.key, total["step"])
  images, _ = _images(data, key, indices[0], image_shape, crop_flip)
  zeros = jax.tree.map(jnp.zeros_like, total["batch_stats"])
  variables = {"params": total["params"], "batch_stats": zeros}
  with jax.default_matmul_precision("highest"):  # as in `train_steps`
    _, update = module.apply(variables, images, True, mutable=["batch_stats"])

  def add(old: jax.Array, new: jax.Array) -> jax.Array:
    # The running statistics started at 0.
    return old + new / (1 - MOMENTUM)

  found = parallel.mean(update["batch_stats"])
  sums = jax.tree.map(add, total["batch_stats"], found)
  return total | {"batch_stats": sums, "step": total["step"] + 1}, ()
