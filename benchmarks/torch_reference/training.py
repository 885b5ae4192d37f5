"""A plain implementation of a training step of the paper's four methods."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A method and its settings; the values are the paper's.

  Attributes:
    method: `standard`, `augmix`, `adversarial` or `robust_augmix`.
    weight: lambda, the weight of the divergence.
    jensen_shannon: `exact`, or `clamped` as in AugMix's and the author's code.
    epsilon: radius of the attack's L2 ball, in pixels of [0, 1].
    step_size: length of a step of the attack.
    attack_steps: steps of the attack.
    views: `separate` forward passes, or one `joint` pass of all views.
    attack_batch_norm: statistics while attacking, `running` or of the `batch`.
  """

  method: str
  weight: float = 12.0
  jensen_shannon: str = "exact"
  epsilon: float = 1.0
  step_size: float = 2.5 / 7
  attack_steps: int = 7
  views: str = "separate"
  attack_batch_norm: str = "running"


def sgd(
  model: nn.Module, learning_rate: float | Tensor = 0.1, fused: bool = False
) -> torch.optim.SGD:
  """The paper's optimizer, with the settings of its author's code.

  Args:
    model: all of its parameters are trained, with weight decay.
    learning_rate: learning rate of the next step.
    fused: whether one kernel updates all parameters.

  Returns:
    The optimizer.
  """
  return torch.optim.SGD(
    model.parameters(),
    lr=learning_rate,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    fused=fused,
  )


def step(
  model: nn.Module,
  optimizer: torch.optim.Optimizer,
  images: Tensor,
  labels: Tensor,
  recipe: Recipe,
  augment: Callable[[Tensor], Tensor] | None = None,
  start: Tensor | None = None,
) -> Tensor:
  """Updates the model on one batch (paper, eq. 1 to 5).

  Args:
    model: pixels -> logits [B, K].
    optimizer: of the model's parameters.
    images: pixels [B, 3, H, W] in [0, 1], flipped and cropped.
    labels: classes [B].
    recipe: what to do.
    augment: images -> one AugMix view of each, if the method uses AugMix.
    start: images where the attack starts; None draws them.

  Returns:
    The loss before the update; this does not wait for the device.
  """
  seen = views(
    images,
    recipe,
    augment,
    lambda: attack(model, images, labels, recipe, start),
  )
  model.train()
  if recipe.views == "separate":
    logits = [model(view) for view in seen]
  else:
    logits = model(torch.cat(seen)).chunk(len(seen))
  loss = objective(logits, labels, recipe)
  optimizer.zero_grad()
  loss.backward()
  optimizer.step()
  return loss.detach()


def views(
  images: Tensor,
  recipe: Recipe,
  augment: Callable[[Tensor], Tensor] | None,
  attack: Callable[[], Tensor],
) -> list[Tensor]:
  """Computes the views of a method, in the order of its forward passes.

  Args:
    images: pixels [B, 3, H, W] in [0, 1].
    recipe: names the method.
    augment: images -> one view of each by AugMix.
    attack: makes adversarial images.

  Returns:
    Views [B, 3, H, W].
  """
  if recipe.method == "standard":
    return [images]
  if recipe.method == "augmix":
    return [images, augment(images), augment(images)]
  if recipe.method == "adversarial":
    return [attack()]
  return [images, augment(images), attack()]


def objective(logits: list[Tensor], labels: Tensor, recipe: Recipe) -> Tensor:
  """Cross-entropy of the first view, and the divergence of several.

  Args:
    logits: [B, K] of each view.
    labels: classes [B].
    recipe: weight and form of the divergence.

  Returns:
    A scalar.
  """
  loss = functional.cross_entropy(logits[0], labels)
  if len(logits) > 1:
    loss = loss + recipe.weight * DIVERGENCES[recipe.jensen_shannon](logits)
  return loss


