"""Short names of models, data sets and augmentations, for the config string.

`--config=configs/robust_augmix.py:model=wrn_40_2,dataset=cifar100,smoke`
"""

import re

from ml_collections import ConfigDict

from configs import default

_CIFAR = default.get_config().dataset.to_dict()
_RESNET = default.get_config().model.to_dict()
DATASETS = {
  # CIFAR-10, as in the paper, and CIFAR-100
  "cifar10": _CIFAR | {"classes": 10},
  "cifar100": _CIFAR | {"classes": 100},
  # User-provided arrays
  "arrays": {
    "name": "arrays",  # Plug-in: ram_jax/data/<name>.py
    "path": "",  # .npz file, or folder of .npy files (docs/data.md)
    # Number of classes. 0: largest label + 1, in which case each class must
    # have a training image
    "num_classes": 0,
    "label": "",  # Name of the data set in tables; empty: the file's name
  },
  # scikit-learn's handwritten digits; no fields
  "digits": {"name": "digits"},
}
_PREACT = {
  "name": "preact_resnet",
  "variant": "robustbench",  # Source: robustbench | kuangliu | rice | fast
  "activation": "relu",
}
MODELS = {
  # torchvision's networks, with a stem for small images
  "resnet18": _RESNET | {"depth": 18, "width_factor": 1},
  "resnet50": _RESNET | {"width_factor": 1},
  # The paper's network: torchvision's ResNet-50, bottlenecks twice as wide
  "wrn_50_2": _RESNET,
  # Four networks called PreActResNet-18 (docs/pytorch_weights.md)
  "preact_resnet18": _PREACT,
  "preact_resnet18_kuangliu": _PREACT | {"variant": "kuangliu"},
  "preact_resnet18_rice": _PREACT | {"variant": "rice"},
  "preact_resnet18_fast": _PREACT | {"variant": "fast"},
}
_PIXMIX = {
  "name": "pixmix",
  "rounds": 4,  # Maximum number of times that an image is mixed
  "beta": 3.0,  # With larger values, images change less
  "severity": 3,  # Strength of the operations, from 1 to 10
  "operations": 9,  # 9 | 13 (including operations that overlap corruptions)
  # The mixing set; plug-in: ram_jax/data/<name>.py
  "pictures": {
    "name": "fractals",
    "count": 1000,  # Number of fractals that are generated
    "seed": 0,  # Seed of the fractals
  },
}
# .npz file with `pictures`, uint8 [M,h,w,3], or folder with pictures.npy
_OWN = {"pictures": {"name": "arrays", "path": ""}}
_WAVES = {
  "name": "waves",
  "kind": "planar",  # planar (AFA) | lattice (Soklaski et al.)
  "low": 1,  # Lowest frequency in cycles per image
  "high": 3,  # Highest frequency in cycles per image
  # L2 norm of a channel's wave in images of 32x32 pixels (planar: mean norm)
  "strength": 5.0,
}
VIEWS = {
  # AugMix, as in the paper
  "augmix": default.augmix().to_dict(),
  # One random operation (TrivialAugment Wide); no fields
  "trivial": {"name": "trivial"},
  # AugMix whose chains consist of TrivialAugment's operations
  "augmix_trivial": default.augmix().to_dict() | {"operations": 14},
  # Plane waves: of low frequency, and with whole numbers of cycles
  "waves": _WAVES,
  "lattice": _WAVES | {"kind": "lattice", "high": 16},
  # PixMix, instead of AugMix
  "pixmix": _PIXMIX,
  # TrivialAugment, and then random erasing
  "trivial_erasing": {
    "name": "erasing",
    "augment": {"name": "trivial"},  # Applied first
    "probability": 0.5,  # Probability of erasing a rectangle of an image
    "area": (0.02, 0.33),  # Range of the rectangle's fraction of the image
    "ratio": (0.3, 3.3),  # Range of the rectangle's height / width
    "value": 0.5,  # New color of the rectangle, in [0,1]
  },
}
# Further augmentations of all training images, after flip and crop
AUGMENTS = {
  # Cutout: a filled square
  "cutout": {
    "name": "cutout",
    "length": 16,  # Side of the square in pixels
    "value": (0.4914, 0.4822, 0.4465),  # Its color, in [0,1]
  },
  # PixMix with generated fractals, or with a user's pictures
  "pixmix": _PIXMIX,
  "pixmix_arrays": _PIXMIX | _OWN,
}
SMOKE_MODEL = "wrn_10_1"


def apply(config: ConfigDict, argument: str) -> ConfigDict:
  """Applies the choices of the config string and locks the config.

  Args:
    config: a complete config.
    argument: `model=…`, `dataset=…`, `views=…`, `augment=…` and `smoke`,
      comma-separated, in any order.

  Returns:
    The same config, changed and locked.

  Raises:
    ValueError: for anything else; the message lists the valid choices.
  """
  chosen = _parse(argument)
  if "smoke" in chosen:
    _smoke(config)
    chosen.setdefault("model", SMOKE_MODEL)
  if "dataset" in chosen:
    _set_dataset(config, chosen["dataset"])
  if "model" in chosen:
    config.model = model_spec(chosen["model"])
  if "views" in chosen:
    _set_views(config, chosen["views"])
  if "augment" in chosen:
    set_augment(config, chosen["augment"])
  return config.lock()


