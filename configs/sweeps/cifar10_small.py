"""The paper's four methods on CIFAR-10 with a small network, for CPUs.

  python main.py --mode=sweep --workdir=runs/cifar10_seeds \
    --config=configs/sweeps/cifar10_small.py:epochs=2,seeds=3 \
    --config.dataset.folder=DATA

WRN-10-1 on 25,000 training images, batches of 64 images, and 1,000 test images:
PGD-10, 19 generated corruptions, Fourier noise on 100 images, and the fast
version of AutoAttack on 500 images.
Choices: `epochs` (default 2) and `seeds` (default 1).
"""

from ml_collections import ConfigDict

from configs import common
from configs.sweeps import paper


def get_runs(argument: str = "") -> list[ConfigDict]:
  """Returns the configs; `argument` as above."""
  numbers, others = common.numbers(argument, "epochs", "seeds")
  if others:
    raise ValueError(f"cannot use {others!r}: give epochs=N or seeds=N")
  epochs, seeds = numbers.get("epochs", 2), numbers.get("seeds", 1)
  found = paper.get_runs(f"model=wrn_10_1,epochs={epochs},seeds={seeds}")
  for config in found:
    config.train.images = 25_000
    config.train.batch_size = 64
    # With so few epochs, the rate must change within them.
    config.optimizer.schedule = "cosine_step"
    config.evaluate.images = 1000
    config.evaluators.fourier.images = 100
    config.evaluators.autoattack.epsilons = (0.5,)
    config.evaluators.autoattack.images = 500
    config.evaluators.autoattack.version = "fast"
  return found
