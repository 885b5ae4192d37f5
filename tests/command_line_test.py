"""Loading a config file and overriding single fields."""

import pytest

from configs import default, robust_augmix
from ram_jax import command_line, experiment, flags
from ram_jax.runs import folder as run_folder


def override(*arguments, config=None):
  config = config or robust_augmix.get_config()
  command_line.override(config, [f"--config.{text}" for text in arguments])
  return config


@pytest.mark.parametrize(
  ("field", "text", "value"),
  [
    ("seed", "7", 7),
    ("train.epochs", "12", 12),
    ("optimizer.learning_rate", "1e-3", 1e-3),
    ("optimizer.learning_rate", "1", 1.0),
    ("method.attack.epsilon", "8/255", 8 / 255),
    (
      "evaluators.adversarial.epsilons",
      "2/255, 4/255,0",
      (2 / 255, 4 / 255, 0),
    ),
    ("evaluators.adversarial.epsilons", "[8/255]", (8 / 255,)),
    (
      "floors",
      "('clean',None,'at least',3/4),",
      (("clean", None, "at least", 0.75),),
    ),
    ("optimizer.nesterov", "false", False),
    ("optimizer.nesterov", "True", True),
    ("train.dtype", "float32", "float32"),
    ("train.unroll", "true", True),
    ("train.unroll", "none", None),
    ("dataset.folder", "~/a=b, c", "~/a=b, c"),
    ("evaluators.adversarial.epsilons", "0.5,1", (0.5, 1)),
    ("evaluators.adversarial.epsilons", "(0.5, 1.0)", (0.5, 1.0)),
    ("evaluators.adversarial.epsilons", "[0.5]", (0.5,)),
    ("evaluators.adversarial.epsilons", "2.0", (2.0,)),
    ("evaluators.corruption.names", "fog, snow", ("fog", "snow")),
    ("evaluators.corruption.names", "'fog','snow'", ("fog", "snow")),
    ("evaluators.corruption.names", "()", ()),
  ],
)
def test_value_has_the_fields_type(field, text, value):
  config = override(f"{field}={text}")
  for part in field.split("."):
    config = config[part]
  assert config == value and type(config) is type(value)


def test_later_wins_and_references_follow():
  config = override("seed=1", "seed=2", "method.attack.epsilon=2")
  assert config.seed == 2
  assert config.method.attack.step_size == pytest.approx(2 * 2.5 / 7)


def test_step_size_of_a_recorded_run_follows_epsilon(tmp_path):
  config = robust_augmix.get_config("smoke")
  config.evaluators.adversarial.attack.step_size = 0.25  # chosen by the user
  resolved = experiment.resolve(config)
  run_folder.write_json(resolved.to_dict(), tmp_path / "config.json")
  text = str(tmp_path / "config.json")
  assert command_line.load(text).to_dict() == resolved.to_dict()
  halved = ["--config.method.attack.epsilon=0.5"]
  halved.append("--config.evaluators.adversarial.attack.epsilon=0.5")
  again = command_line.load(text, halved)
  assert again.method.attack.step_size == pytest.approx(0.5 * 2.5 / 7)
  assert again.evaluators.adversarial.attack.step_size == 0.25


def test_forms_of_every_field():
  """With a space, twice, empty, blank, and without a value."""
  config = robust_augmix.get_config()
  for name in command_line.fields(config):
    flag = f"--config.{name}"
    argv = [flag, "x", flag, "-1", flag, "-x", flag, "", flag, " ", flag, "a b"]
    argv += [flag, "--debug", flag, f"{flag}=1", flag]  # three without a value
    wanted = [f"{flag}={value}" for value in ("x", -1, "-x", "", " ", "a b")]
    wanted += [flag, flag, f"{flag}=1", flag]
    assert flags.parse(argv).overrides == wanted
    with pytest.raises(ValueError, match=f"has no value: write {flag}=VALUE"):
      override(name, config=config)
    *groups, key = name.split(".")
    holder = config
    for group in groups:
      holder = holder[group]
    if holder.get_type(key) is str:
      again = override(f"{name}=first", f"{name}=", f"{name}= ")
      assert run_folder.flat(again.to_dict())[name] == " "
      continue
    for text in ("", " "):
      with pytest.raises(ValueError, match=f"config.{name} cannot be '{text}'"):
        override(f"{name}={text}", config=config)


