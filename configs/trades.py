"""TRADES (Zhang et al. 2019), with the attack of the RobustAugMix paper.

  python main.py --config=configs/trades.py --workdir=runs/trades-0

For comparison, RobustBench lists 88.51 % clean accuracy, and 73.66 % under
AutoAttack at epsilon 0.5, for TRADES with adversarial weight perturbation
(--config.awp.gamma=0.005) and a WRN-34-10, trained with epsilon 0.5.
"""

from ml_collections import ConfigDict

from configs import common, default


def get_config(argument: str = "") -> ConfigDict:
  """Returns the config; `argument` as in configs/common.py."""
  config = default.get_config()
  config.name = "trades"
  config.method = ConfigDict(
    {
      "name": "trades",
      "weight": 6.0,  # Beta, weight of the Kullback-Leibler divergence
      "attack": default.attack(steps=7),
    }
  )
  return common.apply(config, argument)
