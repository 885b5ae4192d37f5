"""Standard training, a baseline of the paper (eq. 1).

  python main.py --config=configs/standard.py --workdir=runs/standard-0

Expected: close to 0 % under attack at epsilon 0.5. For comparison, the standard
WRN-28-10 of RobustBench: 94.78 % clean, 73.46 % mean corruption accuracy.
"""

from ml_collections import ConfigDict

from configs import common, default


def get_config(argument: str = "") -> ConfigDict:
  """Returns the config; `argument` as in configs/common.py."""
  return common.apply(default.get_config(), argument)
