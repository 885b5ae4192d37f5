"""AutoAttack: the pool's results are the attacks' own, whatever the batches."""

import dataclasses
import functools
import hashlib
import json
import random

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import ram_jax
from configs import default
from ram_jax import keys as keys_lib
from ram_jax import parallel
from ram_jax.attacks.targets import by_logit
from ram_jax.contracts import Note
from ram_jax.evaluation import autoattack, loop, pool, suite
from ram_jax.evaluation.cache import Parts
from ram_jax.runs.signals import Stop
from tests import found
from tests.attacks import resnet2b, toy
from tests.evaluation.evaluators_test import Network

pytestmark = pytest.mark.usefixtures("quick_compilation")
SIZE, CLASSES, EPSILON = 24, 5, 0.1


@pytest.fixture(scope="module")
def network():
  rng = np.random.default_rng(1)
  first = jnp.asarray(rng.normal(size=(108, 16)) / 4, jnp.float32)
  second = jnp.asarray(rng.normal(size=(16, CLASSES)), jnp.float32)
  return Network(first, second)


@pytest.fixture(scope="module")
def data(network):
  rng = np.random.default_rng(2)
  images = rng.integers(0, 256, (SIZE, 6, 6, 3), np.uint8)
  pixels = images.astype(np.float32) / 255
  labels = np.array(jnp.argmax(network(jnp.asarray(pixels)), -1), np.int32)
  labels[:3] = (labels[:3] + 1) % CLASSES  # three wrong ones
  return images, pixels, labels


def attacked(name, network, data, size):
  """The pool's outcome of one attack on the correct images."""
  _, pixels, labels = data
  attack = suite.ATTACKS[name].make(norm="l2", epsilon=EPSILON, steps=5)
  order = np.argsort(-np.asarray(network(jnp.asarray(pixels))), -1)[:, 1:]
  stage = suite.ATTACKS[name]
  targets = order[3:, : stage.targets]
  if not stage.targets:
    targets = np.tile(np.arange(stage.restarts), (SIZE - 3, 1))
  batch = {
    "images": pixels[3:],
    "labels": labels[3:],
    "targets": targets.astype(np.int32),
    "positions": np.arange(3, SIZE, dtype=np.int32),
  }
  model = parallel.replicate(network)
  key = jax.random.key(0)
  return attack, pool.Pool(attack, model, batch, key, size).run()


@pytest.mark.parametrize(
  "name",
  [
    pytest.param("apgd-ce", marks=pytest.mark.slow),
    "apgd-t",
    "fab-t",
    pytest.param("fab-5", marks=pytest.mark.slow),
    "square",
  ],
)
def test_pool_gives_the_same_in_any_batch(network, data, name):
  attack, one = attacked(name, network, data, 8)
  _, other = attacked(name, network, data, 16)
  np.testing.assert_array_equal(one.success, other.success)
  # Fewer than 8 images per device round differently with some compilers.
  np.testing.assert_allclose(one.images, other.images, atol=1e-5)
  assert abs(one.image_steps - other.image_steps) <= 5
  _, pixels, labels = data
  moved = np.any(one.images != pixels[3:], axis=(1, 2, 3))
  np.testing.assert_array_equal(moved, one.success)
  logits = network(jnp.asarray(one.images))
  right = np.argmax(logits, -1) == labels[3:]
  np.testing.assert_array_equal(right, ~one.success)
  delta = (one.images - pixels[3:]).reshape(SIZE - 3, -1)
  assert np.linalg.norm(delta, axis=1).max() <= EPSILON * (1 + 1e-6)
  # Some fall and some do not, and those that do not have had all their steps.
  stage = suite.ATTACKS[name]
  runs = min(stage.targets, CLASSES - 1) or stage.restarts
  left = int(np.sum(~one.success))
  if name != "square":  # with as few queries it finds hardly any
    assert 0 < left < SIZE - 3
  assert one.image_steps >= left * runs * attack.steps


