"""The reference's training step in PyTorch, as functions to be timed."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import our_step, timing, two_sides
from benchmarks.setting import Setting
from benchmarks.torch_reference import training


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
  compiled: bool = False,
  augment: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Callable[[], Any]:
  """Builds the same step in PyTorch, from the same weights.

  Args:
    step: ours.
    compiled: the fastest that PyTorch knows for convolutions: bfloat16 by
      autocast, channels last, torch.compile. Else eager, in float32.
    augment: uint8 images [N,H,W,3] to their AugMix views, floats; None takes
      the images themselves for views, as if loaders had made these for nothing.

  Returns:
    A function that takes one step and waits for it.
  """
  variables = step.training.create()
  setting = Setting(
    step.config, step.module, {}, variables.params, variables.batch_stats
  )
  where, batch = device(), step.config.train.batch_size
  network = two_sides.reference(setting, torch.float32).to(where)
  recipe = two_sides.build_recipe(setting)
  pictures = timing.pictures(batch)
  images = two_sides.to_torch(pictures / np.float32(255), torch.float32)
  images = images.to(where)
  labels = (torch.arange(batch) % 10).to(where)
  if compiled:
    images = images.to(memory_format=torch.channels_last)
    network = network.to(memory_format=torch.channels_last)
    network = torch.compile(network)

  def view(_: Tensor) -> Tensor:
    if augment is None:
      return images
    return two_sides.to_torch(augment(pictures), torch.float32).to(where)

  optimizer = training.sgd(network, 1e-3)
  take = functools.partial(
    training.step, network, optimizer, images, labels, recipe, view
  )

  def run() -> Tensor:
    with torch.autocast(where.type, torch.bfloat16, enabled=compiled):
      return wait(take())

  return run


def evaluation(
  step: our_step.Step, images: np.ndarray, attack_steps: int
) -> dict[str, Callable[[], Any]]:
  """PyTorch's clean forward pass, one gradient and PGD, with weights frozen.

  Args:
    step: whose network is taken.
    images: uint8 [N,32,32,3].
    attack_steps: of PGD.

  Returns:
    `clean`, `gradient` and `attack`, functions whose result is waited for.
  """
  variables = step.training.create()
  setting = Setting(
    step.config, step.module, {}, variables.params, variables.batch_stats
  )
  network = two_sides.reference(setting, torch.float32).to(device())
  network.train(False)
  pixels = two_sides.to_torch(images / np.float32(255), torch.float32)
  pixels = pixels.to(device())
  labels = (torch.arange(len(images)) % 10).to(device())
  recipe = training.Recipe("adversarial", attack_steps=attack_steps)

  @torch.no_grad()
  def clean() -> Tensor:
    return wait(network(pixels).argmax(1) == labels)

  return {
    "clean": clean,
    "gradient": lambda: wait(training.input_gradient(network, pixels, labels)),
    "attack": lambda: wait(training.attack(network, pixels, labels, recipe)),
  }
