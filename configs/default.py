"""Every field of a run, with its unit and meaning; variants only override.

The values are the paper's (section 4); where the paper is silent, those of its
author's code, or of AugMix's. `None` in a placeholder means: chosen for the
device at start-up and recorded in the run's config.json.
"""

from ml_collections import ConfigDict, config_dict

# Step size of the paper's attacks, in training (7 steps) and in evaluation
# (10 steps) alike: 2.5 * epsilon / 7.
RELATIVE_STEP_SIZE = 2.5 / 7


def get_config() -> ConfigDict:
  """Returns the paper's run, standard training."""
  config = ConfigDict()
  config.name = "standard"  # names the default workdir: runs/<name>-<seed>
  config.seed = 0  # data order, augmentation, attacks, initial weights

  # What is trained on.
  config.dataset = ConfigDict(
    {
      "name": "cifar",  # ram_jax/data/<name>.py, whose fields follow
      "classes": 10,  # 10 or 100
      "folder": "",  # has cifar-10-batches-py; empty: tensorflow-datasets
      "tfds_dir": "",  # tensorflow-datasets' folder; empty: its default
      "label": "",  # name in tables; empty: told from the files' checksums
    }
  )
  # The network; the paper's is WRN-50-2.
  config.model = ConfigDict(
    {
      "name": "resnet",  # ram_jax/models/<name>.py, whose fields follow
      "depth": 50,  # 18 or 50
      "width_factor": 2,  # times the inner channels; 1 for depth 18
    }
  )
  # Weights from a file, .safetensors or .pt (ram_jax/interop/weights.py).
  config.weights = ConfigDict(
    {
      "initial": "",  # training starts from it (--init_from); empty: random
      "measured": "",  # measured in place of a run (--weights)
      # Which network of the file, such as state_dict_ema: the first names, up
      # to a dot, of its tensors' names. Empty: the only or the main one.
      "entry": "",
      # SHA-256 of the file. None: computed at start-up.
      "fingerprint": config_dict.placeholder(str),
      # What of the file was taken, and the normalization: written at start-up.
      "notes": (),
    }
  )
  # What the network does to pixels first, per channel: (pixel - mean) / std.
  # Empty: as the file of weights states, without one the data set's statistics.
  config.normalization = ConfigDict(
    {
      "mean": (),  # three numbers in [0,1], of pixels in [0,1]
      "std": (),  # three numbers above 0, at most 1
      # Both by name: augmix | author | common | none (pixels as they are)
      "preset": "",
    }
  )
  # ram_jax/methods/<name>.py, and its fields.
  config.method = ConfigDict({"name": "standard"})

  # Before everything else, on every training image.
  config.augment = ConfigDict(
    {
      "name": "basic",  # ram_jax/augment/<name>.py, whose fields follow
      "flip": True,  # left-right, probability 1/2
      "padding": 4,  # pixels of black border before the random crop
    }
  )

  # How long and how fast.
  train = config.train = ConfigDict()
  train.epochs = 100  # passes over the training images
  train.batch_size = 128  # images in a step, over all devices together
  train.images = 0  # first N training images only; 0: all
  # Training images of at most so many GiB, as uint8, lie on every device; more
  # stream from the host, each step's alone. It changes no result.
  train.device_data_gib = 2.0
  train.log_every = 50  # steps between lines of metrics.jsonl
  train.checkpoint_every = 1  # epochs between checkpoints
  # Steps in one call of the compiled program: more hides the host's latency.
  # None: 10 on accelerators, 1 on CPUs. The largest divisor of the run's
  # number of steps that does not exceed it is used.
  train.steps_per_dispatch = config_dict.placeholder(int)
  # Loops (attack steps, steps in a dispatch) as repeated code: CPUs run
  # convolutions inside loops slowly. None: True on CPUs only.
  train.unroll = config_dict.placeholder(bool)
  # Of the convolutions: "bfloat16" or "float32". None: bfloat16 on
  # accelerators, float32 on CPUs. The head, a normalisation after the last
  # block and the whole evaluation are always float32.
  train.dtype = config_dict.placeholder(str)

  # SGD as PyTorch's.
  config.optimizer = ConfigDict(
    {
      "learning_rate": 0.1,  # of the first step
      "schedule": "cosine_epoch",  # cosine_epoch | cosine_step | constant
      "momentum": 0.9,  # from 0 to below 1
      "nesterov": True,  # Nesterov's form of it
      "weight_decay": 5e-4,  # on all parameters, BatchNorm's included
    }
  )
  # Whose statistics normalise.
  config.batch_norm = ConfigDict(
    {
      "views": "separate",  # statistics of each view alone | joint
      "attack": "running",  # statistics while attacking: running | batch
      "sync": True,  # statistics over all devices, as if there were one
    }
  )

  # How it is measured.
  config.evaluate = ConfigDict(
    {
      "batch_size": 512,  # images at once, over all devices; changes no result
      "images": 0,  # first N test images only; 0: all
    }
  )
  # What is measured; each `name` is ram_jax/evaluation/<name>.py.
  evaluators = config.evaluators = ConfigDict()
  # On unchanged images.
  evaluators.clean = ConfigDict({"name": "clean"})
  # Under attack.
  evaluators.adversarial = ConfigDict(
    {
      "name": "adversarial",  # its fields follow
      "epsilons": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),  # L2, pixels in [0,1]
      "relative_step_size": RELATIVE_STEP_SIZE,  # in units of epsilon
      # First N test images on which it is checked that the attack works: by
      # twice the steps, noise and gradients, about 2 * steps + 1 gradients an
      # image. 0: not checked.
      "check_images": 200,
      "attack": attack(steps=10),  # its epsilon draws the picture of views
    }
  )
  # On corrupted images.
  evaluators.corruption = ConfigDict(
    {
      "name": "corruption",  # its fields follow
      "classes": 10,  # 10: CIFAR-10-C | 100: CIFAR-100-C
      # .npy files: the published ones, or what --mode=corrupt wrote.
      "folder": "",
      "tfds_dir": "",  # where tensorflow-datasets keeps cifar10_corrupted
      "generate": True,  # made here, where neither of the two is given
      # Of what is generated. Not the run's, so that all runs are measured on
      # the same images.
      "seed": 0,
      # frost1.png to frost5.jpg; empty: of the package imagecorruptions.
      "frost_folder": "",
      "names": (),  # such as fog,snow; empty: all 19 that there are
      "severities": (1, 2, 3, 4, 5),  # of each
    }
  )
  # Under a wave of each frequency.
  evaluators.fourier = ConfigDict(
    {
      "name": "fourier",  # its fields follow
      # First N test images, 1000 as in Yin et al. 2019 (514 forward passes
      # each for 32 x 32 pixels); 0: not measured.
      "images": 1000,
      "norm": 4.0,  # L2 norm of the wave in each channel, pixels in [0,1]
    }
  )
  # Accuracy that the run must reach, printed beside what it reached:
  # (measure, epsilon or None, "at least" | "at most", share).
  config.floors = ()
  return config