@pytest.mark.parametrize(
  ("argument", "words"),
  [
    ("train.epoch=3", "(did you mean config.train.epochs?): config.train has"),
    ("epochs=3", "(did you mean config.train.epochs?): config has"),
    ("optimizer.lr=1", "no config.optimizer.lr: config.optimizer has"),
    ("steps=3", "config.evaluators.adversarial.attack.steps or config.method"),
    ("colour=red", "no config.colour: config has augment, average"),
    ("train.epochs.x=3", "config.train.epochs is not a group"),
    ("train.=3", "no config.train.: config.train has"),
    ("train=3", "group of fields: set one of config.train.attack_steps"),
    ("train.epochs", "write --config.train.epochs=VALUE"),
    ("train.epochs=abc", "cannot be 'abc': give an integer"),
    ("train.epochs=2.5", "cannot be '2.5': give an integer"),
    ("train.epochs=none", "cannot be 'none'"),
    ("train.epochs=8/4", "cannot be '8/4': give an integer"),
    (
      "optimizer.momentum=fast",
      "'fast': give a number, or a fraction such as 8/255 (it is 0.9)",
    ),
    ("method.attack.epsilon=8/0", "cannot be '8/0': give a number, or a frac"),
    ("method.attack.epsilon=1/2/3", "cannot be '1/2/3': give a number"),
    ("evaluators.adversarial.epsilons=1,8/0", "'1,8/0': give values separ"),
    ("evaluators.adversarial.epsilons=1*2", "'1*2': give values separated"),
    ("batch_norm.sync=maybe", "true or false"),
    ("train.unroll=3", "true or false"),
    ("evaluators.adversarial.epsilons=(1", "such as 0.5,1.0"),
    ("evaluators.adversarial.epsilons=1,b", "or 4/255,8/255 or fog,snow"),
  ],
)
def test_mistakes(argument, words):
  config = robust_augmix.get_config()
  before = config.to_dict()
  with pytest.raises(ValueError) as caught:
    override(argument, config=config)
  assert words in str(caught.value)
  assert config.to_dict() == before


def test_missing_file_lists_the_configs(tmp_path):
  for name in ("configs/augmx.py", "augmix", str(tmp_path), "", "~no-such/a"):
    with pytest.raises(FileNotFoundError) as caught:
      command_line.load(name)
    for config in command_line.available():
      assert f"configs/{config}.py" in str(caught.value)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("def get_config(:", "SyntaxError"),
    ("import nothing_of_this_name", "nothing_of_this_name"),
    ("x = 1", "has no function get_config"),
    ("def get_runs(): ...", "get_config: it defines a sweep, so add --mode"),
    (
      "from configs import standard\n"
      "def get_config():\n"
      "  config = standard.get_config()\n"
      "  config.sed = 1\n",
      r"^[^{}]{,300}Did you mean \"seed\" instead of \"sed\"",
    ),
    ("def get_config(): return {}[0]", "KeyError"),
    ("def get_config(): return 3", "returned 3: it must return a ConfigDict"),
    ("def get_config(): raise ValueError('as told')", "^as told$"),
  ],
)
def test_broken_config_file(tmp_path, text, words):
  path = tmp_path / "mine.py"
  path.write_text(text)
  with pytest.raises(ValueError, match=words):
    command_line.load(str(path))


@pytest.mark.parametrize("folder", ["2026-11-26T11:11", "a.py:b=c"])
def test_colon_in_a_path(tmp_path, folder):
  place = tmp_path / folder
  place.mkdir()
  path = place / "my:config.py"
  path.write_text(
    "from ml_collections import ConfigDict\n"
    "def get_config(argument='none'):\n"
    "  return ConfigDict({'argument': argument})\n"
  )
  (tmp_path / "a.py").write_text("not asked for")
  assert command_line.load(str(path)).argument == "none"
  assert command_line.load(f"{path}:smoke:x").argument == "smoke:x"
  saved = place / "config.json"
  run_folder.write_json(
    experiment.resolve(default.get_config()).to_dict(), saved
  )
  assert command_line.load(str(saved)).model.depth == 50
  (tmp_path / "a.py").unlink()
  missing = place / "confg.json"
  with pytest.raises(FileNotFoundError, match=f"{missing} is not a config f"):
    command_line.load(str(missing))


def test_field_of_a_type_that_cannot_be_parsed(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
    "from ml_collections import ConfigDict\n"
    "def get_config(argument):\n"
    "  return ConfigDict({'a': None, 'b': argument})\n"
  )
  config = command_line.load(f"{path}:x=1,y:z")
  assert config.b == "x=1,y:z"
  with pytest.raises(ValueError, match="set it in a config file"):
    override("a=1", config=config)


def test_fields_are_all_leaves():
  names = command_line.fields(default.get_config(), "config.")
  assert "config.train.epochs" in names
  assert "config.evaluators.adversarial.attack.steps" in names
  assert "config.train" not in names
  assert len(names) == len(set(names))
