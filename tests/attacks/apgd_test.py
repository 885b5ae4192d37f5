"""APGD against numbers of the original, auto-attack's `attack_single_run`.

golden/apgd.npz: a perceptron, six images, starts, and for each norm and
objective what the original computes in float64: all step sizes, every 20th
iterate, best value, adversarial images; `stable` marks examples of which no
iterate moves by 1e-12 when the start moves by 1e-15 (in L2, the DLR losses are
chaotic where two of their logits are equal).
"""

import pathlib

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ram_jax import losses
from ram_jax.attacks import apgd
from ram_jax.attacks.objectives import OBJECTIVES
from ram_jax.attacks.targets import by_logit
from tests.attacks.pgd_test import Perceptron, batch, distance, perceptron
from tests.attacks.toy import START, STEP, search

pytestmark = pytest.mark.usefixtures("quick_compilation")
GOLDEN = pathlib.Path(__file__).parent / "golden" / "apgd.npz"
NAMES = (*OBJECTIVES, apgd.TARGETED)
EVERY = [(norm, name) for norm in ("l2", "linf") for name in NAMES]
# The original has no such objective.
ORIGINAL = [case for case in EVERY if case[1] != "margin"]


@jax.jit
def start_at(attack, points, images, labels, targets, model):
  """The state at given points instead of random ones."""
  keys = jax.random.split(jax.random.key(0), len(images))
  state = START(attack, keys, images, labels, targets, model)
  now, wrong = attack._evaluate(points, state.batch, model)
  now = {"now": now, "peak": now, "previous": points, "best": points}
  return state.replace(found=wrong, checked_value=now["now"].value, **now)


def correct_batch(model, count=32):
  """Keys, images, and the model's own predictions as labels."""
  keys, images, _ = batch(count)
  return keys, images, jnp.argmax(model(images), axis=-1)


@pytest.mark.parametrize(("norm", "name"), ORIGINAL)
def test_equals_the_original_step_by_step(x64, norm, name):
  golden = np.load(GOLDEN)
  part = {
    key.removeprefix(f"{norm}_{name}_"): golden[key]
    for key in golden
    if key.startswith(f"{norm}_{name}_")
  }
  model = Perceptron(*(jnp.asarray(golden[key]) for key in ("first", "second")))
  attack = apgd.Apgd(
    float(golden[f"{norm}_epsilon"]), 100, norm, objective=name
  )
  arguments = [golden[k] for k in ("images", "labels", "targets")]
  state = start_at(attack, golden[f"{norm}_start"], *arguments, model)
  stable = part["stable"]
  assert stable.sum() >= 4
  for i, size in enumerate(part["step_sizes"]):
    np.testing.assert_array_equal(state.step_size[stable], size[stable])
    if i % 20 == 19:
      expected = part["iterates"][i // 20]
      np.testing.assert_allclose(
        state.now.images[stable], expected[stable], rtol=0, atol=1e-9
      )
    assert not attack.exhausted(state).any()
    state = STEP(attack, state, model)
  assert attack.exhausted(state).all()
  np.testing.assert_array_equal(attack.found(state), part["found"])
  for actual, reference in (
    (state.peak.value, part["best_value"]),
    (state.best, part["adversarial"]),
  ):
    np.testing.assert_allclose(actual[stable], reference[stable], 1e-9, 1e-9)
  kept = np.where(
    part["found"][:, None, None, None], state.best, golden["images"]
  )
  np.testing.assert_array_equal(attack.images(state), kept)


def test_windows_of_100_steps():
  ends = np.flatnonzero(apgd._windows(100)) + 1
  assert ends.tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
  for steps in (1, 2, 7, 50, 1000):
    lengths = apgd._windows(steps)
    ends = np.flatnonzero(lengths) + 1
    assert np.diff([0, *ends]).tolist() == lengths[lengths > 0].tolist()


@pytest.mark.parametrize(("norm", "name"), EVERY)
@hypothesis.settings(
  max_examples=10, deadline=None, database=None, derandomize=True
)
@hypothesis.given(
  epsilon=st.floats(0, 2),
  pixels=st.sampled_from([0.0, 0.3, 1.0, None]),
  scale=st.sampled_from([0.0, 1.0, 1e3, np.inf]),
)
def test_in_the_ball_in_range_and_never_below_the_best(
  norm, name, epsilon, pixels, scale
):
  model = perceptron(48, hidden=8, classes=5, scale=scale if scale else 1.0)
  model = model.replace(first=model.first * bool(scale))
  keys, images, labels = correct_batch(model, 8)
  images = images if pixels is None else jnp.full_like(images, pixels)
  attack = apgd.Apgd(epsilon, 4, norm, objective=name)
  state = START(attack, keys, images, labels, (labels + 1) % 5, model)
  peak = state.peak.value
  for _ in range(4):
    state = STEP(attack, state, model)
    for x in (state.now.images, attack.images(state)):
      far = distance(norm, x, images)
      assert (far <= epsilon * (1 + 1e-6)).all()
      assert x.min() >= 0 and x.max() <= 1
    assert not (state.peak.value < peak).any()
    peak = state.peak.value
  right = losses.correct(model(attack.images(state)), labels)
  np.testing.assert_array_equal(right, ~attack.found(state))


@pytest.mark.parametrize(
  "norm", ["l2", pytest.param("linf", marks=pytest.mark.slow)]
)
def test_further_targets_find_more(norm):
  # Logits of small weights hardly move, the second largest one or not.
  model = perceptron(48, classes=12)
  model = model.replace(first=model.first * jnp.linspace(0.01, 2, 12) ** 2)
  keys, images, labels = correct_batch(model, 64)
  labels = labels.at[0].set((labels[0] + 1) % 12)
  epsilon = {"l2": 1.0, "linf": 0.15}[norm]
  attack = apgd.Apgd(epsilon, 10, norm, objective="targeted_dlr")
  ranked = by_logit(model(images), labels)[:, :9]
  adversarial = search(attack, keys, images, labels, model, ranked)
  found = ~losses.correct(model(adversarial), labels)
  np.testing.assert_array_equal(adversarial[0], images[0])
  changed = (adversarial != images).any((1, 2, 3))
  np.testing.assert_array_equal(changed[1:], found[1:])
  assert (distance(norm, adversarial, images) <= epsilon * (1 + 1e-6)).all()
  moved = search(attack, keys, images, labels, model, ranked[:, :1])
  first = ~losses.correct(model(moved), labels)
  assert 1 < first.sum() < found.sum() < 64


def test_saturated_logits_defeat_only_cross_entropy():
  robust = {}
  for scale in (1.0, 1000.0):
    model = perceptron(48, hidden=16, classes=5, scale=scale)
    keys, images, labels = correct_batch(model, 64)
    ranked = by_logit(model(images), labels)
    for name in ("cross_entropy", "dlr", "targeted_dlr"):
      attack = apgd.Apgd(0.4, 20, objective=name)
      aims = ranked if name == apgd.TARGETED else None
      moved = search(attack, keys, images, labels, model, aims)
      robust[name, scale] = int(losses.correct(model(moved), labels).sum())
  for name in ("dlr", "targeted_dlr"):
    assert abs(robust[name, 1000.0] - robust[name, 1.0]) <= 1
  small = robust["cross_entropy", 1.0]
  assert small < 32
  assert robust["cross_entropy", 1000.0] > small + 16


def test_nan_gradients():
  model = Perceptron(jnp.full((48, 5), jnp.nan))
  keys, images, _ = batch(8)
  labels = jnp.zeros(8, int)
  attack = apgd.Apgd(0.5, steps=3)
  state = START(attack, keys, images, labels, labels, model)
  state = STEP(attack, STEP(attack, state, model), model)
  assert np.isfinite(attack.images(state)).all()
  assert attack.found(state).all()


@pytest.fixture
def optimized(quick_compilation):
  """Compiles as users do, because optimizations change rounding."""
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)


