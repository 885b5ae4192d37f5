"""AugMix with its consistency loss, a baseline of the paper (eq. 2).

  python main.py --config=configs/augmix.py --workdir=runs/augmix-0

Expected: with WRN-40-2, a mean accuracy of about 88.8 % over the 15 corruptions
of CIFAR-10-C (AugMix's entry in RobustBench), and close to 0 % under attack at
epsilon 1.
"""

from ml_collections import ConfigDict

from configs import common, default


def get_config(argument: str = "") -> ConfigDict:
  """Returns the config; `argument` as in configs/common.py."""
  config = default.get_config()
  config.name = "augmix"
  config.method = ConfigDict(
    {
      "name": "augmix",
      **default.consistency(),
      "augment": default.augmix(),
    }
  )
  return common.apply(config, argument)
