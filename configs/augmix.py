"""AugMix with its consistency loss, the paper's baseline of eq. 2.

  python main.py --config=configs/augmix.py --workdir=runs/augmix-0

Expected: mean accuracy over the 15 corruptions of CIFAR-10-C near 88.8 % for
WRN-40-2 (RobustBench's entry of AugMix), nearly none at epsilon = 1.
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
