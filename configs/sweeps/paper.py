"""The paper's four methods, each with several seeds.

  python main.py --mode=sweep --workdir=runs/paper \
    --config=configs/sweeps/paper.py:model=resnet18,epochs=30,seeds=3

Choices: those of configs/common.py (except `views`), plus `epochs` and `seeds`
(default 1). With WRN-50-2 and 100 epochs, one seed of the four methods
costs 1.9e18 FLOP.
"""

from ml_collections import ConfigDict

from configs import adversarial, augmix, common, robust_augmix, standard

METHODS = (standard, adversarial, augmix, robust_augmix)


def get_runs(argument: str = "") -> list[ConfigDict]:
  """Returns the configs; `argument` as above."""
  numbers, choices = common.numbers(argument, "epochs", "seeds")
  found = []
  # All methods with one seed first, so that they can be compared early.
  for seed in range(numbers.get("seeds", 1)):
    for method in METHODS:
      config = method.get_config(choices)
      config.seed = seed
      config.train.epochs = numbers.get("epochs", config.train.epochs)
      found.append(config)
  return found
