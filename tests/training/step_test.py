"""The training step is the same on any devices, with loops or unrolled.

Equalities are shown in float64, where rounding cannot hide a wrong term; in
float32 rounding itself grows through the step (stated at the one such test).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import adversarial, robust_augmix, standard
from ram_jax import experiment, plugins
from ram_jax import keys as keys_lib
from ram_jax.data import digits
from ram_jax.models.classifier import Classifier
from ram_jax.training import loop as train

pytestmark = pytest.mark.usefixtures("tiny_network", "quick_compilation")

BATCH, STEPS, SIDE = 8, 2, 8
KEY = jax.random.key(7)
# In place of AugMix, whose compilation takes most of the time.
BASIC = {"name": "basic", "padding": 0, "flip": True}


@pytest.fixture(scope="module")
def data():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (4 * BATCH, SIDE, SIDE, 3), np.uint8)
  labels = rng.integers(0, 10, 4 * BATCH, np.int32)
  return {"images": images, "labels": labels}


def small(method, augment=BASIC, **overrides):
  config = method.get_config()
  config.train.batch_size = BATCH
  config.train.epochs = 3
  if "attack" in config.method:
    config.method.attack.steps = 1
  if augment and "augment" in config.method:
    with config.unlocked():
      config.method.augment = augment
  config.update_from_flattened_dict(overrides)
  return experiment.resolve(config)


def steps(
  data,
  *,
  method=robust_augmix,
  devices=1,
  per_dispatch=1,
  count=STEPS,
  **overrides,
):
  """Takes `count` steps and returns state and metrics on the host."""
  config = small(method, **overrides)
  training = train.build(config, digits.Source(), data["images"].shape)
  state = jax.tree.map(np.asarray, training.create())
  settings = training.settings.replace(key=KEY)
  order = np.arange(count * BATCH).reshape(count, BATCH)
  metrics = []
  for start in range(0, count, per_dispatch):
    indices = order[start : start + per_dispatch]
    shards = np.stack(np.split(indices, devices, axis=1))
    state, row = training.dispatch(state, data, settings, shards)
    jax.block_until_ready(row)
    state = jax.tree.map(np.asarray, state)
    metrics.append(jax.tree.map(np.asarray, row))
  return state, jax.tree.map(lambda *x: np.concatenate(x), *metrics)


def distance(a, b):
  """Largest relative distance of two trees, one norm per tree."""
  flat = [
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (a, b)
  ]
  return np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])


def assert_same(a, b, tolerance=1e-9):
  for part in ("params", "batch_stats", "opt_state"):
    assert distance(getattr(a, part), getattr(b, part)) <= tolerance, part


@pytest.fixture(scope="module")
def reference(data):
  with jax.enable_x64(True):
    return steps(data)


def same_as(reference, found):
  assert_same(found[0], reference[0])
  for name, values in reference[1].items():
    np.testing.assert_allclose(found[1][name], values, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(
  "arrangement",
  [
    {"devices": 4},
    {"per_dispatch": STEPS},
    {"train.unroll": False, "per_dispatch": STEPS},
  ],
  ids=["4 devices", "2 steps in a dispatch", "loops instead of repeats"],
)
def test_devices_and_loops_do_not_change_the_step(data, reference, arrangement):
  with jax.enable_x64(True):
    found = steps(data, **arrangement)
  same_as(reference, found)


@pytest.mark.slow
def test_augmix_on_4_devices_does_not_change_the_step(data):
  with jax.enable_x64(True):
    one, four = (
      steps(data, augment=None, count=1, devices=devices) for devices in (1, 4)
    )
  same_as(one, four)


def test_steps_equal_a_plain_implementation(data, reference):
  """Three forwards one after another, JSD by its definition, SGD by hand."""
  config = small(robust_augmix)
  with jax.enable_x64(True):
    training = train.build(config, digits.Source(), data["images"].shape)
    module = plugins.build_model(config, digits.Source(), "float32", None)
    method = plugins.build("method", config.method, unroll=True)
    crop_flip = plugins.build("augment", config.augment)

    @jax.jit
    def draw(step, params, stats, images, labels):
      keys = keys_lib.per_example(
        jax.random.fold_in(KEY, step), np.arange(BATCH)
      )
      crop_keys, view_keys = keys_lib.split(keys)
      images = crop_flip(crop_keys, images.astype(float) / 255)
      batch = {"images": images, "labels": labels}
      views, _ = method.views(
        view_keys, batch, Classifier(params, stats, module)
      )
      return [images for _, images in views]

    @jax.jit
    def gradient(params, stats, views, labels):
      def loss(params, stats):
        probabilities = []
        for view in views:
          variables = {"params": params, "batch_stats": stats}
          logits, update = module.apply(
            variables, view, True, mutable=["batch_stats"]
          )
          stats = update["batch_stats"]
          odds = jnp.exp(logits)
          probabilities.append(odds / odds.sum(-1, keepdims=True))
        mixture = sum(probabilities) / 3
        divergence = sum(
          (p * jnp.log(p / mixture)).sum(-1) for p in probabilities
        )
        likelihood = probabilities[0][jnp.arange(BATCH), labels]
        return (12 * divergence / 3 - jnp.log(likelihood)).mean(), stats

      return jax.grad(loss, has_aux=True)(params, stats)

    state = training.create()
    params, stats = state.params, state.batch_stats
    momentum = jax.tree.map(jnp.zeros_like, params)
    for step in range(STEPS):
      rows = slice(step * BATCH, (step + 1) * BATCH)
      images, labels = data["images"][rows], data["labels"][rows]
      views = draw(step, params, stats, images, labels)
      grad, stats = gradient(params, stats, views, labels)
      # torch.optim.SGD with Nesterov momentum; 2 steps are within an epoch, so
      # the learning rate is the first one.
      grad = jax.tree.map(lambda g, p: g + 5e-4 * p, grad, params)
      momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grad)
      params = jax.tree.map(
        lambda p, g, m: p - 0.1 * (g + 0.9 * m), params, grad, momentum
      )
  actual = reference[0]
  assert distance(params, actual.params) <= 1e-9
  assert distance(stats, actual.batch_stats) <= 1e-9
  expected = np.concatenate([np.ravel(m) for m in jax.tree.leaves(momentum)])
  trace = [x for x in jax.tree.leaves(actual.opt_state) if np.ndim(x)]
  trace = np.concatenate([np.ravel(x) for x in trace])
  assert np.linalg.norm(expected - trace) <= 1e-9 * np.linalg.norm(trace)


def test_attack_on_batch_statistics_is_the_same_on_4_devices(data):
  option = {"batch_norm.attack": "batch"}
  with jax.enable_x64(True):
    one, four = (
      steps(data, method=adversarial, count=2, devices=devices, **option)[0]
      for devices in (1, 4)
    )
  assert_same(four, one)


@pytest.mark.slow
def test_mixing_is_the_same_on_4_devices(data):
  option = {"mix.name": "cutmix", "mix.alpha": 0.7}
  with jax.enable_x64(True):
    one, four = (
      steps(data, method=adversarial, count=1, devices=devices, **option)[0]
      for devices in (1, 4)
    )
  assert_same(four, one)


@pytest.mark.parametrize(
  ("method", "changes", "words"),
  [
    (robust_augmix, {}, "as robust_augmix or its attack's objective"),
    (adversarial, {"method.attack.objective": "dlr"}, "one class per image"),
  ],
)
def test_mixing_needs_methods_for_soft_labels(method, changes, words):
  with pytest.raises(ValueError, match=words):
    small(method, **{"mix.name": "mixup"}, **changes)


def test_joint_batch_norm_changes_the_step(data, reference):
  with jax.enable_x64(True):
    state, _ = steps(data, **{"batch_norm.views": "joint"})
  # Far above the 1e-9 of equal runs: the option reaches the update.
  assert distance(state.opt_state, reference[0].opt_state) > 1e-3


@pytest.fixture(scope="module")
def references(data):
  return {
    method: steps(data, method=method)[0] for method in (adversarial, standard)
  }


@pytest.mark.parametrize(
  ("method", "part", "option"),
  [
    (adversarial, "opt_state", {"batch_norm.attack": "batch"}),
    (adversarial, "opt_state", {"method.attack.start": "none"}),
    (standard, "opt_state", {"optimizer.momentum": 0.8}),
    (standard, "opt_state", {"optimizer.weight_decay": 0.1}),
    (standard, "params", {"optimizer.learning_rate": 0.05}),
    (standard, "params", {"optimizer.nesterov": False}),
    (standard, "params", {"optimizer.schedule": "cosine_step"}),
    (standard, "opt_state", {"train.label_smoothing": 0.1}),
    (standard, "opt_state", {"mix.name": "mixup"}),
    (standard, "opt_state", {"awp.gamma": 0.01}),
    (adversarial, "opt_state", {"train.epsilon_ramp": 0.5}),
    (standard, "batch_stats", {"augment.flip": False}),
    (standard, "batch_stats", {"augment.padding": 1}),
    (standard, "batch_stats", {"batch_norm.sync": False, "devices": 4}),
  ],
  ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_option_changes_the_step(data, references, method, part, option):
  state, _ = steps(data, method=method, **option)
  # Rounding alone makes 1e-5 of four devices, and nothing of one.
  least = 1e-3 if "devices" in option else 1e-5
  expected = getattr(references[method], part)
  assert distance(getattr(state, part), expected) > least


@pytest.mark.slow  # test_every_option_changes_the_step has the ramp as well
def test_epsilon_rises_from_0(data):
  fields = {"train.epsilon_ramp": 0.5}, {"method.attack.epsilon": 0.0}
  with jax.enable_x64(True):
    ramp, none = (
      steps(data, method=adversarial, count=1, **field)[0] for field in fields
    )
  assert_same(ramp, none)


# Epochs have four steps.
@pytest.mark.parametrize(
  "unroll", [pytest.param(True, marks=pytest.mark.slow), False]
)
def test_attack_steps_of_epochs(data, unroll, caplog):
  indices = np.arange(BATCH).reshape(1, 1, BATCH)

  def dispatch(training, step):
    state = training.create().replace(step=jnp.int32(step))
    settings = training.settings.replace(key=KEY)
    return training.dispatch(state, data, settings, indices)[0].params

  def build(steps, schedule=()):
    fields = {"method.attack.steps": steps, "train.attack_steps": schedule}
    config = small(adversarial, **fields, **{"train.unroll": unroll})
    return train.build(config, digits.Source(), data["images"].shape)

  with jax.enable_x64(True):
    scheduled = build(2, ((1, 1), (2, 3)))
    found = {3: dispatch(scheduled, 3)}
    with jax.log_compiles():
      caplog.clear()
      found |= {step: dispatch(scheduled, step) for step in (4, 7, 8)}
    assert "ompiling" not in caplog.text
    for steps, epoch in ((2, (3,)), (1, (4, 7)), (3, (8,))):
      training = build(steps)
      for step, params in found.items():
        difference = distance(params, dispatch(training, step))
        assert (difference < 1e-9) == (step in epoch), (steps, step)


@pytest.mark.parametrize(
  "option", [{"epsilon_ramp": 0.5}, {"attack_steps": ((0, 2),)}]
)
def test_schedules_need_an_attack(option):
  config = small(standard)
  config.train.update(option)
  with pytest.raises(ValueError, match="standard has no attack"):
    train.build(config, digits.Source(), (32, 8, 8, 3))


def test_one_step_in_float32_on_1_and_4_devices(data):
  one, four = (
    steps(data, method=adversarial, count=1, devices=devices)[0]
    for devices in (1, 4)
  )
  assert distance(four.params, one.params) <= 1e-5
  # The gradient's sum runs in another order, and ReLU kinks amplify that.
  assert distance(four.opt_state, one.opt_state) <= 1e-3


def test_step_counts_and_learns(reference):
  state, metrics = reference
  assert state.step == STEPS
  assert set(metrics) == {
    "loss",
    "cross_entropy",
    "jensen_shannon",
    "accuracy",
    "adversarial_accuracy",
    "gradient_norm",
    "parameter_norm",
    "statistics_norm",
  }
  np.testing.assert_allclose(
    metrics["loss"],
    metrics["cross_entropy"] + 12 * metrics["jensen_shannon"],
    rtol=1e-12,
  )


@pytest.mark.parametrize("name", ["loss", "learning_rate"])
def test_metrics_with_names_of_other_entries_are_rejected(
  data, monkeypatch, name
):
  method = plugins.load("method", "standard")
  loss = method.loss

  def renamed(self, logits, targets):
    value, metrics = loss(self, logits, targets)
    return value, metrics | {name: value}

  monkeypatch.setattr(method, "loss", renamed)
  with pytest.raises(ValueError, match=f"a metric called {name}, which is"):
    steps(data, method=standard, count=1)
