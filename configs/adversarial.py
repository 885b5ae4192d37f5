"""Adversarial training with PGD, a baseline of the paper (eq. 3).

  python main.py --config=configs/adversarial.py --workdir=runs/adversarial-0

For comparison, MadryLab's ResNet-50, also trained with epsilon 1: 81.62 %
clean, 52.7 % under PGD-20 at epsilon 1.
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
