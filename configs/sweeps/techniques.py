"""What each technique changes, on scikit-learn's digits.

  python main.py --mode=sweep --workdir=runs/techniques \
    --config=configs/sweeps/techniques.py:seeds=3

RobustAugMix with the settings of configs/digits.py, and the same with each of
the techniques of docs/beyond_the_paper.md, for the same number of epochs. All
runs are also evaluated on generated corruptions. Each run takes about 2 minutes
on two CPU cores; docs/results/techniques/ has the results. MixUp and CutMix
cannot be combined with RobustAugMix.
Choices: `epochs` (default 4) and `seeds` (default 1).
"""

import copy
from collections.abc import Callable

from ml_collections import ConfigDict

from configs import augmax, common, trades
from configs.sweeps import digits, joint


def get_runs(argument: str = "") -> list[ConfigDict]:
  """Returns the configs; `argument` as above."""
  methods = digits.get_runs(argument)
  controls = [run for run in methods if run.method.name == "robust_augmix"]
  found = []
  for config in controls:
    for name, change in TECHNIQUES.items():
      changed = copy.deepcopy(config)  # step sizes still follow epsilon
      changed.name = name
      with changed.unlocked():
        change(changed)
      found.append(changed)
  return found


def other_method(module: object) -> Callable[[ConfigDict], None]:
  """Another method with the control's attack."""

  def change(config: ConfigDict) -> None:
    attack = config.method.attack
    config.method = module.get_config().method
    if "attack" in config.method:
      config.method.attack.steps = attack.steps

  return change


def average(name: str) -> Callable[[ConfigDict], None]:
  """Averaged weights; the second half of the run is averaged by SWA."""

  def change(config: ConfigDict) -> None:
    config.average.name = name
    if name == "swa":
      config.average.start = 0.5
      config.average.batch_norm = "reestimated"

  return change


def perturbed(config: ConfigDict) -> None:
  """Adversarial weight perturbation."""
  config.awp.gamma = 0.01


def smoothed(config: ConfigDict) -> None:
  """Label smoothing."""
  config.train.label_smoothing = 0.1


def ramp(config: ConfigDict) -> None:
  """Epsilon increases during the first half."""
  config.train.epsilon_ramp = 0.5


def fewer_steps(config: ConfigDict) -> None:
  """Two attack steps in the first half of the epochs."""
  half = config.train.epochs // 2
  steps = {0: 2} | {half: config.method.attack.steps}  # One epoch: no change
  config.train.attack_steps = tuple(steps.items())


def silu(config: ConfigDict) -> None:
  """SiLU instead of ReLU."""
  config.model.activation = "silu"


TECHNIQUES = {
  "control": lambda config: None,
  "ema": average("ema"),
  "swa": average("swa"),
  "awp": perturbed,
  "attacked_views": joint.attacked_views,
  "trades": other_method(trades),
  "augmax": other_method(augmax),
  "split": joint.split,
  "ramp": ramp,
  "attack_steps": fewer_steps,
  "label_smoothing": smoothed,
  "silu": silu,
  "trivial": joint.views("trivial"),
  "augmix_trivial": joint.views("augmix_trivial"),
  "trivial_erasing": joint.views("trivial_erasing"),
  "waves": joint.views("waves"),
  "lattice": joint.views("lattice"),
  "views_pixmix": joint.views("pixmix"),
  "pixmix": lambda config: common.set_augment(config, "pixmix"),
  "cutout": lambda config: common.set_augment(config, "cutout"),
}
