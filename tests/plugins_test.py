"""Plug-ins are found by folder and built from specs; mistakes are explained."""

import dataclasses
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import default
from ram_jax import losses, plugins
from ram_jax.attacks.pgd import Attack

FOLDER = pathlib.Path(plugins.__file__).parent
PGD = {"name": "pgd", "epsilon": 1.0, "step_size": 0.1}


def names(kind):
  """The names that an error lists, including those of new files."""
  return ", ".join(plugins.available(kind))


# What the loops call on each kind.
CALLED = {
  "method": ("views", "loss", "label"),
  "augment": ("__call__",),
  "attack": ("__call__", "replace"),
  "model": ("__call__", "features", "label"),
  "dataset": ("load", "mean", "std", "label"),
  "pictures": ("load",),
  "evaluator": (
    "results",
    "check",
  ),
}


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_each_file_with_the_class_is_a_plug_in(kind):
  folder, class_name = plugins.KINDS[kind]
  names = plugins.available(kind)
  found = [
    path.stem
    for path in sorted((FOLDER / folder).glob("*.py"))
    if f"\nclass {class_name}" in path.read_text()
  ]
  assert list(names) == found and found
  for name in names:
    cls = plugins.load(kind, name)
    assert cls.__name__ == class_name
    assert cls.__module__ == f"ram_jax.{folder}.{name}"
    assert dataclasses.is_dataclass(cls) and cls.__doc__
    missing = [part for part in CALLED[kind] if not hasattr(cls, part)]
    assert not missing, f"{kind} {name} lacks {missing}"


