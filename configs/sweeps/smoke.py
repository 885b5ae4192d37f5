"""Two methods with two seeds on a few digits: checks that sweeps work.

  python main.py --mode=sweep --config=configs/sweeps/smoke.py --workdir=runs/s

Takes about a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import adversarial, standard


def get_runs() -> list[ConfigDict]:
  """Returns the configs."""
  found = []
  for method in (standard, adversarial):
    for seed in range(2):
      config = method.get_config("dataset=digits,smoke")
      config.seed = seed
      found.append(config)
  return found