def test_several_steps_per_dispatch_find_the_same(network, data, monkeypatch):
  """As on accelerators."""
  _, one = attacked("apgd-ce", network, data, 8)
  monkeypatch.setattr(pool, "STEPS", 3)
  monkeypatch.setattr(pool, "_one", pool._several)
  _, other = attacked("apgd-ce", network, data, 8)
  np.testing.assert_array_equal(one.success, other.success)
  np.testing.assert_allclose(one.images, other.images, atol=1e-5)
  assert one.image_steps == other.image_steps


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "fab-t", "square"])
def test_pool_on_four_devices_is_the_attack_on_one(network, data, name):
  attack, pooled = attacked(name, network, data, 8)
  _, pixels, labels = data
  keys = keys_lib.per_example(
    jax.random.key(0), jnp.arange(3, SIZE, dtype=jnp.int32)
  )
  images, classes = jnp.asarray(pixels[3:]), jnp.asarray(labels[3:])
  ranked = by_logit(network(images), classes)
  ranked = ranked if suite.ATTACKS[name].targets else None
  direct = toy.search(attack, keys, images, classes, network, ranked)
  # The images may differ: the attack goes on after a success, the pool stops.
  changed = np.any(direct != pixels[3:], axis=(1, 2, 3))
  np.testing.assert_array_equal(pooled.success, changed)


VERSION, VERSIONS = "apgd-ce+apgd-t", suite.VERSIONS


def evaluated(network, data, cache=lambda _, f: f(), size=8):
  images, _, labels = data
  built = autoattack.Evaluator(VERSION, "l2", (EPSILON,), 0, size)
  model = parallel.replicate(network)
  batch = found.batch(images, labels)
  return list(built.results(model, batch, jax.random.key(1), cache))


def correct(parts):
  return [p.correct.tolist() for p in parts if hasattr(p, "correct")]


def test_rows_of_the_stages_and_their_worst_case(network, data, monkeypatch):
  images, _, labels = data
  built = autoattack.Evaluator(VERSION, "l2", (EPSILON,), 0, 8)
  run, _ = found.collect(built, parallel.replicate(network), images, labels)
  first, second = found.rows(
    run, "autoattack_stage", norm="l2", epsilon=EPSILON
  )
  assert first.settings["attack"] == "apgd-ce" and first.settings["stage"] == 1
  assert not first.correct[:3].any()  # wrong without any attack
  assert not (second.correct & ~first.correct).any()
  whole = found.row(run, "autoattack", norm="l2", epsilon=EPSILON)
  assert whole.settings["attack"] == f"AutoAttack-{VERSION}"
  np.testing.assert_array_equal(whole.correct, second.correct)
  assert first.values["forwards"] == first.values["backwards"] > 0
  assert run.notes == ()
  # It is what the function for any model finds, whose images are adversarial.
  result = ram_jax.autoattack(
    network,
    data[1],
    labels,
    epsilon=EPSILON,
    version=VERSION,
    batch_size=8,
  )
  np.testing.assert_array_equal(result.robust, whole.correct)
  np.testing.assert_array_equal(result.stages["apgd-ce"], first.correct)
  right = np.argmax(network(jnp.asarray(result.images)), -1) == labels
  np.testing.assert_array_equal(right, result.robust)
  assert result.clean.sum() == SIZE - 3 and result.warnings == ()


@pytest.mark.slow
def test_evaluation_interrupted_at_10_random_moments(
  network, data, monkeypatch, tmp_path
):
  monkeypatch.setattr(suite, "UNIT", 1)
  step, left = pool.Pool.step, [np.inf]

  def interrupted(self):
    left[0] -= 1
    if left[0] < 0:
      raise KeyboardInterrupt
    return step(self)

  monkeypatch.setattr(pool.Pool, "step", interrupted)
  whole, rng, interruptions = evaluated(network, data), random.Random(0), 0
  while interruptions < 10:
    left[0] = rng.randrange(60)
    # As after a kill, everything is read from the file again.
    parts = Parts(tmp_path / "parts.jsonl", Stop())
    try:
      resumed = evaluated(network, data, parts.cache_for("same", ""))
    except KeyboardInterrupt:
      interruptions += 1
    else:
      assert correct(resumed) == correct(whole)
      (tmp_path / "parts.jsonl").unlink()
  left[0] = np.inf
  resumed = evaluated(network, data, parts.cache_for("same", ""))
  assert [p for p in resumed if isinstance(p, Note)] == []
  assert correct(resumed) == correct(whole)
  assert [dict(p.values) for p in resumed] == [dict(p.values) for p in whole]


