"""Every config with every argument; every field of the default explained."""

import itertools
import pathlib

import pytest

from configs import common, default, robust_augmix
from ram_jax import command_line, plugins, settings

DEFAULT = pathlib.Path(default.__file__)
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
    settings.resolve(config)  # refuses values out of range
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
    for spec in config.evaluators.values():
      plugins.build("evaluator", spec, batch_size=4)
    if config.dataset.name != "arrays":  # which has no file yet
      plugins.build("dataset", config.dataset)


def test_arguments_are_order_free():
  one = load("augmix", "smoke,model=resnet18,dataset=digits")
  other = load("augmix", "dataset=digits,model=resnet18,smoke")
  assert one.to_dict() == other.to_dict()
  assert one.model.depth == 18 and one.train.images == 64


@pytest.mark.parametrize(
  "argument", ["modle=x", "smoke=1", "model", "model=", "smoke,smoke", "x"]
)
def test_unknown_argument(argument):
  with pytest.raises(ValueError, match="model=NAME, dataset=NAME and smoke"):
    load("standard", argument)


@pytest.mark.parametrize(
  ("argument", "known"),
  [("model=vgg", "resnet18.*wrn_40_2"), ("dataset=svhn", "cifar10.*digits")],
)
def test_unknown_choice_lists_the_known(argument, known):
  with pytest.raises(ValueError, match=known):
    load("standard", argument)


def test_every_field_has_a_comment():
  lines = DEFAULT.read_text().splitlines()
  assigned = 0
  for above, line in itertools.pairwise(lines):
    name = line.strip().split("=")[0].split(":")[0]
    field = line.strip().startswith('"') and ":" in line
    group = name.strip().count(".") == 1 and " = " in line
    if not (field or group) or line.startswith(("from", "import")):
      continue
    assigned += 1
    commented = "#" in line or above.strip().startswith("#")
    assert commented, f"{DEFAULT.name}: {line.strip()} has no comment"
  fields = command_line.fields(default.get_config())
  assert assigned > len(fields)  # the loop has seen them


def test_step_size_follows_epsilon_until_it_is_set():
  config = robust_augmix.get_config()
  attack = config.method.attack
  assert attack.step_size == pytest.approx(0.357142857)  # 2.5 / 7
  attack.epsilon = 2.0
  assert attack.step_size == pytest.approx(0.714285714)
  # The evaluation's attack is another one.
  assert config.evaluators.adversarial.attack.epsilon == 1.0
  attack.step_size = 0.1
  attack.epsilon = 4.0
  assert attack.step_size == 0.1
