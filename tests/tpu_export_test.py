"""Training and corruptions lower for TPU, without a TPU."""

import functools

import jax
import numpy as np
import pytest

from configs import adversarial, augmix, robust_augmix, standard
from ram_jax import corruptions, experiment, parallel
from ram_jax.data import digits
from ram_jax.training import loop as train
from tests.corruptions import reference

METHODS = {
  "standard": standard,
  "adversarial": adversarial,
  "augmix": augmix,
  "robust_augmix": robust_augmix,
}
STEPS = 10
# What makes an accelerator wait for the host in the middle of a program.
HOST = ("callback", "infeed", "outfeed", "stablehlo.send", "stablehlo.recv")


@functools.cache
def lowered(name, model, attack_steps=None):
  """StableHLO of a method's training, as a TPU would get it."""
  config = METHODS[name].get_config(f"model={model}")
  # What experiment.resolve chooses on accelerators.
  config.train.dtype = "bfloat16"
  config.train.unroll = False
  config.train.steps_per_dispatch = STEPS
  if attack_steps:
    config.method.attack.steps = attack_steps
  config = experiment.resolve(config)
  size = config.train.batch_size
  images = np.zeros((STEPS * size, 32, 32, 3), np.uint8)
  training = train.build(config, digits.Source(), images.shape)
  assert training.per_dispatch == STEPS
  data = {"images": images, "labels": np.zeros(STEPS * size, np.int32)}
  indices = parallel.shard(np.zeros((STEPS, size), np.int32), axis=1)
  exported = jax.export.export(jax.jit(training.dispatch), platforms=["tpu"])(
    jax.eval_shape(training.create), data, training.settings, indices
  )
  assert exported.platforms == ("tpu",)
  return exported.mlir_module()


@pytest.mark.parametrize("name", METHODS)
def test_lowers_for_tpu(name):
  # The paper's network once, with the method that has every part.
  module = lowered(name, "wrn_50_2" if name == "robust_augmix" else "wrn_10_1")
  loops = module.count("stablehlo.while")
  # One over the steps of a dispatch, one over the attack's; AugMix adds its
  # own. Written out, ten steps would show ten times the convolutions.
  least = {"standard": 1, "adversarial": 2, "augmix": 2, "robust_augmix": 3}
  assert loops >= least[name]
  if "augmix" not in name:
    assert loops == least[name]
  assert "xbf16>" in module
  assert not [word for word in HOST if word in module]


@pytest.mark.parametrize("name", sorted({*corruptions.EVERY} - {"frost"}))
def test_corruptions_lower_for_tpu(name):
  corruption = corruptions.EVERY[name]
  shape = (4, 32, 32, 3)
  arguments = (
    jax.random.split(jax.random.key(0), 4),
    jax.ShapeDtypeStruct(shape, np.float32),
    corruption.parameters(5, shape[1:], None),
  )
  exported = jax.export.export(
    jax.jit(reference.apply, static_argnums=0), platforms=["tpu"]
  )(corruption.apply, *arguments)
  module = exported.mlir_module()
  assert not [word for word in HOST if word in module]


def test_callback_would_be_detected():
  def step(x):
    jax.debug.print("{}", x)
    return x

  module = jax.jit(step).lower(1.0).as_text()
  assert [word for word in HOST if word in module]


def test_attack_is_a_loop():
  convolutions = [
    lowered("adversarial", "wrn_10_1", *steps).count("stablehlo.convolution")
    for steps in ((), (2,))  # the paper's 7, and 2
  ]
  assert convolutions[0] == convolutions[1] > 9  # WRN-10-1 has 9
