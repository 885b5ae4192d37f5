"""The same computations in ram_jax and in the PyTorch reference.

`Results` are arrays by quantity and tensor, with PyTorch's names if there are
any. ram_jax's steps use the compiled program of `training.loop.build`. Its
random numbers are drawn again with the same keys and passed to the reference.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
import torch
from torch.nn import functional

from benchmarks.setting import BATCH_SIZE, KEY, Setting, Source, draw_views
from benchmarks.torch_reference import training
from benchmarks.torch_reference.networks import NETWORKS
from ram_jax import losses
from ram_jax.interop import names
from ram_jax.methods.consistency import DIVERGENCES
from ram_jax.models.classifier import forward_views
from ram_jax.training import loop as train

Results = dict[str, dict[str, np.ndarray]]
Views = list[dict[str, np.ndarray]]


def our_forward(setting: Setting, views: Views) -> Results:
  """Computes logits in both modes, statistics and losses of the first views.

  Losses use the logits in training mode, where no softmax is saturated.

  Args:
    setting: a RobustAugMix run.
    views: from `draw_views`.

  Returns:
    Arrays by quantity.
  """

  @jax.jit
  def run(params: Any, batch_stats: Any, views: list, labels: jax.Array) -> Any:
    variables = {"params": params, "batch_stats": batch_stats}
    trained, batch_stats = forward_views(
      setting.module, params, batch_stats, tuple(views), separate=True
    )
    results = {
      "logits, evaluation": {
        "": setting.module.apply(variables, views[0], False)
      },
      "logits, training": dict(enumerate(trained)),
      "cross-entropy": {"": losses.cross_entropy(trained[0], labels)},
    }
    for form, divergence in DIVERGENCES.items():
      results[f"JSD, {form}"] = {"": divergence(*trained).mean()}
    return results, batch_stats

  results, batch_stats = run(
    setting.params, setting.batch_stats, _three(views[0]), setting.labels[0]
  )
  tensors = names.to_torch(setting.module, setting.params, batch_stats)
  results["statistics"] = _split(tensors)["statistics"]
  return jax.tree.map(np.asarray, results)


def their_forward(
  setting: Setting, views: Views, dtype: torch.dtype
) -> Results:
  """Computes the results of `our_forward` with the reference.

  Args:
    setting: a RobustAugMix run.
    views: from `draw_views`.
    dtype: float32 or float64.

  Returns:
    Arrays by quantity.
  """
  network = reference(setting, dtype)
  labels = torch.tensor(setting.labels[0]).long()
  images = [to_torch(x, dtype) for x in _three(views[0])]
  with torch.no_grad():
    evaluated = network.train(False)(images[0])
    network.train()
    trained = [network(x) for x in images]
    results = {
      "logits, evaluation": {"": evaluated},
      "logits, training": dict(enumerate(trained)),
      "cross-entropy": {
        "": functional.cross_entropy(trained[0], labels, reduction="none")
      },
    }
    for form, divergence in training.DIVERGENCES.items():
      results[f"JSD, {form}"] = {"": divergence(trained)}
  results["statistics"] = _split(network.state_dict())["statistics"]
  return jax.tree.map(np.asarray, results)


def our_attack(setting: Setting) -> Results:
  """Computes input gradients and the perturbations of PGD with ram_jax.

  Args:
    setting: a RobustAugMix run.

  Returns:
    Arrays by quantity and step.
  """

  @jax.jit
  def gradient(model: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    return jax.grad(lambda x: losses.cross_entropy(model(x), labels).sum())(
      images
    )

  results = {}
  for batch_norm in ("running", "batch"):
    model = setting.classifier(batch_norm)
    views = draw_views(setting, model)
    for step, (view, labels) in enumerate(
      zip(views, setting.labels, strict=True)
    ):
      images = view["images"]
      found = {
        "input gradient": gradient(model, images, labels),
        "PGD": view["adversarial"] - images,
      }
      for name, array in found.items():
        name = f"{name}, {batch_norm} statistics"
        results.setdefault(name, {})[step] = np.asarray(array)
  return results


def their_attack(setting: Setting, views: Views, dtype: torch.dtype) -> Results:
  """Computes the results of `our_attack` with the reference.

  Args:
    setting: a RobustAugMix run.
    views: from `draw_views`, with the attacks' starting points.
    dtype: float32 or float64.

  Returns:
    Arrays by quantity.
  """
  network = reference(setting, dtype)
  results = {}
  for batch_norm in ("running", "batch"):
    recipe = build_recipe(setting, attack_batch_norm=batch_norm)
    for step, (view, labels) in enumerate(
      zip(views, setting.labels, strict=True)
    ):
      images, start = (
        to_torch(view[name], dtype) for name in ("images", "adversarial")
      )
      labels = torch.tensor(labels).long()
      with training.frozen_statistics(network, batch_norm):
        gradient = training.input_gradient(network, images, labels)
      adversarial = training.attack(network, images, labels, recipe, start)
      found = {"input gradient": gradient, "PGD": adversarial - images}
      for name, tensor in found.items():
        name = f"{name}, {batch_norm} statistics"
        array = tensor.permute(0, 2, 3, 1).numpy()
        results.setdefault(name, {})[step] = array
  return results


def our_training(setting: Setting) -> train.Training:
  """Builds the training program of the setting's config."""
  return train.build(setting.config, Source(), setting.data["images"].shape)


