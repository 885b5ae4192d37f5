"""Adversarial training with PGD, the paper's baseline of eq. 3.

  python main.py --config=configs/adversarial.py --workdir=runs/adversarial-0

Expected, from MadryLab's ResNet-50 at the same epsilon of 1.0: clean 81.62 %,
52.7 % under PGD-20 at epsilon = 1.
"""

from ml_collections import ConfigDict

from configs import common, default


def get_config(argument: str = "") -> ConfigDict:
  """Returns the config; `argument` as in configs/common.py."""
  config = default.get_config()
  config.name = "adversarial"
  config.method = ConfigDict(
    {"name": "adversarial", "attack": default.attack(steps=7)}
  )
  return common.apply(config, argument)
