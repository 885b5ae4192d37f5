"""Standard training, the paper's baseline of eq. 1.

  python main.py --config=configs/standard.py --workdir=runs/standard-0

Expected: nearly no accuracy left at epsilon = 0.5 (RobustBench's standard
WRN-28-10: clean 94.78 %, mean corruption accuracy 73.46 %).
"""

from ml_collections import ConfigDict

from configs import common, default


def get_config(argument: str = "") -> ConfigDict:
  """Returns the config; `argument` as in configs/common.py."""
  return common.apply(default.get_config(), argument)