def attack(
  model: nn.Module,
  images: Tensor,
  labels: Tensor,
  recipe: Recipe,
  start: Tensor | None = None,
) -> Tensor:
  """PGD in the L2 ball: delta* of eq. 5, added to the images.

  Args:
    model: pixels -> logits [B, K].
    images: pixels [B, 3, H, W] in [0, 1].
    labels: classes [B].
    recipe: sizes, steps and the BatchNorm statistics.
    start: images to start from; None draws them on the sphere, as the author
      does by projecting normal noise.

  Returns:
    Images in the ball around the given ones, and in [0, 1].
  """
  x = on_sphere(images, recipe) if start is None else start
  with frozen_statistics(model, recipe.attack_batch_norm):
    for _ in range(recipe.attack_steps):
      gradient = input_gradient(model, x, labels)
      x = ascend(x, gradient, images, recipe)
  return x


def on_sphere(images: Tensor, recipe: Recipe) -> Tensor:
  """Random images at a distance of epsilon, clipped to [0, 1]."""
  noise = torch.randn_like(images)
  return (images + recipe.epsilon * noise / l2_norm(noise)).clamp(0, 1)


def ascend(
  x: Tensor, gradient: Tensor, images: Tensor, recipe: Recipe
) -> Tensor:
  """A step of PGD: along the gradient, and back into the ball and [0, 1]."""
  delta = x + recipe.step_size * gradient / l2_norm(gradient) - images
  delta = delta * (recipe.epsilon / l2_norm(delta)).clamp(max=1)
  return (images + delta).clamp(0, 1)


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
  """Gradient of the summed cross-entropy with respect to the images.

  Args:
    model: pixels -> logits [B, K].
    images: pixels [B, 3, H, W].
    labels: classes [B].

  Returns:
    Gradients [B, 3, H, W].
  """
  x = images.detach().requires_grad_()
  loss = functional.cross_entropy(model(x), labels, reduction="sum")
  return torch.autograd.grad(loss, x)[0]


def l2_norm(x: Tensor) -> Tensor:
  """Euclidean norm of each example, never 0.

  Args:
    x: images [B, 3, H, W].

  Returns:
    Norms [B, 1, 1, 1].
  """
  norm = x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
  return norm.clamp(min=torch.finfo(x.dtype).tiny)


@contextlib.contextmanager
def frozen_statistics(model: nn.Module, batch_norm: str) -> Iterator[None]:
  """Does not update running statistics, whichever statistics are used.

  Args:
    model: the network.
    batch_norm: `running` or `batch`.

  Yields:
    Nothing; afterwards, the layers update their running statistics again.
  """
  layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
  model.train(batch_norm == "batch")
  for layer in layers:
    layer.track_running_stats = batch_norm == "running"
  try:
    yield
  finally:
    for layer in layers:
      layer.track_running_stats = True


def exact_jensen_shannon(logits: list[Tensor]) -> Tensor:
  """Mean of KL(p_i || M) over views and batch, on log-probabilities.

  Args:
    logits: [B, K] of each view.

  Returns:
    A scalar, in nats.
  """
  log_p = torch.stack(list(logits)).log_softmax(-1)
  log_mixture = log_p.logsumexp(0) - math.log(len(logits))
  return (log_p.exp() * (log_p - log_mixture)).sum(-1).mean()


def clamped_jensen_shannon(logits: list[Tensor]) -> Tensor:
  """Computes the divergence as AugMix's code, with the mixture clamped to 1e-7.

  Args:
    logits: [B, K] of each view.

  Returns:
    A scalar, in nats.
  """
  p = [functional.softmax(view, dim=1) for view in logits]
  log_mixture = (sum(p) / len(p)).clamp(1e-7, 1).log()
  return sum(
    functional.kl_div(log_mixture, q, reduction="batchmean") for q in p
  ) / len(p)


DIVERGENCES = {
  "exact": exact_jensen_shannon,
  "clamped": clamped_jensen_shannon,
}