def shortened(monkeypatch, steps):
  few = {
    name: dataclasses.replace(
      stage, make=functools.partial(stage.make, steps=steps)
    )
    for name, stage in suite.ATTACKS.items()
  }
  monkeypatch.setattr(suite, "ATTACKS", few)


@pytest.mark.slow
def test_restarts_are_passes(network, data, monkeypatch):
  shortened(monkeypatch, 2)
  restarted = "apgd-ce-5", "fab-5"
  assert set(restarted) <= set(VERSIONS["plus"])
  built = autoattack.Evaluator("+".join(restarted), "l2", (0.01,), 0, 8)
  images, _, labels = data
  run, _ = found.collect(built, parallel.replicate(network), images, labels)
  stages = found.rows(run, "autoattack_stage", norm="l2", epsilon=0.01)
  assert tuple(row.settings["attack"] for row in stages) == restarted
  steps = 5 * 2 * (SIZE - 3)  # of five runs; hardly any image is found so near
  assert all(row.correct_count >= SIZE - 4 for row in stages)
  for row, forwards, backwards in zip(
    stages, (1, 3), (1, 1 + CLASSES), strict=True
  ):
    for value, passes in (("forwards", forwards), ("backwards", backwards)):
      assert 0.8 < row.values[value] / (steps * passes) <= 1


def test_saved_images_are_those_of_the_rows(network, data, tmp_path):
  images, _, labels = data
  model = parallel.replicate(network)

  def evaluate(folder):
    built = autoattack.Evaluator(
      "apgd-ce", "l2", (EPSILON,), 20, 8, save_to=str(folder)
    )
    built.check(found.batch(images, labels))
    return found.collect(built, model, images, labels)[0]

  run = evaluate(tmp_path / "new")
  row = found.row(run, "autoattack", norm="l2", epsilon=EPSILON)
  manifest = json.loads((tmp_path / "new" / "manifest.json").read_text())
  name = f"apgd-ce_l2_{EPSILON}.npy"
  assert manifest["files"].keys() == {"labels.npy", "clean.npy", name}
  for file, entry in manifest["files"].items():
    path = tmp_path / "new" / file
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry["sha256"] == digest and entry["shape"][0] == 20
  moved = np.load(tmp_path / "new" / name)
  saved_labels = np.load(tmp_path / "new" / "labels.npy")
  assert moved.dtype == np.float32 and moved.shape == (20, 6, 6, 3)
  right = np.argmax(network(jnp.asarray(moved)), -1) == saved_labels
  np.testing.assert_array_equal(right, row.correct)
  assert manifest["files"][name]["correct_count"] == row.correct_count
  assert moved.min() >= 0 and moved.max() <= 1
  delta = moved.astype(np.float64) - images[:20] / 255
  lengths = np.linalg.norm(delta.reshape(20, -1), axis=1)
  assert lengths.max() <= EPSILON * (1 + 1e-6) and lengths.max() > 0
  with pytest.raises(ValueError, match="new is not empty: choose a new folder"):
    evaluate(tmp_path / "new")
  (tmp_path / "link").symlink_to(tmp_path / "empty")
  with pytest.raises(
    ValueError, match="is a link or a mount point: give a new"
  ):
    evaluate(tmp_path / "link")
  one = autoattack.Evaluator("fast", "l2", (), 0, 8, str(tmp_path / "other"))
  with pytest.raises(ValueError, match="no adversarial images to save"):
    one.check(found.batch(images, labels))


def test_images_are_saved_by_one_evaluator(data):
  config = default.get_config()
  config.evaluate.batch_size, config.evaluators = 8, {}
  with pytest.raises(ValueError, match="one autoattack evaluator, .* has 0"):
    loop.build(config, None, (data[0], data[2]), save_adversarial="new")


