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

# How PyTorch runs: eager; compiled in a CUDA graph; compiled without one; with
# autotuned kernels; or, for a dry run, traced without compiling kernels.
FORMS = {
  "eager": {},
  "compiled": {},
  "uncaptured": {},
  "autotuned": {"autotune": True},
  "traced": {"backend": "aot_eager"},
}
HELP = f"{', '.join(FORMS)}; empty: without PyTorch"


def compiler(form: str) -> compiled.Compiler:
  """Returns the compiler of a form other than `eager`."""
  return compiled.compiler(**FORMS[form])


def graph(form: str, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
  """Captures a function in a CUDA graph, if form and device support it."""
  if form == "uncaptured" or device().type == "cpu":
    return function
  return compiled.captured(function)


def device() -> torch.device:
  """The device that PyTorch uses: the GPU if there is one."""
  return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait(loss: Tensor) -> Tensor:
  """Waits until the device has finished all work."""
  if loss.is_cuda:
    torch.cuda.synchronize()
  return loss


def build(
  step: our_step.Step,
  augment: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Callable[[], Any]:
  """Builds the same step in PyTorch, eager and in float32.

  Args:
    step: ram_jax's step.
    augment: maps uint8 images [N,H,W,C] to float AugMix views. None uses the
      images themselves as views, as if augmentation cost nothing.

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
  """Builds the same step in PyTorch, compiled and in mixed precision.

  Convolutions use bfloat16 (autocast); images and weights are channels-last.

  Args:
    step: ram_jax's step.
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
  # The learning rate is on the device, so that a schedule can change it between
  # replays.
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
  """Times a compiled step while data loaders on all cores compute AugMix views.

  Args:
    step: ram_jax's step.
    take: see `build_compiled`.
    inputs: see `build_compiled`.
    folder: folder of AugMix's code.
    steps: number of timed steps, after the prefetched batches have been used.

  Returns:
    Seconds per step.
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
  # Workers import this module, but only the parent process may use the GPU.
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
  """Builds PyTorch's network with ram_jax's weights, and its recipe."""
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
  """Builds PyTorch's clean forward pass, PGD, and, if eager, one gradient.

  Args:
    step: provides the network, whose weights are frozen, and the batch.
    attack_steps: number of steps of PGD.
    form: a key of `FORMS`.

  Returns:
    `clean`, `attack` and, if eager, `gradient`: functions that wait for the
    result.
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