SLOW = pytest.param("linf", marks=pytest.mark.slow)  # no branch of its own


@pytest.mark.parametrize("norm", ["l2", SLOW])
def test_results_are_bit_identical_in_any_batch(optimized, norm):
  model = perceptron(192, hidden=8, classes=5)
  keys = jax.random.split(jax.random.key(0), 24)
  images = jnp.asarray(
    np.random.default_rng(0).uniform(size=(24, 8, 8, 3)), jnp.float32
  )
  labels = jnp.argmax(model(images), axis=-1)
  attack = apgd.Apgd(0.1, 30, norm, objective="targeted_dlr")

  def run(rows, steps, state=None):
    if state is None:
      state = START(
        attack,
        keys[rows],
        images[rows],
        labels[rows],
        (labels[rows] + 1) % 5,
        model,
      )
    for _ in range(steps):
      state = STEP(attack, state, model)
    return state

  whole = run(np.arange(24), 30)
  # Eight that start late join eight that are under way.
  early = run(np.arange(8), 10)
  late = run(np.arange(8, 16), 0)
  both = jax.tree.map(lambda *x: jnp.concatenate(x), early, late)
  both = run(None, 20, both)
  for actual, reference in zip(
    jax.tree.leaves(both), jax.tree.leaves(whole), strict=True
  ):
    np.testing.assert_array_equal(actual[:8], reference[:8])
  both = run(None, 10, both)
  for actual, reference in zip(
    jax.tree.leaves(both), jax.tree.leaves(whole), strict=True
  ):
    np.testing.assert_array_equal(actual[8:], reference[8:16])


def test_x64_leaves_nothing_in_single_precision(x64):
  keys, images, labels = batch()
  for norm, name in EVERY:
    attack = apgd.Apgd(0.5, 3, norm, objective=name)
    model = perceptron(48, hidden=8, classes=5)
    text = jax.make_jaxpr(search)(attack, keys, images, labels, model)
    assert "f32[" not in str(text)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"epsilon": -0.5}, "epsilon is -0.5"),
    ({"objective": "kl"}, "objective is 'kl': give cross_entropy or dlr"),
    ({"norm": "l1"}, "norm is 'l1'"),
    ({"steps": 0}, "steps is 0: give an integer"),
  ],
)
def test_invalid_fields(fields, message):
  with pytest.raises(ValueError, match=message):
    apgd.Apgd(**{"epsilon": 1.0, **fields})
