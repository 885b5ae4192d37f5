"""RobustAugMix on scikit-learn's digits: a first run without downloads.

  python main.py --config=configs/digits.py

Handwritten digits of 8x8 pixels, upscaled to 32x32 RGB, and a small network.
Takes about 3 minutes on two CPU cores, including compilation. Expected on the
364 test images, with seed 0 and PGD-10: 96.4 to 97.0 % clean, 85 to 89 % at
epsilon 1 and 0 % at epsilon 8, depending on the versions of JAX and of this
code. The required accuracies below are printed with the results.
"""

from ml_collections import ConfigDict

from configs import common, robust_augmix


def get_config(argument: str = "") -> ConfigDict:
  """Returns the config; `argument` as in configs/common.py."""
  config = robust_augmix.complete()
  config.name = "digits"
  config.dataset = common.dataset_spec("digits")
  config.augment.flip = False  # a mirrored 2 is not a digit
  config.model = common.model_spec("wrn_10_1")
  config.train.epochs = 4
  config.train.batch_size = 32
  config.train.log_every = 5
  config.optimizer.schedule = "cosine_step"
  config.evaluate.batch_size = 128
  config.evaluators.corruption.generate = False
  config.evaluators.fourier.images = 0
  config.floors = (
    ("clean", None, "at least", 0.92),
    ("adversarial", 1.0, "at least", 0.75),
    ("adversarial", 8.0, "at most", 0.02),
  )
  return common.apply(config, argument)
