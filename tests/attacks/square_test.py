import functools
import pathlib

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ram_jax import losses
from ram_jax.attacks import square
from tests.attacks import resnet2b, toy
from tests.attacks.toy import ORDER, START, STEP, distance, search

problem = functools.partial(toy.problem, shape=(10, 10, 3))

pytestmark = pytest.mark.usefixtures("quick_compilation")
GOLDEN = pathlib.Path(__file__).parent / "golden" / "square.npz"


def advance(attack, state, model, count):
  for _ in range(count):
    state = STEP(attack, state, model)
  return state


def test_windows_have_the_published_sizes():
  l2 = square.Square(1.0).window_sizes((32, 32, 3))
  assert l2[:8] == (29, 21, 15, 11, 7, 5, 5, 3)
  linf = square.Square(1.0, norm="linf").window_sizes((32, 32, 3))
  assert linf == (29, 20, 14, 10, 7, 5, 4, 3, 2, 1)
  small = square.Square(1.0, p_init=1.0).window_sizes((4, 6, 3))
  assert small == (4,) + (3,) * 9


@pytest.mark.parametrize("norm", ORDER)
def test_equals_the_original_query_by_query(x64, norm, monkeypatch):
  # Draws of the original in float64, and the images that it obtains with them.
  with np.load(GOLDEN) as arrays:
    golden = dict(arrays)
  model = jax.tree_util.Partial(
    toy.perceptron, golden["first"], golden["second"]
  )
  images, labels = (jnp.asarray(golden[n]) for n in ("images", "labels"))
  attack = square.Square(float(golden[f"{norm}_epsilon"]), norm=norm)
  start = best = jnp.asarray(golden[f"{norm}_start"])
  if norm == "l2":
    tiles = golden["l2_tiles_transposed"], golden["l2_tiles_signs"]
    monkeypatch.setattr(jax.random, "bernoulli", lambda *_, **__: tiles[0])
    for i, image in enumerate(images):
      signs = tiles[1][:, :, i]
      monkeypatch.setattr(jax.random, "rademacher", lambda *_, x=signs: x)
      actual = attack._l2_start(jax.random.key(0), image)
      np.testing.assert_allclose(actual, start[i], atol=1e-12)
  change = {"l2": attack._l2_change, "linf": attack._linf_change}[norm]

  @jax.jit
  def query(best, margin, iteration, corners, transposed, signs):
    def one(given, best, signs):
      drawn = square.Draw(corners, transposed, signs)
      stage = jnp.sum(iteration > np.asarray(square._HALVINGS), dtype=jnp.int32)
      return change(drawn, stage, given, best)

    new = jax.vmap(one)(images, best, signs)
    candidate = square._margin(model(new), labels)
    better = candidate < margin
    best = jnp.where(better[:, None, None, None], new, best)
    return best, jnp.where(better, candidate, margin), new

  margin = square._margin(model(start), labels)
  count = len(golden[f"{norm}_corners"])
  transposed = golden.get(f"{norm}_transposed", np.zeros(count, bool))
  for i in range(count):
    drawn = golden[f"{norm}_corners"][i], transposed[i]
    drawn = [x.astype(np.int32) for x in drawn]
    signs = golden[f"{norm}_signs"][i]
    best, margin, new = query(best, margin, i, *drawn, signs)
    if i == 0:
      np.testing.assert_allclose(new, golden[f"{norm}_second"], atol=1e-12)
  np.testing.assert_allclose(best, golden[f"{norm}_best"], atol=1e-10)
  assert (distance(norm, best, start) > 0).all()


@pytest.mark.parametrize("norm", ORDER)
def test_draws_are_uniform_and_each_example_has_its_own(norm):
  keys = jax.random.split(jax.random.key(1), 4000)
  drawn = jax.vmap(lambda k: square._draw(k, (10, 8, 3), 3))(keys)
  for side, ends in ((0, 7), (1, 5)):
    for window in (0, 1):
      counts = np.bincount(drawn.corners[:, window, side], minlength=ends)
      assert len(counts) == ends  # not `ends` itself, as in the original
      np.testing.assert_allclose(counts / 4000, 1 / ends, atol=0.03)
  assert set(np.ravel(drawn.signs)) == {-1, 1}
  assert abs(np.mean(drawn.signs)) < 0.05
  assert abs(np.mean(drawn.transposed) - 0.5) < 0.05
  whole = jax.vmap(lambda k: square._draw(k, (10, 8, 3), 10))(keys)
  assert (whole.corners == 0).all()


@pytest.mark.parametrize("norm", ORDER)
def test_a_query_changes_one_window(norm):
  keys, images, labels, model = problem(shape=(32, 32, 3))
  attack = square.Square(0.5, norm=norm)
  first = START(attack, keys, images, labels, labels, model)
  late = first.replace(iteration=first.iteration + 3000)
  new = jax.jit(square.Square._propose)(attack, late)
  # In L2, the second window and the rescaling change more.
  moved = np.asarray(abs(new - first.best).max(-1) > 0.02)
  size = {"l2": 5, "linf": 4}[norm]  # of the windows
  for example in moved:
    rows, columns = np.nonzero(example)
    most = 2 * size**2 if norm == "l2" else size**2
    assert 0 < example.sum() <= most
    if norm == "linf":
      assert np.ptp(rows) < size and np.ptp(columns) < size


