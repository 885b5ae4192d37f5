"""All fields of a run with their defaults; other configs only override them.

The defaults follow the paper (section 4), and where it does not specify a
value, its author's code, then AugMix's. A placeholder (None) is resolved at
startup, for the device or the weights file, and recorded in the run's
config.json. `--help` prints the comments.
"""

from ml_collections import ConfigDict, config_dict

# Step size of the paper's attacks as a multiple of epsilon, both in training
# (7 steps) and in evaluation (10 steps).
RELATIVE_STEP_SIZE = 2.5 / 7


def get_config() -> ConfigDict:
  """Returns the paper's standard training."""
  config = ConfigDict()
  config.name = "standard"  # Default workdir: runs/<name>-<seed>
  # Seed of data order, augmentation, attacks and initial weights, below 2^32
  config.seed = 0

  # Training and test data
  config.dataset = ConfigDict(
    {
      "name": "cifar",  # Plug-in: ram_jax/data/<name>.py
      "classes": 10,  # 10: CIFAR-10 | 100: CIFAR-100
      # Folder that contains cifar-10-batches-py or cifar-100-python. Empty: use
      # tensorflow-datasets.
      "folder": "",
      # Data folder of tensorflow-datasets. Empty: $TFDS_DATA_DIR, or
      # ~/tensorflow_datasets if that is not set.
      "tfds_dir": "",
      # Name of the data set in tables. Empty: CIFAR-10 or CIFAR-100, with a
      # note if the files are not the original ones.
      "label": "",
    }
  )
  # Network; the default is the paper's WRN-50-2
  config.model = ConfigDict(
    {
      "name": "resnet",  # Plug-in: ram_jax/models/<name>.py
      "depth": 50,  # Number of layers: 18 | 50
      "width_factor": 2,  # Multiplies the bottleneck width; 1 for depth 18
      "activation": "relu",  # relu | silu
    }
  )
  # Weights from a .safetensors or PyTorch file (docs/pytorch_weights.md)
  config.weights = ConfigDict(
    {
      # File to start training from (--init_from). Empty: random weights.
      "initial": "",
      "measured": "",  # File to evaluate instead of a run (--weights)
      # Network to load if the file contains several: the prefix of its tensor
      # names, such as state_dict_ema. Empty: the only or the main network.
      "entry": "",
      # SHA-256 of the file. None: computed at startup.
      "fingerprint": config_dict.placeholder(str),
      # How the file was read and which normalization is used. Set at startup.
      "notes": (),
    }
  )
  # Input normalization per channel: (pixel - mean) / std. Empty: read from the
  # weights file, or the statistics of the data set if no file is given.
  config.normalization = ConfigDict(
    {
      "mean": (),  # Three numbers in [0,1], for pixels in [0,1]
      "std": (),  # Three numbers in (0,1], for pixels in [0,1]
      # Sets mean and std by name: augmix | author | common | none (identity)
      "preset": "",
    }
  )
  # Training method; plug-in: ram_jax/methods/<name>.py
  config.method = ConfigDict({"name": "standard"})

  # Augmentation of all training images, before the method's own
  config.augment = ConfigDict(
    {
      "name": "basic",  # Plug-in: ram_jax/augment/<name>.py
      "flip": True,  # Flip left-right with probability 1/2
      "padding": 4,  # Pixels of black padding before the random crop
    }
  )

  # Mixing of the training images in pairs, with soft labels
  config.mix = ConfigDict(
    {
      "name": "none",  # none | mixup | cutmix
      "alpha": 1.0,  # The weight of an image is drawn from Beta(alpha, alpha)
      "probability": 1.0,  # Probability that an image is mixed
    }
  )

  # Length, batch size, logging and execution of training
  train = config.train = ConfigDict()
  train.epochs = 100  # Passes over the training images
  train.batch_size = 128  # Images per step, over all devices together
  train.images = 0  # Use only the first N training images; 0: all
  # Training images of up to this many GiB (as uint8) are stored on every
  # device; larger sets are streamed from the host. Does not change results.
  train.device_data_gib = 2.0
  # Weight of the uniform distribution in the training targets, in [0,1)
  train.label_smoothing = 0.0
  # Fraction of training, in [0,1], during which the attack's epsilon and step
  # size rise linearly from 0; 0: none
  train.epsilon_ramp = 0.0
  # Attack steps by epoch, as pairs (first epoch, steps) such as
  # ((10,3),(50,7)). Before the first pair, or if empty: method.attack.steps
  train.attack_steps = ()
  train.log_every = 50  # Steps between lines of metrics.jsonl
  train.checkpoint_every = 1  # Epochs between checkpoints
  # Maximum number of steps per call of the compiled program; more steps hide
  # host latency. The largest divisor of the total number of steps up to this
  # maximum is used. None: 10 on accelerators, 1 on CPUs.
  train.steps_per_dispatch = config_dict.placeholder(int)
  # Unroll the loops over attack steps, over views and over the steps of a
  # dispatch, as convolutions in loops are slow on CPUs. None: true on CPUs,
  # else false.
  train.unroll = config_dict.placeholder(bool)
  # Type of the convolutions in training: bfloat16 | float32. None: bfloat16 on
  # accelerators, float32 on CPUs. The head, a normalization after the last
  # block, and the evaluation always use float32.
  train.dtype = config_dict.placeholder(str)

  # SGD, with the update rule of PyTorch
  config.optimizer = ConfigDict(
    {
      "learning_rate": 0.1,  # Initial learning rate
      # cosine_epoch (updated every epoch) | cosine_step (every step) | constant
      # | piecewise (divided by 10 halfway and after three quarters)
      "schedule": "cosine_epoch",
      "warmup_epochs": 0.0,  # Epochs of linear learning-rate warm-up; 0: none
      "momentum": 0.9,  # In [0,1)
      "nesterov": True,  # Use Nesterov momentum
      "weight_decay": 5e-4,  # Coefficient of the L2 penalty's gradient
      # Apply weight decay to biases and BatchNorm's scales as well, as in the
      # author's code
      "decay_all": True,
    }
  )
  # Average of the weights over training, which is then evaluated
  config.average = ConfigDict(
    {
      # none | ema (exponential, after each step) | swa (mean, after each epoch)
      "name": "none",
      # Maximum weight of the old average in the EMA, in [0,1). In step t after
      # the start, the weight is min(decay, (1 + t) / (10 + t)).
      "decay": 0.995,
      # Fraction of training, in [0,1), after which averaging starts
      "start": 0.025,
      # Running statistics of the average: copied (from the last weights) |
      # averaged | reestimated (from the training images of an epoch, after
      # training)
      "batch_norm": "copied",
    }
  )
  # Adversarial weight perturbation: a second forward and backward pass in each
  # step, with weights that are perturbed along the gradient of the loss
  config.awp = ConfigDict(
    {
      # Size of the perturbation, relative to the norm of each weight tensor; 0:
      # none
      "gamma": 0.0,
      "first_epoch": 0,  # Number of initial epochs without perturbation
    }
  )
  # BatchNorm statistics in training; the evaluation uses running statistics
  config.batch_norm = ConfigDict(
    {
      # Batch statistics: separate (for each view) | joint (over all views)
      "views": "separate",
      "attack": "running",  # Statistics used by the attack: running | batch
      "sync": True,  # Compute batch statistics over all devices
      # Views with statistics of their own: none | adversarial | augmented (all
      # but the clean one). The attack uses them, too.
      "split": "none",
      "affine": "shared",  # Scales and biases of the split: shared | split
    }
  )

  # Batch size, precision and number of images of the evaluation
  config.evaluate = ConfigDict(
    {
      # Images per batch, over all devices together. Does not change results.
      # None: 512 on CPUs, else 2048, or fewer if a device has less than 24 MiB
      # per image; set it for images that are much larger than 32 x 32 pixels.
      "batch_size": config_dict.placeholder(int),
      # Precision at which attacks search: float32 | tensorfloat32 (only GPUs) |
      # bfloat16_3x (only TPUs). All accuracies are computed in float32. None:
      # tensorfloat32 on GPUs, float32 elsewhere.
      "precision": config_dict.placeholder(str),
      "images": 0,  # Use only the first N test images; 0: all
      # Evaluate (and export) the average of the weights, if the run has one;
      # false: the last weights
      "average": True,
      # Statistics of a split BatchNorm: main (of clean views) | auxiliary
      "batch_norm": "main",
    }
  )
  # Metrics to evaluate
  evaluators = config.evaluators = ConfigDict()
  # Accuracy on clean test images
  evaluators.clean = ConfigDict({"name": "clean"})
  # Accuracy under attack
  evaluators.adversarial = ConfigDict(
    {
      "name": "adversarial",  # Plug-in: ram_jax/evaluation/<name>.py
      # Radii of the attack, for pixels in [0,1]; below 1 for linf
      "epsilons": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
      "relative_step_size": RELATIVE_STEP_SIZE,  # Step size / epsilon
      # Number of test images on which the attack itself is checked, with about
      # 2 * steps + 1 gradients per image (docs/attack_checks.md). 0: no check.
      "check_images": 200,
      # Attack; its epsilon and step_size are only used for figures/views.png
      "attack": attack(steps=10),
    }
  )
  # Accuracy under AutoAttack (Croce and Hein 2020). On CPUs it takes hours for
  # the complete test set (docs/autoattack.md).
  evaluators.autoattack = ConfigDict(
    {
      "name": "autoattack",  # Plug-in: ram_jax/evaluation/<name>.py
      # standard | fast | plus, or attacks joined by +, such as apgd-ce+square
      "version": "standard",
      "norm": "l2",  # l2 | linf
      # Radii, for pixels in [0,1], such as 0.5. Empty: not evaluated.
      "epsilons": (),
      # Use only the first N test images; 0: all. None: 1000 on CPUs, else all.
      "images": config_dict.placeholder(int),
    }
  )
  # Accuracy on corrupted test images
  evaluators.corruption = ConfigDict(
    {
      "name": "corruption",  # Plug-in: ram_jax/evaluation/<name>.py
      "classes": 10,  # 10: CIFAR-10-C | 100: CIFAR-100-C
      # Folder of .npy files: published ones, or the output of --mode=corrupt
      "folder": "",
      # Data folder of tensorflow-datasets that contains cifar10_corrupted
      "tfds_dir": "",
      # Generate the corrupted images if folder and tfds_dir are empty
      "generate": True,
      # Seed of the generated images, below 2^32. Separate from the run's seed,
      # so that all runs are evaluated on the same images.
      "seed": 0,
      # Folder with frost1.png to frost5.jpg. Empty: use the files in the
      # installed imagecorruptions package.
      "frost_folder": "",
      # cifar_c, cifar_c_bar (Mintun et al. 2021), or both
      "sets": ("cifar_c",),
      # Corruptions in `sets` to evaluate, such as fog,snow. Empty: all
      # available ones.
      "names": (),
      "severities": (1, 2, 3, 4, 5),  # Severities to evaluate
    }
  )
  # Accuracy on CIFAR-10.1 (Recht et al. 2018)
  evaluators.cifar10_1 = ConfigDict(
    {
      "name": "cifar10_1",  # Plug-in: ram_jax/evaluation/<name>.py
      "folder": "",  # Folder of its .npy files. Empty: not evaluated.
      "version": "v6",  # v4 | v6
    }
  )
  # Error under Fourier noise, for each frequency (Yin et al. 2019)
  evaluators.fourier = ConfigDict(
    {
      "name": "fourier",  # Plug-in: ram_jax/evaluation/<name>.py
      # Number of test images, with 514 forward passes each for 32 x 32 pixels.
      # Yin et al. use 1000. 0: not evaluated.
      "images": 1000,
      "norm": 4.0,  # L2 norm of the noise per channel, pixels in [0,1]
    }
  )
  # Required accuracies, printed as "met" or "NOT MET" below the results. Each
  # is (metric, epsilon or None, "at least" | "at most", fraction); the metric
  # is clean, adversarial or corruption.
  config.floors = ()
  return config


