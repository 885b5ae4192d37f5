"""RobustAugMix on scikit-learn's digits: the first run of a new user.

  python main.py --config=configs/digits.py

Real scans, 8x8 brought to 32x32 RGB, and a small network: under three minutes
on two CPU cores with compilation. The floors below are printed beside what was
reached, on held-out digits.
"""

from ml_collections import ConfigDict

from configs import common, robust_augmix


def get_config(argument: str = "") -> ConfigDict:
  """Returns the config; `argument` as in configs/common.py."""
  config = robust_augmix.complete()
  config.name = "digits"
  config.dataset = common.dataset_spec("digits")
  config.augment.flip = False  # a mirrored 2 is no digit
  config.model = common.model_spec("wrn_10_1")
  config.train.epochs = 4
  config.train.batch_size = 32
  config.train.log_every = 5
  config.optimizer.schedule = "cosine_step"
  config.evaluate.batch_size = 128
  config.floors = (
    ("clean", None, "at least", 0.92),
    ("adversarial", 1.0, "at least", 0.75),
    ("adversarial", 8.0, "at most", 0.02),
  )
  return common.apply(config, argument)
