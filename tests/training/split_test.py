"""A split BatchNorm equals two networks that share the other weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import adversarial, robust_augmix
from ram_jax import experiment, parallel
from ram_jax.data import digits, feed
from ram_jax.models.classifier import forward_views
from ram_jax.training import loop as train
from ram_jax.training import split, state
from tests import tiny

pytestmark = pytest.mark.usefixtures("tiny_network", "quick_compilation")

BATCH = 8


@pytest.fixture(scope="module")
def data():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (BATCH, 8, 8, 3), np.uint8)
  return {"images": images, "labels": rng.integers(0, 10, BATCH, np.int32)}


def config(method=robust_augmix, **fields):
  result = method.get_config()
  result.train.batch_size, result.train.epochs = BATCH, 3
  if "augment" in result.method:
    with result.unlocked():  # AugMix takes long to compile
      result.method.augment = {"name": "basic", "padding": 2, "flip": True}
  result.update_from_flattened_dict(fields)
  return experiment.resolve(result)


def steps(config, data):
  """States of a run, on the host, before the first step and after each."""
  training = train.build(config, digits.Source(), data["images"].shape)
  now = training.create()
  yield jax.tree.map(np.asarray, now)
  placed = parallel.replicate(training.settings)
  for rows, indices in feed.dispatches(training, data, 0):
    now, _ = training.dispatch(now, rows, placed, indices)
    now = jax.tree.map(np.asarray, now)
    yield now


def assert_same(left, right, tolerance=0.0):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance),
    left,
    right,
  )


def differ(left, right):
  pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
  return any((x != y).any() for x, y in pairs)


@pytest.mark.parametrize("affine", split.AFFINE)
@pytest.mark.parametrize("views", ["adversarial", "augmented"])
def test_forward_equals_one_network_per_set(views, affine):
  chosen = split.Split(views, affine)
  module = tiny.Net()
  rng = np.random.default_rng(1)
  images = {
    name: jnp.asarray(rng.random((4, 8, 8, 3)))
    for name in ("clean", "augmix", "adversarial")
  }
  with jax.enable_x64(True):
    variables = module.init(jax.random.key(0), images["clean"], False)
    params, stats = chosen.double(variables["params"], variables["batch_stats"])
    if affine == "split":
      assert len(jax.tree.leaves(params["auxiliary"])) == 4
      params["auxiliary"] = jax.tree.map(lambda x: x + 0.5, params["auxiliary"])
    stats["auxiliary"] = jax.tree.map(lambda x: x + 1, stats["auxiliary"])

    def forward(*args):
      return forward_views(module, *args, separate=True)

    logits, new = chosen.forward(forward, params, stats, images)
    clean = ["clean"] if views == "augmented" else ["clean", "augmix"]
    groups = {"main": clean, "auxiliary": [x for x in images if x not in clean]}
    logits = dict(zip(images, logits, strict=True))
    for name, members in groups.items():
      weights = dict(variables["params"])
      if affine == "split" and name == "auxiliary":
        for i in range(2):
          norm = weights[f"BatchNorm_{i}"]
          weights[f"BatchNorm_{i}"] = {k: x + 0.5 for k, x in norm.items()}
      start = stats[name]
      expected, after = forward_views(
        module, weights, start, tuple(images[x] for x in members), separate=True
      )
      assert_same(tuple(logits[x] for x in members), expected, 1e-12)
      assert_same(new[name], after, 1e-12)


@pytest.mark.parametrize(
  "affine", [pytest.param("shared", marks=pytest.mark.slow), "split"]
)
def test_steps_update_both_sets(data, affine):
  fields = {"batch_norm.split": "adversarial", "batch_norm.affine": affine}
  fields["average.name"] = "ema"
  chosen = config(**fields)
  first, *_, last = steps(chosen, data)
  for name in split.NAMES:
    assert differ(first.batch_stats[name], last.batch_stats[name])
  assert differ(*last.batch_stats.values())
  if affine == "split":
    norms = last.params["auxiliary"]
    main = {name: last.params["main"][name] for name in norms}
    assert differ(norms, main)
  # Each set is a network that can be evaluated.
  found = {}
  for name in split.NAMES:
    with chosen.unlocked():
      chosen.evaluate.batch_norm = name
    found[name] = state.evaluated(chosen, vars(last))
    params, stats = found[name].values()
    assert set(params) == {"BatchNorm_0", "BatchNorm_1", "Conv_0", "Conv_1"} | {
      "Dense_0"
    }
    assert_same(stats, last.average["batch_stats"][name])
  assert differ(found["main"], found["auxiliary"])
  with pytest.raises(ValueError, match="lacks what this configuration needs"):
    state.evaluated(chosen, vars(last) | {"average": None})


def test_split_needs_two_kinds_of_views():
  fields = {"batch_norm.split": "adversarial"}
  with pytest.raises(ValueError, match="give none, as supported by the method"):
    config(adversarial, **fields)
  chosen = split.Split("adversarial", "shared")
  with pytest.raises(ValueError, match="this method only has adversarial"):
    chosen.forward(None, {}, {}, {"adversarial": None})


def test_reestimated_statistics_are_rejected(data):
  fields = {"batch_norm.split": "augmented", "average.name": "swa"}
  fields["average.batch_norm"] = "reestimated"
  with pytest.raises(ValueError, match="give copied or averaged if"):
    config(**fields)
