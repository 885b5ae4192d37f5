"""The paper's four methods on scikit-learn's digits, each with several seeds.

  python main.py --mode=sweep --workdir=runs/digits_seeds \
    --config=configs/sweeps/digits.py:seeds=5

The network, the data and the number of epochs are those of configs/digits.py;
all runs are also evaluated on generated corruptions. Each run takes about 2
minutes on two CPU cores.
Choices: `epochs` (default 4) and `seeds` (default 1).
"""

import copy

from ml_collections import ConfigDict

from configs import common, digits
from configs.sweeps import paper

SHARED = ("dataset", "augment", "model", "optimizer", "train")


def get_runs(argument: str = "") -> list[ConfigDict]:
  """Returns the configs; `argument` as above."""
  numbers, others = common.numbers(argument, "epochs", "seeds")
  if others:
    raise ValueError(f"cannot use {others!r}: give epochs=N or seeds=N")
  base = digits.get_config()
  base.train.epochs = numbers.get("epochs", base.train.epochs)
  found = paper.get_runs(f"seeds={numbers.get('seeds', 1)}")
  for config in found:
    with config.unlocked():
      for name in SHARED:
        config[name] = copy.deepcopy(base[name])
    config.evaluate.batch_size = base.evaluate.batch_size
    config.evaluators.adversarial = base.evaluators.adversarial
    config.evaluators.fourier.images = 0
    if "attack" in config.method:
      config.method.attack.steps = base.method.attack.steps
  return found
