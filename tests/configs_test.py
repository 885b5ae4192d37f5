"""Every config accepts every argument; every default field has a comment."""

import itertools
import pathlib
import re

import jax
import numpy as np
import pytest

from configs import common, default, robust_augmix
from ram_jax import command_line, experiment, plugins
from ram_jax.evaluation import loop as evaluation

# Where fields are explained: the second has those of other data and models.
EXPLAINED = [pathlib.Path(m.__file__) for m in (default, common)]
SHORT_NAMES = (*common.MODELS, "wrn_40_2")


def load(name, argument=""):
  return command_line.load(f"{command_line.CONFIGS / name}.py:{argument}")


def arguments():
  models = [None, *(f"model={name}" for name in SHORT_NAMES)]
  sets = [None, *(f"dataset={name}" for name in common.DATASETS)]
  for choice in itertools.product(models, sets, [None, "smoke"]):
    yield ",".join(filter(None, choice))


def test_all_files_are_configs():
  files = {p.stem for p in command_line.CONFIGS.glob("*.py")}
  assert set(command_line.available()) == files - set(command_line.NOT_CONFIGS)


@pytest.mark.parametrize("name", command_line.available())
def test_every_argument_builds_and_is_locked(name):
  plain = load(name)
  assert plain.name == name  # it names the default workdir
  for argument in arguments():
    config = load(name, argument)
    assert config.is_locked and config.train.is_locked
    resolved = experiment.resolve(config)  # rejects values out of range
    assert set(config.keys()) == set(plain.keys())
    spec = config.model.to_dict() | {"num_classes": 10}
    model = plugins.build("model", spec, mean=(0.5,) * 3, std=(0.2,) * 3)
    if "smoke" in argument and "model" not in argument:
      assert model.label == "WRN-10-1"
    if "dataset=digits" in argument:
      assert not config.augment.flip
    if "dataset" in argument:
      hundred = "cifar100" in argument
      assert config.evaluators.corruption.classes == (100 if hundred else 10)
    plugins.build("method", config.method)
    plugins.build("augment", config.augment)
    for spec in resolved.evaluators.to_dict().values():
      plugins.build("evaluator", spec, batch_size=4)
    if config.dataset.name != "arrays":  # which has no file yet
      plugins.build("dataset", config.dataset)


def test_order_of_arguments_does_not_matter():
  one = load("augmix", "smoke,model=resnet18,dataset=digits")
  other = load("augmix", "dataset=digits,model=resnet18,smoke")
  assert one.to_dict() == other.to_dict()
  assert one.model.depth == 18 and one.train.images == 64


@pytest.mark.parametrize(
  "argument", ["modle=x", "smoke=1", "model", "model=", "smoke,smoke", "x"]
)
def test_unknown_argument(argument):
  with pytest.raises(
    ValueError, match="model=NAME, dataset=NAME, views=NAME, augment=NAME and"
  ):
    load("standard", argument)


@pytest.mark.parametrize(
  ("argument", "known"),
  [
    ("model=vgg", "resnet18.*wrn_40_2"),
    ("dataset=svhn", "cifar10.*digits"),
    ("views=cutout", "augmix, trivial, augmix_trivial, waves"),
    ("augment=waves", "cutout, pixmix, pixmix_arrays"),
  ],
)
def test_unknown_choice_lists_the_choices(argument, known):
  with pytest.raises(ValueError, match=known):
    load("augmix", argument)


def test_silu_is_a_suffix_of_every_model():
  for name in SHORT_NAMES:
    plain, silu = (
      common.model_spec(n).to_dict() for n in (name, f"{name}_silu")
    )
    assert silu == plain | {"activation": "silu"} != plain


def test_views_need_a_method_with_augmented_views():
  with pytest.raises(ValueError, match="augmix, augmax and robust_augmix"):
    load("standard", "views=trivial")


@pytest.mark.parametrize("name", ["cutout", "pixmix"])
def test_augmentations_follow_flip_and_crop(name):
  config = load("standard", f"augment={name},dataset=digits")
  assert config.augment.name == name
  assert config.augment.augment.to_dict() == {
    "name": "basic",
    "flip": False,
    "padding": 4,
  }
  augment = plugins.build("augment", config.augment)
  images = np.full((2, 32, 32, 3), 0.25, np.float32)
  found = jax.eval_shape(
    augment, jax.random.split(jax.random.key(0), 2), images
  )
  assert found.shape == images.shape and found.dtype == images.dtype


def test_pixmix_needs_a_file_of_pictures():
  config = load("standard", "augment=pixmix_arrays")
  with pytest.raises(FileNotFoundError, match="pictures.path must name an .np"):
    plugins.build("augment", config.augment)


@pytest.mark.parametrize("views", common.VIEWS)
def test_every_choice_of_views_can_be_built(views):
  config = load("robust_augmix", f"views={views}")
  augment = plugins.build("augment", config.method.augment)
  images = np.full((2, 32, 32, 3), 0.25, np.float32)
  found = jax.eval_shape(
    augment, jax.random.split(jax.random.key(0), 2), images
  )
  assert found.shape == images.shape
  overlaps = evaluation.overlapping(config.method.augment.to_dict())
  assert overlaps == (14 if "trivial" in views else 0)


def explained():
  """Names of the fields that a comment explains, on the line or above it."""
  names = set()
  for path in EXPLAINED:
    for above, line in itertools.pairwise(path.read_text().splitlines()):
      named = re.match(r'\s+"(\w+)": |  (?:config|train)\.(\w+) = ', line)
      if named and ("#" in line or above.strip().startswith("#")):
        names.add(named[1] or named[2])
  return names


@pytest.mark.parametrize("name", command_line.available())
def test_every_field_has_a_comment(name):
  names = explained()
  for argument in arguments():
    fields = command_line.fields(load(name, argument))
    missing = {field.split(".")[-1] for field in fields} - names
    assert not missing, f"explain {missing} in {EXPLAINED[0]}"


def test_fields_of_default_have_comments():
  for above, line in itertools.pairwise(EXPLAINED[0].read_text().splitlines()):
    name = line.strip().split("=")[0].split(":")[0]
    field = line.strip().startswith('"') and ":" in line
    group = name.strip().count(".") == 1 and " = " in line
    if (field or group) and not line.startswith(("from", "import")):
      commented = "#" in line or above.strip().startswith("#")
      assert commented, f"{line.strip()} has no comment"


def test_step_size_follows_epsilon_until_it_is_set():
  config = robust_augmix.get_config()
  attack = config.method.attack
  assert attack.step_size == pytest.approx(0.357142857)  # 2.5 / 7
  attack.epsilon = 2.0
  assert attack.step_size == pytest.approx(0.714285714)
  # The evaluation's attack is independent.
  assert config.evaluators.adversarial.attack.epsilon == 1.0
  attack.step_size = 0.1
  attack.epsilon = 4.0
  assert attack.step_size == 0.1
