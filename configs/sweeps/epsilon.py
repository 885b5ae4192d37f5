"""RobustAugMix on a grid of lambda and epsilon, to show the trade-offs.

  python main.py --mode=sweep --workdir=runs/epsilon \
    --config=configs/sweeps/epsilon.py:model=resnet18,epochs=30,seeds=3

All runs share one compiled program. The report's figure of mean corruption
accuracy against adversarial accuracy has a point for each setting. The first
lambda and the last epsilon are the paper's.

Choices: those of configs/common.py, `epochs` and `seeds` (default 1).
"""

from ml_collections import ConfigDict

from configs import common, robust_augmix

WEIGHTS = (12.0, 3.0)  # lambda
EPSILONS = (0.125, 0.25, 0.5, 1.0)  # radius of the attack in training


def get_runs(argument: str = "") -> list[ConfigDict]:
  """Returns the configs; `argument` as above."""
  numbers, choices = common.numbers(argument, "epochs", "seeds")
  found = []
  for weight in WEIGHTS:
    for epsilon in EPSILONS:
      for seed in range(numbers.get("seeds", 1)):
        config = robust_augmix.get_config(choices)
        config.name = f"lambda{weight:g}-eps{epsilon:g}"
        config.seed = seed
        config.train.epochs = numbers.get("epochs", config.train.epochs)
        config.method.weight = weight
        config.method.attack.epsilon = epsilon  # the step size follows
        found.append(config)
  return found