@pytest.mark.parametrize("norm", ORDER)
@hypothesis.settings(
  max_examples=10, deadline=None, database=None, derandomize=True
)
@hypothesis.given(
  epsilon=st.sampled_from([0.0, 1e-3, 5e-3, 0.1, 0.5, 1.0, 8.0])
)
def test_success_is_misclassified_in_the_ball(norm, epsilon):
  keys, images, labels, model = problem()
  attack = square.Square(epsilon, 30, norm)
  adversarial = search(attack, keys, images, labels, model)
  moved = distance(norm, adversarial, images)
  assert (moved <= epsilon * (1 + 1e-6)).all()
  assert adversarial.min() >= 0 and adversarial.max() <= 1
  assert adversarial.dtype == images.dtype
  assert not losses.correct(model(adversarial), labels)[moved > 0].any()
  assert (moved[:2] == 0).all()  # clean images that are misclassified
  assert (moved > 0).sum() >= 3 or epsilon < 1


@pytest.mark.parametrize("norm", ORDER)
def test_more_steps_never_raise_the_margin(norm):
  keys, images, labels, model = problem()
  attack = square.Square({"l2": 0.5, "linf": 0.05}[norm], 100, norm)
  state = START(attack, keys, images, labels, labels, model)
  first, found = state.margin, attack.found(state)
  for step in range(100):
    assert (state.iteration == step).all()
    assert not attack.exhausted(state).any()
    new = STEP(attack, state, model)
    assert (new.margin <= state.margin).all()
    assert (attack.found(new) >= found).all()
    state, found = new, attack.found(new)
  assert attack.exhausted(state).all()
  assert (state.margin < first - 0.01).all()
  wrong = ~losses.correct(model(state.best), labels)
  np.testing.assert_array_equal(found, wrong)


@pytest.mark.parametrize(
  "norm", ["l2", pytest.param("linf", marks=pytest.mark.slow)]
)
def test_examples_are_independent(norm):
  """This includes each example's own iteration count."""
  keys, images, labels, model = problem(16, shape=(32, 32, 3))
  jax.config.update("jax_disable_most_optimizations", False)
  attack = square.Square(0.5, norm=norm)

  def start(part):
    some = (x[part] for x in (keys, images, labels, labels))
    return START(attack, *some, model)

  whole = advance(attack, start(slice(None)), model, 12)
  # The first 8 are 7 queries ahead of those that join them.
  ahead = advance(attack, start(slice(0, 8)), model, 7)
  mixed = jax.tree.map(
    lambda *x: jnp.concatenate(x), ahead, start(slice(8, 16))
  )
  mixed = advance(attack, mixed, model, 5)
  np.testing.assert_array_equal(mixed.best[:8], whole.best[:8])
  mixed = advance(attack, mixed, model, 7)
  np.testing.assert_array_equal(mixed.best[8:], whole.best[8:16])
  jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.parametrize("norm", ORDER)
def test_nan_logits_count_as_misclassified(norm):
  keys, images, labels, _ = problem(4)
  attack = square.Square(0.5, 2, norm)
  constant = jax.tree_util.Partial(lambda x: jnp.zeros((len(x), 4)))
  labels = jnp.asarray([0, 1, 0, 1])  # of equal logits, the first wins
  state = START(attack, keys, images, labels, labels, constant)
  assert attack.found(state).tolist() == [False, True, False, True]
  nan = jax.tree_util.Partial(lambda x: jnp.full((len(x), 4), jnp.nan))
  state = advance(attack, state, nan, 1)
  assert attack.found(state).all()
  assert np.isfinite(attack.images(state)).all()


def test_x64_leaves_nothing_in_single_precision(x64):
  keys, images, labels, model = problem()
  for norm in ORDER:
    arguments = square.Square(0.5, norm=norm), keys, images, labels, model
    assert "f32[" not in str(jax.make_jaxpr(search)(*arguments))


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"epsilon": float("nan")}, "epsilon is nan"),
    ({"norm": "l1"}, "norm is 'l1': give l2 or linf"),
    ({"steps": 0}, "steps is 0"),
  ],
)
def test_invalid_fields(fields, message):
  with pytest.raises(ValueError, match=message):
    square.Square(**{"epsilon": 1.0, **fields})


@pytest.mark.slow
def test_finds_as_many_as_the_original(shared_data):
  case = "resnet2b_l2_0.25"
  model, images, labels, _ = resnet2b.load(shared_data, case)
  keys = jax.random.split(jax.random.key(0), len(images))
  attack = square.Square(0.25)
  state = START(attack, keys, images, labels, labels, model)
  state = advance(attack, state, model, attack.steps)
  robust = len(images) - np.sum(attack.found(state))
  assert 96 <= robust <= 100  # the original, with several seeds: 97 to 99