def numbers(argument: str, *names: str) -> tuple[dict[str, int], str]:
  """Splits a sweep's string into its own choices and those of `apply`.

  Args:
    argument: comma-separated choices.
    *names: choices whose values are integers of at least 1, such as `seeds`.

  Returns:
    The integers that are given, and the other choices.

  Raises:
    ValueError: for any other value, or a choice that is given twice.
  """
  found, rest = {}, []
  for part in argument.split(","):
    name, _, text = part.partition("=")
    if name not in names:
      rest.append(part)
      continue
    if name in found or not text.isdecimal() or int(text) < 1:
      raise ValueError(f"cannot use {part!r}: give {name}=N once, at least 1")
    found[name] = int(text)
  return found, ",".join(rest)


def model_spec(name: str) -> ConfigDict:
  """Turns a model's short name into its spec.

  Args:
    name: `resnet18`, `wrn_40_2`, …; with the suffix `_silu`, its activations
      are SiLU instead of ReLU.

  Returns:
    Fields of the model's plug-in.

  Raises:
    ValueError: for an unknown name.
  """
  if name.endswith("_silu"):
    return ConfigDict(model_spec(name[:-5]).to_dict() | {"activation": "silu"})
  if name in MODELS:
    return ConfigDict(MODELS[name])
  match = re.fullmatch(r"wrn_(\d+)_(\d+)", name)
  if not match:
    raise ValueError(
      f"unknown model {name!r}: choose {', '.join(MODELS)} or wrn_<depth>_"
      "<width>, such as wrn_40_2, wrn_28_10 or wrn_10_1, each with _silu for "
      "SiLU activations"
    )
  depth, width = map(int, match.groups())
  return ConfigDict(
    {
      "name": "wide_resnet",  # Plug-in: ram_jax/models/<name>.py
      "depth": depth,  # Number of layers: 6 n + 4
      "widen_factor": width,  # Multiplies 16, 32 and 64 channels
      "activation": "relu",
    }
  )


def dataset_spec(name: str) -> ConfigDict:
  """Turns a data set's short name into its spec.

  Args:
    name: a key of `DATASETS`.

  Returns:
    Fields of the data set's plug-in.

  Raises:
    ValueError: for an unknown name.
  """
  if name not in DATASETS:
    raise ValueError(
      f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}"
    )
  return ConfigDict(DATASETS[name])


def _parse(argument: str) -> dict[str, str]:
  chosen = {}
  for part in filter(None, argument.split(",")):
    key, _, value = part.partition("=")
    valid = key in ("model", "dataset", "views", "augment") and value
    if not (valid or part == "smoke") or key in chosen:
      raise ValueError(
        f"cannot use {part!r} in the config string {argument!r}: it accepts "
        "model=NAME, dataset=NAME, views=NAME, augment=NAME and smoke, each at "
        "most once, separated by commas"
      )
    chosen[key] = value
  return chosen


def _set_dataset(config: ConfigDict, name: str) -> None:
  config.dataset = dataset_spec(name)
  config.evaluators.corruption.classes = 100 if name == "cifar100" else 10
  if name == "digits":
    config.augment.flip = False  # a mirrored 2 is not a digit


def _set_views(config: ConfigDict, name: str) -> None:
  if "augment" not in config.method:
    raise ValueError(
      f"views={name} is for methods with augmented views: augmix, augmax and "
      "robust_augmix"
    )
  if name not in VIEWS:
    raise ValueError(
      f"unknown views {name!r}: choose one of {', '.join(VIEWS)}"
    )
  config.method.augment = ConfigDict(VIEWS[name])


def set_augment(config: ConfigDict, name: str) -> None:
  """Adds an augmentation of all training images after the config's.

  Args:
    config: changed in place, unlocked.
    name: a key of `AUGMENTS`.

  Raises:
    ValueError: for an unknown name.
  """
  if name not in AUGMENTS:
    raise ValueError(
      f"unknown augment {name!r}: choose one of {', '.join(AUGMENTS)}"
    )
  first = {"augment": config.augment.to_dict()}
  config.augment = ConfigDict(AUGMENTS[name] | first)


def _smoke(config: ConfigDict) -> None:
  config.train.epochs = 1
  config.train.images = 64
  config.train.batch_size = 16
  config.train.log_every = 1
  config.evaluate.images = 32
  config.evaluate.batch_size = 32
  config.evaluators.adversarial.epsilons = (1.0,)
  config.evaluators.adversarial.check_images = 0
  config.evaluators.corruption.generate = False
  config.evaluators.fourier.images = 0
  config.floors = ()
