"""RobustAugMix, the paper's run (section 4, eq. 4 and 5).

  python main.py --config=configs/robust_augmix.py \
    --workdir=runs/robust_augmix-0

23 forward passes an image, 169.5 GFLOP with WRN-50-2: 100 epochs are 8.5e17
FLOP. Expected, from the paper's figures: better than standard training on 15 of
19 corruptions, an epsilon curve close to adversarial training's, and a clean
accuracy below standard training's and AugMix's. The paper prints no numbers.
"""

from ml_collections import ConfigDict

from configs import common, default


def get_config(argument: str = "") -> ConfigDict:
  """Returns the config; `argument` as in configs/common.py."""
  return common.apply(complete(), argument)


def complete() -> ConfigDict:
  """Returns the paper's run before any choice of the config string."""
  config = default.get_config()
  config.name = "robust_augmix"
  config.method = ConfigDict(
    {
      "name": "robust_augmix",
      **default.consistency(),
      "augment": default.augmix(),
      "attack": default.attack(steps=7),
    }
  )
  return config
