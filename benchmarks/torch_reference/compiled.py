"""The step of `training.py` in the form that is fastest in PyTorch.

It has the paper's options: separate views, running statistics in the attack.

- Functions are compiled as full graphs with static shapes.
- The attack has a separate frozen network, so that no mode changes. It
  differentiates with respect to the images only: a compiled backward pass
  would also compute the weight gradients, which are not needed.
- All views go through the network in one batch, and BatchNorm uses separate
  statistics for each.
- On a GPU, a step is one CUDA graph, which the host launches with one call.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_reference import training

Compiler = Callable[[Callable], Callable]


def compiler(backend: str = "inductor", autotune: bool = False) -> Compiler:
  """Returns a decorator that compiles functions as full graphs.

  Args:
    backend: backend of torch.compile; `aot_eager` compiles no kernels.
    autotune: whether inductor tries several kernels for every product.

  Returns:
    The decorator; it fails for functions that cannot be compiled completely.
  """
  mode = {"mode": "max-autotune-no-cudagraphs"} if autotune else {}
  return torch.compile(fullgraph=True, dynamic=False, backend=backend, **mode)


class EachView(nn.BatchNorm2d):
  """BatchNorm for several views in one batch, equal to one pass per view."""

  views = 1

  def forward(self, x: Tensor) -> Tensor:
    """Maps [views * B, C, H, W] to the same shape."""
    forward = super().forward
    return torch.cat([forward(view) for view in x.chunk(self.views)])


def step(
  model: nn.Module,
  optimizer: torch.optim.Optimizer,
  recipe: training.Recipe,
  compiler: Compiler,
  dtype: torch.dtype | None = None,
) -> Callable[..., Tensor]:
  """Builds `training.step`.

  Args:
    model: pixels -> logits [B, K]; its BatchNorm is changed to `EachView`.
    optimizer: of the model's parameters.
    recipe: what to do.
    compiler: wraps functions.
    dtype: of autocast, or None.

  Returns:
    (images, labels, augment, start) -> loss, as of `training.step`.
  """
  adversary = attack(model, recipe, compiler, dtype)
  count = 3 if recipe.method.endswith("augmix") else 1
  for layer in model.train().modules():
    if isinstance(layer, nn.BatchNorm2d):
      layer.__class__, layer.views = EachView, count  # it has no other state

  @compiler
  def loss_of(views: list[Tensor], labels: Tensor) -> Tensor:
    with torch.autocast(labels.device.type, dtype, enabled=bool(dtype)):
      logits = model(torch.cat(views)).chunk(count)
      return training.objective(logits, labels, recipe)

  def take(
    images: Tensor,
    labels: Tensor,
    augment: Callable[[Tensor], Tensor] | None = None,
    start: Tensor | None = None,
  ) -> Tensor:
    views = training.views(
      images, recipe, augment, lambda: adversary(images, labels, start)
    )
    optimizer.zero_grad()
    loss = loss_of(views, labels)
    loss.backward()
    optimizer.step()
    return loss.detach()

  return take


def attack(
  model: nn.Module,
  recipe: training.Recipe,
  compiler: Compiler,
  dtype: torch.dtype | None = None,
) -> Callable[..., Tensor]:
  """Builds `training.attack` with running statistics.

  Args:
    model: pixels -> logits [B, K]; every call uses its current tensors.
    recipe: sizes and steps.
    compiler: wraps functions.
    dtype: of autocast, or None.

  Returns:
    (images, labels, start) -> adversarial images.
  """
  frozen = copy.deepcopy(model).to("meta").train(False)

  def loss(x: Tensor, labels: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    logits = torch.func.functional_call(frozen, tensors, (x,))
    return functional.cross_entropy(logits, labels, reduction="sum")

  @compiler
  def begin(images: Tensor) -> Tensor:
    return training.on_sphere(images, recipe)

  @compiler
  def ascend(
    x: Tensor, images: Tensor, labels: Tensor, tensors: dict[str, Tensor]
  ) -> Tensor:
    with torch.autocast(x.device.type, dtype, enabled=bool(dtype)):
      gradient = torch.func.grad(loss)(x, labels, tensors)
    return training.ascend(x, gradient, images, recipe)

  def run(
    images: Tensor, labels: Tensor, start: Tensor | None = None
  ) -> Tensor:
    # Weights are cast once for all steps; BatchNorm's keep their dtype.
    tensors = dict(model.named_buffers()) | {
      name: x.detach().to(dtype if dtype and x.ndim > 1 else x.dtype)
      for name, x in model.named_parameters()
    }
    x = begin(images) if start is None else start
    for _ in range(recipe.attack_steps):
      x = ascend(x, images, labels, tensors)
    return x

  return run


def captured(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
  """Captures a function in a CUDA graph.

  Args:
    function: reads its inputs from tensors whose addresses do not change.

  Returns:
    A function that replays the graph and returns the same, updated tensor.
  """
  stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
  stream.wait_stream(torch.cuda.current_stream())
  with torch.cuda.stream(stream):
    for _ in range(3):  # compiles, and lets cuDNN choose
      function()
  torch.cuda.current_stream().wait_stream(stream)
  # JAX has threads of its own in this process.
  with torch.cuda.graph(graph, stream=stream, capture_error_mode="relaxed"):
    result = function()

  def replay() -> Tensor:
    graph.replay()
    return result

  return replay
