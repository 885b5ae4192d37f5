"""AugMax (Wang et al. 2021), without its normalization layer, DuBIN.

  python main.py --config=configs/augmax.py:model=resnet18 \
    --workdir=runs/augmax-0

For comparison, the authors report 95.76 % clean accuracy, and 90.36 % on the 15
corruptions, with DuBIN and a ResNet-18 (AugMix: 95.79 and 89.49).
"""

from ml_collections import ConfigDict

from configs import common, default


def get_config(argument: str = "") -> ConfigDict:
  """Returns the config; `argument` as in configs/common.py."""
  config = default.get_config()
  config.name = "augmax"
  config.method = ConfigDict(
    {
      "name": "augmax",
      **default.consistency(),
      "weight": 10.0,  # Lambda of the authors' code
      "augment": default.augmix(),
      **default.augmax(),
    }
  )
  return common.apply(config, argument)
