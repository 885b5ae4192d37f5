import pathlib

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import optimize

from ram_jax import losses
from ram_jax.attacks import fab
from ram_jax.attacks.targets import by_logit
from tests.attacks import resnet2b, toy
from tests.attacks.toy import ORDER, START, STEP, distance, problem, search

pytestmark = pytest.mark.usefixtures("quick_compilation")
GOLDEN = pathlib.Path(__file__).parent / "golden" / "fab.npz"
PROJECT = jax.jit(fab.project, static_argnames="norm")


def planes(rng, fraction, size=40, count=8):
  """Points, normals and values, at a fraction of what the box allows."""
  points = rng.uniform(size=(count, size))
  points[:, ::5], points[:, 1::7] = 0, 1
  normals = rng.normal(size=(count, size)) * np.exp(
    2 * rng.normal(size=(count, size))
  )
  normals[:, ::4] = 0
  signs = rng.choice([-1, 1], count)
  room = np.where(signs[:, None] * normals > 0, points, 1 - points)
  return points, normals, signs * fraction * np.sum(np.abs(normals) * room, 1)


def nearest_l2(point, normal, value):
  """Solves the KKT conditions with a root finder."""

  def delta(multiplier):
    return np.clip(-multiplier * normal, -point, 1 - point)

  limit = 2 / np.min(np.abs(normal[normal != 0]))
  multiplier = optimize.brentq(
    lambda m: normal @ delta(m) + value, -limit, limit, xtol=1e-15, maxiter=999
  )
  return delta(multiplier)


def least_linf(point, normal, value):
  """Solves a linear program for the smallest t with -t <= delta <= t."""
  size = len(point)
  eye, one = np.eye(size), np.ones((size, 1))
  found = optimize.linprog(
    np.r_[np.zeros(size), 1],
    np.block([[eye, -one], [-eye, -one]]),
    np.zeros(2 * size),
    np.r_[normal, 0][None],
    [-value],
    [*zip(-point, 1 - point, strict=True), (0, 1)],
  )
  return found.fun


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_projection_is_that_of_an_exact_solver(x64, fraction):
  points, normals, values = planes(np.random.default_rng(3), fraction)
  l2 = np.asarray(PROJECT(points, normals, values, norm="l2"))
  linf = np.asarray(PROJECT(points, normals, values, norm="linf"))
  for i, plane in enumerate(zip(points, normals, values, strict=True)):
    np.testing.assert_allclose(l2[i], nearest_l2(*plane), atol=1e-8)
    expected = least_linf(*plane)
    np.testing.assert_allclose(abs(linf[i]).max(), expected, atol=1e-8)
  for delta in (l2, linf):
    scale = np.sum(np.abs(normals), 1)
    left = np.sum(normals * delta, 1) + values
    np.testing.assert_allclose(left / scale, 0, atol=1e-15)
    moved = points + delta
    assert moved.min() >= -1e-15 and moved.max() <= 1 + 1e-15
    assert (delta[normals == 0] == 0).all()


@pytest.mark.parametrize("norm", ORDER)
def test_projection_onto_an_unreachable_plane_is_a_corner(x64, norm):
  points, normals, values = planes(np.random.default_rng(4), 1.5)
  delta = PROJECT(points, normals, values, norm=norm)
  corner = np.where(values[:, None] * normals > 0, 0, 1)
  expected = np.where(normals == 0, 0, corner - points)
  np.testing.assert_allclose(delta, expected, atol=1e-15)


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_projection_at_any_scale(norm, scale):
  points, normals, values = map(
    jnp.asarray, planes(np.random.default_rng(5), 0.5)
  )
  expected = PROJECT(points, normals, values, norm=norm)
  ours = PROJECT(points, normals * scale, values * scale, norm=norm)
  np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize(
  ("normal", "value"), [(0.0, 1.0), (1e-42, 1.0), (1.0, np.nan), (0.0, np.nan)]
)
def test_projection_stays_where_there_is_no_hyperplane(norm, normal, value):
  points = jnp.full((1, 8), 0.3)
  delta = PROJECT(points, jnp.full((1, 8), normal), jnp.full(1, value), norm)
  assert (np.asarray(delta) == 0).all()


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("norm", ORDER)
def test_equals_the_original_step_by_step(x64, norm, targeted):
  # The original in float64, started from the clean images: the iterate after
  # each step, and the nearest adversarial image.
  with np.load(GOLDEN) as arrays:
    golden = dict(arrays)
  images = golden["images"]
  model = jax.tree_util.Partial(
    toy.perceptron, golden["first"], golden["second"]
  )
  attack = fab.Fab(10.0, norm=norm, targeted=targeted)
  labels, targets = (jnp.asarray(golden[n]) for n in ("labels", "targets"))
  keys = jax.random.split(jax.random.key(0), len(images))
  targets = targets if targeted else jnp.zeros_like(targets)
  state = START(attack, keys, jnp.asarray(images), labels, targets, model)
  points = []
  for _ in range(attack.steps):
    state = STEP(attack, state, model)
    points.append(state.current)
  ours = np.stack([points[step - 1] for step in golden["steps"]])
  prefix = norm if targeted else f"{norm}_untargeted"
  np.testing.assert_allclose(ours, golden[f"{prefix}_iterates"], atol=1e-9)
  best = attack.images(state)
  np.testing.assert_allclose(best, golden[f"{prefix}_best"], atol=1e-9)
  np.testing.assert_allclose(state.norm, distance(norm, best, images))
  assert attack.exhausted(state).all() and attack.found(state).all()