def test_no_epsilon_is_no_result(network, data):
  images, _, labels = data
  built = autoattack.Evaluator("standard", "l2", (), 0, 8)
  run, _ = found.collect(built, network, images, labels)
  assert run.rows == run.notes == ()


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    (
      {"version": "best"},
      "version is 'best': give standard, fast, plus, or some of",
    ),
    ({"norm": "l1"}, "norm is 'l1': give l2 or linf"),
    ({"epsilons": (0.0,)}, "finite numbers above 0"),
    ({"images": -1}, "images is -1"),
  ],
)
def test_bad_fields(fields, words):
  good = {"version": "standard", "norm": "l2", "epsilons": (1.0,), "images": 0}
  with pytest.raises(ValueError, match=words):
    autoattack.Evaluator(**good | fields, batch_size=8)


def call(network, data, **options):
  _, pixels, labels = data
  options = {
    "version": "apgd-ce",
    "batch_size": 8,
    "epsilon": EPSILON,
  } | options
  images = options.pop("images", pixels)
  return ram_jax.autoattack(
    network, images, options.pop("labels", labels), **options
  )


def test_input_of_another_form(network, data):
  images, pixels, labels = data
  for words, options in (
    ("images are uint8", {"images": images}),
    (r"not in \[0,1\]", {"images": 2 * pixels}),
    ("one integer per image", {"labels": labels[1:]}),
    ("one integer per image", {"labels": np.eye(SIZE)}),
    ("labels are 0 to 9.* 5 classes", {"labels": np.arange(SIZE) % 10}),
    ("epsilon is 8, but pixels", {"norm": "linf", "epsilon": 8}),
    ("batch_size is 0", {"batch_size": 0}),
  ):
    with pytest.raises(ValueError, match=words):
      call(network, data, **options)
  with pytest.raises(ValueError, match=r"it must return logits \[2, K\]"):
    call(lambda images: network(images)[:, 0], data)
  moved = pixels.transpose(0, 3, 1, 2)
  found = call(lambda x: network(x.transpose(0, 2, 3, 1)), data, images=moved)
  assert "probably [N,C,H,W]" in found.warnings[-1]


def test_a_function_whose_weights_change_is_compiled_again(network, data):
  class Trainer:
    sign = 1.0

    def logits(self, images):
      return self.sign * network(images)

  trainer = Trainer()
  first = call(trainer.logits, data)
  trainer.sign = -1.0
  second = call(trainer.logits, data)
  assert first.clean.mean() > 0.8 and second.clean.mean() < 0.2


def test_warnings(network, data):
  def probabilities(images):
    return jax.nn.softmax(network(images))

  def saturated(images):
    return jnp.round(network(images))

  def noisy(images):
    noise = jax.random.normal(jax.random.key(0), (len(images), CLASSES))
    return network(images) + noise

  (text,) = call(probabilities, data).warnings
  assert "without softmax" in text
  (text,) = call(saturated, data).warnings
  assert f"of {SIZE} of {SIZE} clean images is zero" in text
  text, *_ = call(noisy, data).warnings
  assert "the network is not deterministic" in text


def test_square_that_finds_more_is_a_warning(network, data, monkeypatch):
  shortened(monkeypatch, 50)

  def masked(images):  # correct gradients of nothing
    return jax.lax.stop_gradient(network(images))

  version = "apgd-ce+square"
  result = call(masked, data, version=version, epsilon=1.0)
  text = result.warnings[-1]
  assert "Square, which uses no gradients, succeeds on" in text
  assert "at epsilon 1" in text and not result.robust.all()


def test_doubles_are_attacked_as_floats(network, data):
  """Else, rounding of the center would put images outside a small ball."""
  doubles = np.float64(data[0]) / 255
  options = {"norm": "linf", "epsilon": 2 / 255}
  one = call(network, data, **options)
  other = call(network, data, images=doubles, **options)
  assert other.images.dtype == np.float32
  assert 0 < other.robust.sum() < other.clean.sum()
  np.testing.assert_array_equal(one.robust, other.robust)


