"""The reference's training step in PyTorch, as functions to be timed."""

import functools
import os
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks import our_step, pillow_augmix, timing, two_sides
from benchmarks.setting import Setting
from benchmarks.torch_reference import compiled, training

# How PyTorch runs: eager; compiled and in a CUDA graph; without that; with the
# best of several kernels for each product; or, as a rehearsal, with none.
FORMS = {
  "eager": {},
  "compiled": {},
  "uncaptured": {},
  "autotuned": {"autotune": True},
  "traced": {"backend": "aot_eager"},
}
HELP = f"{', '.join(FORMS)}; empty for no PyTorch"


def compiler(form: str) -> compiled.Compiler:
  """The compiler of a form, but for `eager`."""
  return compiled.compiler(**FORMS[form])


def graph(form: str, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
  """A function in a CUDA graph, where the form and the device have one."""
  if form == "uncaptured" or device().type == "cpu":
    return function
  return compiled.captured(function)


def device() -> torch.device:
  """Where PyTorch computes: the GPU if it has one."""
  return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait(loss: Tensor) -> Tensor:
  """Waits until the device has done everything."""
  if loss.is_cuda:
    torch.cuda.synchronize()
  return loss


def build(
  step: our_step.Step,
  augment: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Callable[[], Any]:
  """Builds the same step in PyTorch, eager and in float32.

  Args:
    step: ours.
    augment: uint8 images [N,H,W,C] to their AugMix views, floats; None takes
      the images themselves for views, as if loaders had made these for nothing.

  Returns:
    A function that starts one step.
  """
  network, recipe = reference(step)
  images, labels, pictures = batch(step)

  def view(_: Tensor) -> Tensor:
    if augment is None:
      return images
    return two_sides.to_torch(augment(pictures), torch.float32).to(device())

  optimizer = training.sgd(network, 1e-3)
  return functools.partial(
    training.step, network, optimizer, images, labels, recipe, view
  )


def build_compiled(
  step: our_step.Step, form: str
) -> tuple[Callable[[], Tensor], list[Tensor]]:
  """Builds the same step as PyTorch runs it fastest.

  Convolutions are in bfloat16 by autocast, images and weights channels last.

  Args:
    step: ours.
    form: a key of `FORMS`, not `eager`.

  Returns:
    A function that starts one step; and the tensors that it reads: labels,
    images and two AugMix views.
  """
  torch.backends.cudnn.benchmark = True
  network, recipe = reference(step)
  network = network.to(memory_format=torch.channels_last)
  images, labels, _ = batch(step)
  images = images.contiguous(memory_format=torch.channels_last)
  inputs = [labels, images, images.clone(), images.clone()]
  # A rate on the device: a schedule can change it between replays.
  rate = torch.tensor(1e-3, device=device())
  optimizer = training.sgd(network, rate, fused=True)
  program = compiled.step(
    network, optimizer, recipe, compiler(form), torch.bfloat16
  )

  def take() -> Tensor:
    views = iter(inputs[2:])
    return program(images, labels, lambda _: next(views))

  return graph(form, take), inputs


def loaded(
  step: our_step.Step,
  take: Callable[[], Tensor],
  inputs: list[Tensor],
  folder: str,
  steps: int,
) -> float:
  """A compiled step while loaders on every core make its AugMix views.

  Args:
    step: ours.
    take: see `build_compiled`.
    inputs: see `build_compiled`.
    folder: of AugMix's code.
    steps: how many are timed, from when the loaders' first batches are used up.

  Returns:
    Seconds of a step.
  """
  count = 1 if "attack" in step.config.method else 2
  cores = len(os.sched_getaffinity(0))
  loader = torch.utils.data.DataLoader(
    pillow_augmix.Views(folder, timing.pictures(1024), count),
    step.config.train.batch_size,
    num_workers=cores,
    multiprocessing_context="spawn",
    pin_memory=inputs[0].is_cuda,
  )
  # Workers import this module, but only the parent may hold the GPU.
  with mock.patch.dict(os.environ, JAX_PLATFORMS="cpu"):
    batches = iter(loader)
  ahead = 2 * cores * loader.prefetch_factor
  for number in range(ahead + steps):
    if number == ahead:
      start = time.perf_counter()
    for place, fresh in zip(inputs[1:], next(batches), strict=False):
      place.copy_(fresh, non_blocking=True)
    loss = take()
  wait(loss)
  return (time.perf_counter() - start) / steps


def reference(step: our_step.Step) -> tuple[torch.nn.Module, training.Recipe]:
  """PyTorch's network with the weights of ours, and its recipe."""
  variables = step.training.create()
  setting = Setting(
    step.config, step.module, {}, variables.params, variables.batch_stats
  )
  network = two_sides.reference(setting, torch.float32).to(device())
  return network, two_sides.build_recipe(setting)


def batch(step: our_step.Step) -> tuple[Tensor, Tensor, np.ndarray]:
  """Images [N,C,H,W] and labels on the device, and the images as uint8."""
  pictures = timing.pictures(step.config.train.batch_size)
  images = two_sides.to_torch(pictures / np.float32(255), torch.float32)
  labels = torch.arange(len(pictures)) % 10
  return images.to(device()), labels.to(device()), pictures


def evaluation(
  step: our_step.Step,
  attack_steps: int,
  form: str = "eager",
) -> dict[str, Callable[[], Any]]:
  """PyTorch's clean forward pass and PGD, and eager one gradient of it.

  Args:
    step: whose network and batch are taken; weights are frozen.
    attack_steps: of PGD.
    form: a key of `FORMS`.

  Returns:
    `clean`, `attack` and perhaps `gradient`; their results are waited for.
  """
  network = reference(step)[0].train(False)
  images, labels, _ = batch(step)
  recipe = training.Recipe("adversarial", attack_steps=attack_steps)

  @torch.no_grad()
  def clean() -> Tensor:
    return network(images).argmax(1) == labels

  if form == "eager":
    return {
      "clean": lambda: wait(clean()),
      "gradient": lambda: wait(
        training.input_gradient(network, images, labels)
      ),
      "attack": lambda: wait(training.attack(network, images, labels, recipe)),
    }
  torch.backends.cudnn.benchmark = True
  network.to(memory_format=torch.channels_last)
  images = images.contiguous(memory_format=torch.channels_last)
  attack = compiled.attack(network, recipe, compiler(form))
  functions = {
    "clean": compiler(form)(clean),
    "attack": lambda: attack(images, labels),
  }
  functions = {name: graph(form, f) for name, f in functions.items()}
  return {name: lambda f=f: wait(f()) for name, f in functions.items()}