def consistency() -> ConfigDict:
  """The loss of AugMix and RobustAugMix (ram_jax/methods/consistency.py).

  Returns:
    Fields of the method's spec.
  """
  return ConfigDict(
    {
      "weight": 12.0,  # lambda, of the divergence beside the cross-entropy
      "jensen_shannon": "exact",  # exact | clamped, as in both PyTorch codes
    }
  )


def attack(steps: int) -> ConfigDict:
  """PGD with the paper's epsilon and step size (ram_jax/attacks/pgd.py).

  Args:
    steps: gradient steps.

  Returns:
    The attack's spec. Overriding `epsilon` moves `step_size` with it.
  """
  # Shared, so that the step size follows.
  epsilon = config_dict.FieldReference(1.0)
  return ConfigDict(
    {
      "name": "pgd",  # ram_jax/attacks/<name>.py, whose fields follow
      "norm": "l2",  # l2 | linf
      "epsilon": epsilon,  # radius of the ball, pixels in [0,1]; linf: below 1
      "step_size": epsilon * RELATIVE_STEP_SIZE,  # absolute
      "steps": steps,  # gradient steps, one forward and backward pass each
      "restarts": 1,  # the worst of so many random starts is kept
      "start": "sphere",  # as the author: on the ball | uniform | none
    }
  )


def augmix() -> ConfigDict:
  """AugMix as the paper's reference [9] has it (ram_jax/augment/augmix.py).

  Returns:
    The augmentation's spec.
  """
  return ConfigDict(
    {
      "name": "augmix",  # ram_jax/augment/<name>.py, whose fields follow
      "operations": 9,  # 9: the paper's | 13: the author's code
      "resampling": "bilinear",  # bilinear | author (nearest, bicubic)
      "width": 3,  # chains
      "depth": -1,  # operations in a chain; -1: 1 to 3 at random
      "severity": 3,  # 1..10
      "alpha": 1.0,  # of the Dirichlet and Beta distributions
    }
  )
