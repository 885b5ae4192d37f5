"""The step of `training.py` as PyTorch runs it fastest.

It has the paper's options: separate views, running statistics in the attack.

- Functions are compiled as whole graphs of static shapes.
- The attack has a frozen network of its own, so that no mode changes. It
  differentiates with respect to the images alone: a compiled backward pass
  computes every gradient, also the weights' that nobody asks for.
- All views pass the network at once; BatchNorm takes the statistics of each.
- On a GPU, a step is one CUDA graph, which the host starts with one call.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_reference import training

Compiler = Callable[[Callable], Callable]


def compiler(backend: str = "inductor", autotune: bool = False) -> Compiler:
  """Compiles a function, or fails if anything in it cannot be.

  Args:
    backend: of torch.compile; `aot_eager` compiles no kernels.
    autotune: whether inductor tries several kernels for every product.

  Returns:
    What to wrap functions in.
  """
  mode = {"mode": "max-autotune-no-cudagraphs"} if autotune else {}
  return torch.compile(fullgraph=True, dynamic=False, backend=backend, **mode)


class EachView(nn.BatchNorm2d):
  """BatchNorm of views in one batch, equal to a pass for each of them."""

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
    model: pixels -> logits [B, K]; every call reads its tensors anew.
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
    # Weights are cast once for all steps; BatchNorm's stay as they are.
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
  """Records what a function does on the GPU, to be repeated.

  Args:
    function: reads its inputs from tensors that stay where they are.

  Returns:
    A function that repeats it and returns the same tensor, filled anew.
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