@pytest.mark.parametrize("norm", ORDER)
@hypothesis.settings(
  max_examples=10, deadline=None, database=None, derandomize=True
)
@hypothesis.given(epsilon=st.floats(0, 3))
@hypothesis.example(epsilon=3.0)
def test_success_is_misclassified_in_the_ball(norm, epsilon):
  keys, images, labels, model = problem()
  attack, ranked = fab.Fab(epsilon, 4, norm), by_logit(model(images), labels)
  adversarial = search(attack, keys, images, labels, model, ranked)
  moved = distance(norm, adversarial, images)
  assert (moved <= epsilon * (1 + 1e-6)).all()
  assert adversarial.min() >= 0 and adversarial.max() <= 1
  assert adversarial.dtype == images.dtype
  assert not losses.correct(model(adversarial), labels)[moved > 0].any()
  assert (moved[:2] == 0).all()  # clean images that are misclassified
  assert (moved[2:] > 0).all() or epsilon < {"l2": 2.5, "linf": 0.6}[norm]


@pytest.mark.parametrize("norm", ORDER)
def test_untargeted_restarts_begin_at_half_the_radius(norm):
  keys, images, labels, model = problem()
  attack = fab.Fab(0.1, norm=norm, targeted=False)
  runs = jnp.arange(len(labels)) % 2
  state = START(attack, keys, 0.5 + images / 4, labels, runs, model)
  lengths = distance(norm, state.current, 0.5 + images / 4)
  np.testing.assert_allclose(lengths, 0.05 * runs, atol=1e-7)


def test_more_steps_never_lengthen_the_perturbation():
  keys, images, labels, model = problem()
  attack = fab.Fab(1.0)
  targets = by_logit(model(images), labels)[:, 0]
  state = START(attack, keys, images, labels, targets, model)
  for step in range(20):
    assert (state.iteration == step).all()
    new = STEP(attack, state, model)
    assert (new.norm <= state.norm).all()
    assert (new.norm >= distance("l2", new.best, images) - 1e-6)[2:].all()
    state = new


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("logits", ["constant", "nan", "steep"])
def test_nan_gradients_do_not_reach_images(norm, logits):
  keys, images, _, _ = problem()
  labels = jnp.zeros(16, jnp.int32)

  def model(x):
    total = jnp.sum(x, (1, 2, 3))[:, None] * jnp.asarray([0.0, 1.0, 2.0])
    if logits == "constant":
      return 0 * total + jnp.asarray([2.0, 1.0, 0.0])
    if logits == "nan":  # the gradient; the logits are finite
      return jnp.sqrt(0 * total) + jnp.asarray([2.0, 1.0, 0.0])
    return jnp.asarray([1.0, 0.0, 0.0]) + 1e30 * (total - 1e3)

  attack, model = fab.Fab(0.5, 3, norm), jax.tree_util.Partial(model)
  targets = jnp.ones(16, jnp.int32)
  state = START(attack, keys, images, labels, targets, model)
  for _ in range(3):
    state = STEP(attack, state, model)
  assert np.isfinite(state.current).all()
  assert np.isfinite(attack.images(state)).all()


@pytest.mark.parametrize(
  "norm", ["l2", pytest.param("linf", marks=pytest.mark.slow)]
)
def test_examples_are_independent(norm):
  """Not of the batch size: compilers round differently for other sizes."""
  keys, images, labels, model = problem(24)
  attack = fab.Fab(1.0, 4, norm)
  targets = by_logit(model(images), labels)[:, 0]

  def norms(order):
    every = (x[order] for x in (keys, images, labels, targets))
    state = START(attack, *every, model)
    for _ in range(4):
      state = STEP(attack, state, model)
    return state.norm, state.best

  order = np.arange(24)
  whole = norms(order)
  for kept in (order < 8, order >= 8):
    others = norms(np.where(kept, order, np.roll(order, 5)))
    for ours, expected in zip(others, whole, strict=True):
      np.testing.assert_array_equal(ours[kept], expected[kept])
    assert (others[0] != whole[0]).any()


def test_x64_leaves_nothing_in_single_precision(x64):
  keys, images, labels, model = problem()
  for norm in ORDER:
    arguments = fab.Fab(0.5, norm=norm), keys, images, labels, model
    assert "f32[" not in str(jax.make_jaxpr(search)(*arguments))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("case", "norm", "epsilon"),
  [("resnet2b_l2_0.25", "l2", 0.25), ("resnet2b_linf_2_255", "linf", 2 / 255)],
)
def test_finds_what_the_original_finds(shared_data, case, norm, epsilon):
  model, images, labels, results = resnet2b.load(shared_data, case)
  attack = fab.Fab(epsilon, norm=norm)
  found = np.zeros(len(labels), bool)
  # For these images, further targets give no additional successes.
  for target in by_logit(model(images), labels).T[:3]:
    state = START(attack, None, images, labels, target, model)
    for _ in range(attack.steps):
      state = STEP(attack, state, model)
    found |= np.asarray(attack.found(state))
  # In the original's results, True means robust.
  assert np.sum(found == results["alone_fab_t"]) <= 2
