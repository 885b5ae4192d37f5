"""Techniques that may improve RobustAugMix, at equal training time.

  python main.py --mode=sweep --workdir=runs/joint \
    --config=configs/sweeps/joint.py:model=resnet18,epochs=30,seeds=3

The goal is higher accuracy both on corruptions and under attack. The control is
the paper's RobustAugMix, trained for `epochs`. The other runs are trained for
as many epochs as fit into the same time, counted in forward passes per image
(docs/beyond_the_paper.md). With ResNet-18 and batch size 128, a step of the
control took 15.0 ms on an H200 before the optimizations of docs/performance.md,
so 30 epochs take 3 minutes, and the 12 runs of a seed about 36 minutes,
excluding evaluation and compilation.

Choices: those of configs/common.py, `epochs` (default 30) and `seeds` (default
1).
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import common, robust_augmix

# Forward passes per image: three views, forward and backward, without attack.
TRAINING = 9


def get_runs(argument: str = "") -> list[ConfigDict]:
  """Returns the configs; `argument` as above."""
  numbers, choices = common.numbers(argument, "epochs", "seeds")
  found = []
  for name, change in EXPERIMENTS.items():
    for seed in range(numbers.get("seeds", 1)):
      config = robust_augmix.get_config(choices)
      control = cost(config)
      config.name, config.seed = name, seed
      with config.unlocked():
        change(config)
      epochs = numbers.get("epochs", 30) * control / cost(config)
      config.train.epochs = max(1, round(epochs))
      found.append(config)
  return found


def cost(config: ConfigDict) -> int:
  """Forward passes per training image.

  Args:
    config: RobustAugMix with any options.

  Returns:
    The count. A backward pass counts as two with weight gradients, else as one.
  """
  perturbed = TRAINING if config.awp.gamma else 0
  return TRAINING + perturbed + 2 * config.method.attack.steps


def averaged(config: ConfigDict) -> None:
  """EMA and adversarial weight perturbation."""
  config.average.name, config.awp.gamma = "ema", 0.01


def attacked_views(config: ConfigDict) -> None:
  """Attacks the augmented image, and adds the adversarial cross-entropy."""
  config.method.attacked, config.method.adversarial_weight = "augmix", 0.5


def views(name: str) -> Callable[[ConfigDict], None]:
  """Other augmented views; see `common.VIEWS`."""

  def change(config: ConfigDict) -> None:
    config.method.augment = ConfigDict(common.VIEWS[name])

  return change


def all_operations(config: ConfigDict) -> None:
  """AugMix with 13 operations, which overlap the corruptions."""
  config.method.augment.operations = 13


def split(config: ConfigDict) -> None:
  """Separate BatchNorm statistics for adversarial views."""
  config.batch_norm.split = "adversarial"


def ramp(config: ConfigDict) -> None:
  """Three attack steps instead of seven, with an epsilon ramp."""
  config.method.attack.steps, config.train.epsilon_ramp = 3, 0.5
  attack = config.method.attack
  attack.step_size = attack.get_oneway_ref("epsilon") * (2.5 / 3)


def together(config: ConfigDict) -> None:
  """All of the above except other views and operations."""
  averaged(config)
  attacked_views(config)
  split(config)
  ramp(config)


def pareto(weight: float, epsilon: float) -> Callable[[ConfigDict], None]:
  """A different trade-off between corruptions and attacks."""

  def change(config: ConfigDict) -> None:
    config.method.weight, config.method.attack.epsilon = weight, epsilon

  return change


EXPERIMENTS = {
  "control": lambda config: None,
  "awp_ema": averaged,
  "attacked_views": attacked_views,
  "trivial": views("trivial"),
  "augmix_trivial": views("augmix_trivial"),
  "all_operations": all_operations,
  "waves": views("waves"),
  "split": split,
  "ramp": ramp,
  "lambda6": pareto(6.0, 1.0),
  "epsilon0.5": pareto(12.0, 0.5),
  "together": together,
}