def test_logits_that_are_not_finite(network, data):
  images, _, labels = data

  @jax.tree_util.Partial
  def broken(images):  # NaN where the first pixel is bright
    logits = network(images)
    return jnp.where(images[:, 0, 0, :1] > 0.5, jnp.nan, logits)

  built = autoattack.Evaluator("apgd-ce", "l2", (0.2,), 0, 8)
  run, _ = found.collect(built, parallel.replicate(broken), images, labels)
  row = found.row(run, "autoattack", norm="l2", epsilon=0.2)
  bright = images[:, 0, 0, 0] > 127
  assert row.values["not_finite"] >= bright.sum() > 0


@pytest.mark.parametrize("size", [4, 8])
def test_pool_with_one_slot_per_device(network, data, size):
  result = call(network, data, version="apgd-ce", batch_size=size)
  np.testing.assert_array_equal(result.robust, call(network, data).robust)


def test_saturated_logits_are_noticed_and_attacked(network, data):
  """Logits times 1,000: the gradient of the cross-entropy underflows."""
  version, steep = (
    "apgd-ce+apgd-t",
    Network(network.first, 1e3 * network.second),
  )
  plain = call(network, data, version=version)
  result = call(steep, data, version=version)
  found = plain.clean & ~plain.stages["apgd-ce"]
  missed = found & result.stages["apgd-ce"]
  assert found.sum() > 5 and missed.sum() > found.sum() / 2
  assert np.sum(result.robust != plain.robust) <= 1
  (text,) = result.warnings
  assert "the gradient of the cross-entropy of" in text and "is zero" in text


def linen(images):
  model = nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(CLASSES)])
  variables = model.init(jax.random.key(0), images)
  return jax.tree_util.Partial(lambda v, x: model.apply(v, x), variables)


def nnx_model(images):
  model = nnx.Linear(images[0].size, CLASSES, rngs=nnx.Rngs(0))
  graph, state = nnx.split(model)
  return jax.tree_util.Partial(
    lambda s, x: nnx.merge(graph, s)(x.reshape(len(x), -1)), state
  )


def equinox(images):
  model = eqx.nn.MLP(images[0].size, CLASSES, 8, 1, key=jax.random.key(0))
  arrays, static = eqx.partition(model, eqx.is_array)
  return jax.tree_util.Partial(
    lambda a, x: jax.vmap(eqx.combine(a, static))(x.reshape(len(x), -1)),
    arrays,
  )


@pytest.mark.parametrize("build", [linen, nnx_model, equinox])
def test_models_of_other_libraries(data, build):
  """As in docs/autoattack.md."""
  model = build(jnp.asarray(data[1]))
  labels = np.asarray(jnp.argmax(model(jnp.asarray(data[1])), -1))
  result = call(model, data, labels=labels, epsilon=3.0)
  assert result.clean.all() and not result.robust.any()


def test_few_classes(data):
  def two(images):
    mean = jnp.mean(images, axis=(1, 2, 3)) - 0.5
    return jnp.stack([-mean, mean], axis=-1)

  labels = (data[1].mean((1, 2, 3)) > 0.5).astype(int)
  with pytest.raises(ValueError, match="apgd-t needs at least 4 classes.* 2"):
    call(two, data, labels=labels, version="standard")


@pytest.mark.slow
@pytest.mark.parametrize(
  ("case", "norm", "epsilon"),
  [("resnet2b_l2_0.25", "l2", 0.25), ("resnet2b_linf_2_255", "linf", 2 / 255)],
)
def test_standard_is_the_original(shared_data, case, norm, epsilon):
  model, images, labels, results = resnet2b.load(shared_data, case)
  images, labels = np.asarray(images), np.asarray(labels)
  result = ram_jax.autoattack(
    model, images, labels, norm=norm, epsilon=epsilon, batch_size=64
  )
  limits = {"apgd-ce": 1, "apgd-t": 1, "fab-t": 1, "square": 1}
  for name, limit in limits.items():
    original = results[name.replace("-", "_")]
    assert np.sum(result.stages[name] != original) <= limit, name