def example(heading, module):
  """Runs the code below a heading of CONTRIBUTING.md."""
  text = (FOLDER.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
  code = text.partition(f"## Example: {heading}\n")[2].split("```")[1]
  found = types.ModuleType(module)
  exec(code.removeprefix("python\n"), vars(found))
  return found


def test_example_of_a_method():
  method = plugins.make_pytree(example("a method", "half").Method)
  attack = plugins.build("attack", PGD | {"steps": 1})
  images = jnp.full((2, 4, 4, 3), 0.5)
  batch = {"images": images, "labels": jnp.zeros(2, jnp.int32)}

  @jax.tree_util.Partial
  def model(images):
    return images.mean((1, 2))

  keys = jax.random.split(jax.random.key(0), 2)
  made = method(attack)
  views, targets = made.views(keys, batch, model)
  assert [name for name, _ in views] == ["clean", "adversarial"]
  logits = tuple(model(view) for _, view in views)
  loss, metrics = made.loss(logits, targets)
  wanted = [losses.cross_entropy(x, targets) for x in logits]
  np.testing.assert_allclose(loss, (wanted[0] + wanted[1]) / 2, rtol=1e-6)
  assert metrics.keys() == {"accuracy", "adversarial_accuracy"}


def test_example_of_an_evaluator():
  evaluator = example("an evaluator", "shift").Evaluator((1, 3), 8)
  images = np.zeros((8, 4, 4, 3), np.uint8)
  images[:, :, 2] = 255  # only seen if it is shifted by 1
  batch = {"images": images, "labels": np.zeros(8, np.int32)}
  evaluator.check(batch)

  @jax.tree_util.Partial
  def model(images):
    bright = images[:, :, 3].mean((1, 2))
    return jnp.stack([bright, 1 - bright], -1)

  found = evaluator.results(model, batch, None, lambda name, compute: compute())
  counts = {row.settings["shift"]: row.correct_count for row in found}
  assert counts == {1: 8, 3: 0}
  with pytest.raises(ValueError, match="give 1 to 3"):
    dataclasses.replace(evaluator, shifts=(4,)).check(batch)


def test_new_file_is_found(tmp_path, monkeypatch):
  monkeypatch.setattr(plugins, "__file__", str(tmp_path / "plugins.py"))
  (tmp_path / "methods").mkdir()
  (tmp_path / "methods" / "trades.py").write_text("class Method: ...\n")
  (tmp_path / "methods" / "helper.py").write_text("def method(): ...\n")
  assert plugins.available("method") == ("trades",)
  with pytest.raises(ValueError, match=r"helper.py has no class Method\): ch"):
    plugins.load("method", "helper")


def test_incomplete_method_is_rejected(monkeypatch):
  trades = plugins.load("method", "trades")
  monkeypatch.delattr(trades, "label")
  with pytest.raises(ValueError, match="trades.py has no label: see"):
    plugins.load("method", "trades")


def test_nested_specs_are_built_first():
  spec = {"name": "adversarial", "attack": PGD | {"steps": 3}}
  assert plugins.build("method", spec).attack == Attack(1.0, 0.1, steps=3)
  assert spec["attack"]["name"] == "pgd"  # the spec itself is left alone


def test_numbers_of_methods_are_leaves():
  spec = {"name": "robust_augmix", "weight": 7, "attack": PGD}
  spec["augment"] = {"name": "augmix", "alpha": 0.5}
  method = plugins.build("method", spec)
  assert jax.tree.leaves(method) == [7, 1.0, 0.1, 0.0]
  # Copies skip the checks, because leaves can be tracers.
  structure = jax.tree.structure(method)
  changed = jax.tree.unflatten(structure, [-7, 2.0, 0.2, 0.0])
  assert (changed.weight, changed.attack.step_size) == (-7, 0.2)
  assert changed.augment is method.augment and changed.label == method.label
  loss = jax.jit(lambda method: method.weight * 2)(method)
  assert loss == 14


def test_fields_of_other_types_are_static():
  @plugins.make_pytree
  @dataclasses.dataclass(frozen=True)
  class Method:
    rate: float
    name: str
    steps: int = 3
    size: "float" = 0.5

    def __post_init__(self):
      object.__setattr__(self, "double", 2 * self.steps)

  method = Method(0.1, "a")
  leaves, structure = jax.tree.flatten(method)
  assert leaves == [0.1, 0.5]
  assert jax.tree.unflatten(structure, leaves) == method
  assert jax.tree.unflatten(structure, leaves).double == 6
  assert structure != jax.tree.structure(Method(0.1, "a", steps=4))


def test_given_fields_and_lists():
  evaluator = plugins.build(
    "evaluator",
    {
      "name": "adversarial",
      "attack": PGD,
      "epsilons": [0.5, 1],
      "relative_step_size": 0.25,
      "check_images": 0,
    },
    batch_size=8,
  )
  assert evaluator.epsilons == (0.5, 1) and evaluator.batch_size == 8


@pytest.mark.parametrize(
  ("kind", "spec", "words"),
  [
    (
      "method",
      {"name": "no_such"},
      "config.method.name is 'no_such', an unknown method: choose one of "
      + names("method"),
    ),
    ("method", {}, "config.method.name is None"),
    ("evaluator", 3, "config.evaluator is 3: give a group with a name"),
    ("model", {"name": "layers"}, names("model")),
    ("method", {"name": "standard", "wieght": 1}, "no field wieght: it has no"),
    ("augment", {"name": "basic", "pading": 1}, "it has flip, padding"),
    ("method", {"name": "augmix"}, "is missing augment; start from a config"),
    ("model", {"name": "wide_resnet"}, "is missing num_classes, mean, std"),
    (
      "augment",
      {"name": "basic", "padding": -1},
      "config.augment (augment 'basic'): padding is -1",
    ),
    (
      "method",
      {"name": "adversarial", "attack": PGD | {"name": "no_such"}},
      "config.method.attack.name is 'no_such', an unknown attack: choose one "
      f"of {names('attack')}",
    ),
    (
      "method",
      {"name": "adversarial", "attack": PGD | {"epsilon": -1.0}},
      "config.method.attack (attack 'pgd'): epsilon is -1.0",
    ),
    (
      "method",
      {"name": "adversarial", "attack": PGD | {"stpes": 1}},
      "config.method.attack (attack 'pgd') has no field stpes",
    ),
  ],
)
def test_errors_name_the_field_and_the_choices(kind, spec, words):
  with pytest.raises(ValueError) as caught:
    plugins.build(kind, spec)
  message = str(caught.value)
  assert words in message and f"config.{kind}" in message
  assert "\n" not in message


def test_a_model_must_accept_all_that_it_is_given(monkeypatch):
  """Else, it would ignore the normalization or the device axis silently."""

  class Model(nn.Module):
    num_classes: int

  monkeypatch.setattr(plugins, "load", lambda *_: Model)
  with pytest.raises(ValueError, match="has no field mean: it has num_classes"):
    plugins.build("model", {"name": "mine"}, num_classes=4, mean=(0.5,) * 3)


def test_where_names_another_part_of_the_config():
  with pytest.raises(ValueError, match=r"^config\.evaluators\.mine\.name is"):
    plugins.build("evaluator", {"name": "x"}, "config.evaluators.mine")


def test_missing_files_are_reported_when_it_is_built(tmp_path):
  spec = default.get_config().evaluators.corruption.to_dict()
  plugins.build("evaluator", spec, batch_size=4)  # nothing to miss
  with pytest.raises(FileNotFoundError, match="has no corruption with"):
    plugins.build("evaluator", spec | {"folder": str(tmp_path)}, batch_size=4)
