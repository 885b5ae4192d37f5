"""Random combinations of options: two steps, resuming, lowering for TPU."""

import contextlib
import dataclasses
import importlib
import pathlib
import tempfile

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from configs import common
from ram_jax import experiment, parallel, plugins
from ram_jax.data import digits
from ram_jax.methods.consistency import Consistency
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.training import loop as train

pytestmark = pytest.mark.usefixtures("tiny_network", "quick_compilation")

BATCH = 8
SHAPE = (BATCH, 8, 8, 3)
ONE_OF = st.sampled_from
METHODS = ("adversarial", "trades", "augmix", "augmax", "robust_augmix")
# AugMix's chains take long to compile, so other views are used, except for
# AugMax, which needs the chains.
VIEWS = ("waves", "lattice")
FIELDS = {
  "average.name": ONE_OF(["none", "ema", "swa"]),
  "average.batch_norm": ONE_OF(["copied", "averaged", "reestimated"]),
  "average.start": ONE_OF([0.0, 0.5]),
  "awp.gamma": ONE_OF([0.0, 0.01]),
  "awp.first_epoch": ONE_OF([0, 1]),
  "batch_norm.split": ONE_OF(["none", "adversarial", "augmented"]),
  "batch_norm.affine": ONE_OF(["shared", "split"]),
  "batch_norm.views": ONE_OF(["separate", "joint"]),
  "optimizer.schedule": ONE_OF(["cosine_epoch", "piecewise", "constant"]),
  "optimizer.warmup_epochs": ONE_OF([0.0, 1.5]),
  "optimizer.decay_all": st.booleans(),
  "train.label_smoothing": ONE_OF([0.0, 0.1]),
  "mix.name": ONE_OF(["none", "mixup", "cutmix"]),
  "train.attack_steps": ONE_OF([(), ((1, 2),)]),
  "train.epsilon_ramp": ONE_OF([0.0, 0.5]),
}
COMBINATIONS = st.fixed_dictionaries(
  FIELDS
  | {
    "method": ONE_OF(METHODS),
    "views": ONE_OF(VIEWS),
    "augment": ONE_OF(["", "cutout"]),  # PixMix has AugMix's operations
  }
)
COMMON = {"deadline": None, "database": None, "derandomize": True}
COMMON["suppress_health_check"] = list(hypothesis.HealthCheck)
COMMON["phases"] = [hypothesis.Phase.generate]  # a failure is shown as drawn


def config(fields, **others):
  fields = dict(fields)
  name, views, augment = map(fields.pop, ("method", "views", "augment"))
  argument = augment and f"augment={augment}"
  result = importlib.import_module(f"configs.{name}").get_config(argument)
  if issubclass(plugins.load("method", name), Consistency):
    fields["mix.name"] = "none"
  with result.unlocked():
    if name in ("augmix", "robust_augmix"):
      result.method.augment = common.VIEWS[views]
    if name == "augmax":
      result.method.augment.update({"width": 1, "depth": 1})
      result.method.steps = 1
  if "attack" in result.method:
    result.method.attack.steps = 1
  else:
    fields |= {"train.epsilon_ramp": 0.0, "train.attack_steps": ()}
  if name in ("adversarial", "augmix"):  # views of one kind only
    kind = {"augmix": "augmented"}.get(name, "none")
    fields["batch_norm.split"] = min(fields["batch_norm.split"], kind, key=len)
    if fields["batch_norm.split"] == "adversarial":
      fields["batch_norm.split"] = "none"
  if fields["batch_norm.split"] != "none":
    fields["average.batch_norm"] = "copied"
  else:
    fields["batch_norm.affine"] = "shared"
  result.train.batch_size, result.train.epochs = BATCH, 2
  result.update_from_flattened_dict(fields | others)
  return experiment.resolve(result)


def data():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 10, BATCH, np.int32)
  return {"images": rng.integers(0, 256, SHAPE, np.uint8), "labels": labels}


def fit(config, training, folder):
  path = pathlib.Path(folder) / "checkpoints"
  with contextlib.closing(Checkpoints(path)) as checkpoints:
    state = train.fit(
      config, training, data(), pathlib.Path(folder), checkpoints
    )
  return jax.tree.map(np.asarray, state)


def check(fields):
  chosen = config(fields)
  training = train.build(chosen, digits.Source(), SHAPE)
  calls = []

  def once(*arguments):
    if calls:
      raise KeyboardInterrupt
    calls.append(arguments)
    return training.dispatch(*arguments)

  with (
    tempfile.TemporaryDirectory() as whole,
    tempfile.TemporaryDirectory() as cut,
  ):
    expected = fit(chosen, training, whole)
    with pytest.raises(KeyboardInterrupt):
      fit(chosen, dataclasses.replace(training, dispatch=once), cut)
    resumed = fit(chosen, training, cut)
  assert expected.step == 2
  first = jax.tree.map(np.asarray, training.create())
  changed = [
    (x != y).any()
    for x, y in zip(
      jax.tree.leaves(first.params),
      jax.tree.leaves(expected.params),
      strict=True,
    )
  ]
  assert all(changed)
  jax.tree.map(np.testing.assert_array_equal, expected, resumed)
  lower(config(fields, **{"train.unroll": False, "train.dtype": "bfloat16"}))


def lower(config):
  """Lowers the training program for TPUs."""
  training = train.build(config, digits.Source(), SHAPE)
  indices = parallel.shard(np.zeros((1, BATCH), np.int32), axis=1)
  rows = data() | {"images": data()["images"].reshape(BATCH, -1)}
  state = jax.eval_shape(training.create)
  arguments = state, rows, training.settings, indices
  lowering = jax.export.export(jax.jit(training.dispatch), platforms=["tpu"])
  assert lowering(*arguments).platforms == ("tpu",)


@hypothesis.settings(max_examples=3, **COMMON)
@hypothesis.given(fields=COMBINATIONS)
def test_combinations(fields):
  check(fields)


@pytest.mark.slow
@hypothesis.settings(max_examples=30, **COMMON)
@hypothesis.given(fields=COMBINATIONS)
def test_many_combinations(fields):
  check(fields)