def consistency() -> ConfigDict:
  """The loss of the AugMix methods (ram_jax/methods/consistency.py).

  Returns:
    Fields of the method's spec.
  """
  return ConfigDict(
    {
      "weight": 12.0,  # Lambda, weight of the Jensen-Shannon divergence
      # exact | clamped (to [1e-7,1], as in AugMix's and the author's code)
      "jensen_shannon": "exact",
    }
  )


def adversarial_view() -> ConfigDict:
  """Options of RobustAugMix; by default, the paper's eqs. 4 and 5.

  Returns:
    Fields of the method's spec.
  """
  return ConfigDict(
    {
      # Images that the attack starts from: clean | augmix (the augmented view)
      "attacked": "clean",
      # Weight of an additional loss term: the cross-entropy of the adversarial
      # view
      "adversarial_weight": 0.0,
    }
  )


def augmax() -> ConfigDict:
  """The search of AugMax for the worst mixture (ram_jax/methods/augmax.py).

  Returns:
    Fields of the method's spec.
  """
  return ConfigDict(
    {
      "steps": 5,  # Sign gradient steps
      # Step size for the weight of the mixed chains, which is in [0,1], and for
      # the logits of the chains' weights
      "step_size": 0.1,
      # Number of misclassifications after which the search is stopped for an
      # image; 0: never
      "patience": 1,
    }
  )


