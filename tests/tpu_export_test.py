"""The accelerators' program of every method lowers for TPU without one."""

import jax
import numpy as np
import pytest

from configs import adversarial, augmix, robust_augmix, standard
from ram_jax import parallel, settings, train
from ram_jax.data import digits

CONFIGS = {
  "standard": standard,
  "adversarial": adversarial,
  "augmix": augmix,
  "robust_augmix": robust_augmix,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_lowers_for_tpu(name):
  config = CONFIGS[name].get_config("model=wrn_10_1")
  config.train.dtype = "bfloat16"
  config.train.unroll = False
  config.train.steps_per_dispatch = 10
  config.train.batch_size = 8
  config = settings.resolve(config)
  images = np.zeros((80, 32, 32, 3), np.uint8)
  training = train.build(config, digits.Source(), images.shape)
  assert training.per_dispatch == 10
  data = {"images": images, "labels": np.zeros(80, np.int32)}
  indices = parallel.shard(np.zeros((10, 8), np.int32), axis=1)
  exported = jax.export.export(jax.jit(training.dispatch), platforms=["tpu"])(
    training.create(), data, jax.random.key(0), indices
  )
  assert exported.platforms == ("tpu",)
  module = exported.mlir_module()
  # Loops of steps (and of the attack) are there, and the convolutions'
  # arithmetic is the accelerators'.
  loops = 2 if "adversarial" in name or name == "robust_augmix" else 1
  assert module.count("stablehlo.while") >= loops
  assert "xbf16>" in module