def our_steps(setting: Setting, built: train.Training, count: int) -> Results:
  """Runs training steps with ram_jax.

  Args:
    setting: the run.
    built: from `our_training`.
    count: number of steps, at most `STEPS`.

  Returns:
    Parameters, running statistics and momentum.
  """
  state = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(built.create)
  ).replace(params=setting.params, batch_stats=setting.batch_stats)
  rows = np.arange(count * BATCH_SIZE).reshape(1, count, BATCH_SIZE)
  settings = built.settings.replace(key=jax.random.key(KEY))
  state, _ = built.dispatch(state, setting.data, settings, rows)
  state = jax.tree.map(np.asarray, jax.block_until_ready(state))
  tensors = names.to_torch(setting.module, state.params, state.batch_stats)
  trace = optax.tree.get(state.opt_state, "trace")
  momentum = names.to_torch(setting.module, trace, state.batch_stats)
  return _split(tensors) | {"momentum": _split(momentum)["parameters"]}


def their_steps(
  setting: Setting, views: Views, count: int, dtype: torch.dtype
) -> Results:
  """Runs the same training steps with the reference.

  Args:
    setting: the run.
    views: from `draw_views`.
    count: number of steps, at most `STEPS`.
    dtype: float32 or float64.

  Returns:
    Parameters, running statistics and momentum.
  """
  network = reference(setting, dtype)
  optimizer = training.sgd(network, setting.config.optimizer.learning_rate)
  recipe = build_recipe(setting)
  for view, labels in zip(views[:count], setting.labels, strict=False):
    view = {name: to_torch(x, dtype) for name, x in view.items()}
    augmented = iter([view[n] for n in sorted(view) if n.startswith("augmix")])
    training.step(
      network,
      optimizer,
      view["images"],
      torch.tensor(labels).long(),
      recipe,
      augment=lambda _, augmented=augmented: next(augmented),
      start=view.get("adversarial"),
    )
  momentum = {
    name: optimizer.state[parameter]["momentum_buffer"]
    for name, parameter in network.named_parameters()
  }
  results = _split(network.state_dict()) | {"momentum": momentum}
  return jax.tree.map(np.asarray, results)


def reference(setting: Setting, dtype: torch.dtype) -> torch.nn.Module:
  """Builds PyTorch's network and loads the setting's weights, strictly.

  Args:
    setting: specifies the network and its variables.
    dtype: dtype of the parameters.

  Returns:
    The network.
  """
  spec, source = setting.config.model.to_dict(), Source()
  network = NETWORKS[spec.pop("name")](
    source.num_classes, source.mean, source.std, **spec
  ).to(dtype)
  tensors = names.to_torch(setting.module, setting.params, setting.batch_stats)
  network.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()})
  return network


def build_recipe(setting: Setting, **changes: Any) -> training.Recipe:
  """Converts a config to the reference's recipe.

  Args:
    setting: the run.
    **changes: fields to override.

  Returns:
    The recipe.
  """
  method, batch_norm = setting.config.method, setting.config.batch_norm
  fields = {
    "method": method.name,
    "views": batch_norm.views,
    "attack_batch_norm": batch_norm.attack,
  }
  for name in ("weight", "jensen_shannon"):
    if name in method:
      fields[name] = method[name]
  if "attack" in method:
    fields["epsilon"] = method.attack.epsilon
    fields["step_size"] = method.attack.step_size
    fields["attack_steps"] = method.attack.steps
  return training.Recipe(**fields | changes)


def to_torch(images: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
  """Images [B, H, W, C] as PyTorch's [B, C, H, W]."""
  return torch.tensor(images, dtype=dtype).permute(0, 3, 1, 2)


def _three(view: Mapping[str, np.ndarray]) -> list[np.ndarray]:
  return [view[name] for name in ("images", "augmix", "adversarial")]


def _split(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Parameters and running statistics of a state_dict, without counters."""
  groups = {"parameters": {}, "statistics": {}}
  for name, value in tensors.items():
    if not name.endswith("num_batches_tracked"):
      group = "statistics" if "running_" in name else "parameters"
      groups[group][name] = value
  return groups