def attack(steps: int) -> ConfigDict:
  """PGD with the paper's epsilon and step size (ram_jax/attacks/pgd.py).

  Args:
    steps: gradient steps.

  Returns:
    The attack's spec. `step_size` follows `epsilon` unless it is set.
  """
  # A reference, so that the step size follows epsilon.
  epsilon = config_dict.FieldReference(1.0)
  return ConfigDict(
    {
      "name": "pgd",  # Plug-in: ram_jax/attacks/<name>.py
      "norm": "l2",  # Norm of the perturbation: l2 | linf
      "epsilon": epsilon,  # Radius, pixels in [0,1]; below 1 for linf
      "step_size": epsilon * RELATIVE_STEP_SIZE,  # Step size, pixels in [0,1]
      "steps": steps,  # Gradient steps
      "restarts": 1,  # Number of random starts; the worst case is kept
      # Starting point: sphere (random, at distance epsilon) | uniform (random,
      # in the ball) | none (the clean image)
      "start": "sphere",
      # Function to maximize: cross_entropy | dlr | margin. The gradients of the
      # last two do not vanish where the softmax saturates.
      "objective": "cross_entropy",
    }
  )


def augmix() -> ConfigDict:
  """AugMix as in reference [9] of the paper (ram_jax/augment/augmix.py).

  Returns:
    The augmentation's spec.
  """
  return ConfigDict(
    {
      "name": "augmix",  # Plug-in: ram_jax/augment/<name>.py
      # Number of operations: 9 (paper) | 13 (author's code) | 14
      # (TrivialAugment's, with its own strengths)
      "operations": 9,
      # bilinear | author (rotation nearest, shear bicubic)
      "resampling": "bilinear",
      "width": 3,  # Number of chains
      "depth": -1,  # Operations per chain; -1: random, from 1 to 3
      "severity": 3,  # Strength of the operations, from 1 to 10
      "alpha": 1.0,  # Parameter of the Dirichlet and Beta distributions
    }
  )
