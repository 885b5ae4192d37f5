import flax.linen as nn
import flax.struct
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ram_jax import losses
from ram_jax.attacks import pgd
from ram_jax.attacks.norms import NORMS
from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm
from ram_jax.models.classifier import Classifier

pytestmark = pytest.mark.usefixtures("quick_compilation")
EVERY = [(norm, start) for norm in NORMS for start in NORMS[norm].starts]
ORDER = {"l2": 2, "linf": np.inf}
RESTARTED = pgd.Attack(0.5, 0.2, steps=2, restarts=2)
RUN = jax.jit(lambda attack, *args: attack(*args))  # compiled once for all


@flax.struct.dataclass
class Perceptron:
  """Two layers, or one where `second` is None."""

  first: jax.Array
  second: jax.Array | None = None

  def __call__(self, images):
    x = images.reshape(len(images), -1) @ self.first
    return x if self.second is None else jnp.tanh(x) @ self.second


def perceptron(dimension, hidden=None, classes=3, scale=1.0):
  rng = np.random.default_rng(0)
  if hidden is None:
    return Perceptron(
      jnp.asarray(scale * rng.normal(size=(dimension, classes)))
    )
  return Perceptron(
    jnp.asarray(rng.normal(size=(dimension, hidden)) / np.sqrt(dimension)),
    jnp.asarray(scale * rng.normal(size=(hidden, classes))),
  )


def batch(count=32, shape=(4, 4, 3), low=0.0, high=1.0):
  keys = jax.random.split(jax.random.key(0), count)
  images = np.random.default_rng(1).uniform(low, high, (count, *shape))
  return keys, jnp.asarray(images), jnp.arange(count) % 3


class Tiny(nn.Module):
  """A convolution, batch normalization and a head."""

  @nn.compact
  def __call__(self, images, train):
    x = nn.relu(BatchNorm()(layers.conv(4, 3, 2)(images), train))
    return layers.linear(3, nn.initializers.zeros)(layers.pool(x))


def network():
  shapes = jax.eval_shape(
    lambda: Tiny().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), False)
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape) + 3 * (x.ndim == 1)), shapes
  )
  return Classifier(variables["params"], variables["batch_stats"], Tiny())


def distance(norm, a, b):
  flat = (np.asarray(a, np.float64) - np.asarray(b, np.float64)).reshape(
    len(a), -1
  )
  return np.linalg.norm(flat, ORDER[norm], axis=1)


@pytest.mark.parametrize(("norm", "start"), EVERY)
@hypothesis.settings(
  max_examples=25, deadline=None, database=None, derandomize=True
)
@hypothesis.given(
  images=hnp.arrays(
    np.float32,
    (2, 32, 32, 3),
    elements=st.floats(0, 1, width=32, allow_subnormal=False),
    fill=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
  ),
  epsilon=st.floats(0, 10),
  step=st.floats(0, 3),
)
@hypothesis.example(
  images=np.full((2, 32, 32, 3), 0.3, np.float32), epsilon=0.0, step=1.0
)
def test_stays_in_the_ball_and_in_range(norm, start, images, epsilon, step):
  keys, _, targets = batch(2)
  attack = pgd.Attack(epsilon, step * epsilon, 2, norm=norm, start=start)
  model = perceptron(3072, scale=3.0)
  adversarial = RUN(attack, keys, images, targets, model)
  assert (distance(norm, adversarial, images) <= epsilon + 1e-6).all()
  assert adversarial.min() >= 0 and adversarial.max() <= 1
  assert adversarial.dtype == images.dtype
  if epsilon == 0:
    np.testing.assert_array_equal(adversarial, images)


@pytest.mark.parametrize("unroll", [False, True])
def test_limit_is_a_number_of_steps(x64, unroll):
  keys, images, targets = batch()
  model = perceptron(48, hidden=8)
  longer = pgd.Attack(1.0, 0.2, steps=4, unroll=unroll)
  for limit in (0, 1, 3, 4):
    limited = RUN(longer.replace(limit=limit), keys, images, targets, model)
    shorter = RUN(longer.replace(steps=limit), keys, images, targets, model)
    np.testing.assert_allclose(limited, shorter, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
  ("norm", "start", "low"),
  [("l2", "none", 0.4), ("linf", "uniform", 0.4), ("linf", "sphere", 0.0)],
)
def test_finds_the_optimum_of_a_linear_model(x64, norm, start, low):
  # Two classes: the loss grows with the other's score less the target's, so
  # the best step in the ball is along (L2) or the signs of (Linf) its weights.
  keys, images, targets = batch(low=low, high=1 - low)
  targets = targets % 2
  model = perceptron(48, classes=2)
  epsilon = 0.3
  attack = pgd.Attack(epsilon, 2.5 * epsilon / 7, norm=norm, start=start)
  actual = RUN(attack, keys, images, targets, model)
  weights = np.asarray(model.first)
  ascent = (weights[:, 1] - weights[:, 0])[None] * (1 - 2 * targets)[:, None]
  if norm == "l2":
    ascent = ascent / np.linalg.norm(ascent, axis=1, keepdims=True)
  else:
    ascent = np.sign(ascent)
  # The box alone limits Linf, coordinate by coordinate; L2 stays clear of it.
  expected = np.clip(images + epsilon * ascent.reshape(images.shape), 0, 1)
  np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_equals_a_plain_loop_of_torch(x64, norm):
  torch = pytest.importorskip("torch")
  keys, images, targets = batch()
  model = perceptron(48, hidden=16)
  epsilon, size = {"l2": (1.0, 0.36), "linf": (0.03, 0.01)}[norm]
  attack = pgd.Attack(epsilon, size, steps=5, norm=norm, start="none")
  actual = RUN(attack, keys, images, targets, model)
  first, second, clean = (
    torch.tensor(np.asarray(x)) for x in (model.first, model.second, images)
  )
  clean = clean.flatten(1)
  labels, x = torch.tensor(np.asarray(targets)), clean
  for _ in range(5):
    x = x.detach().requires_grad_()
    logits = torch.tanh(x @ first) @ second
    loss = torch.nn.functional.cross_entropy(logits, labels)
    (g,) = torch.autograd.grad(loss, x)
    if norm == "l2":
      x = x + size * g / g.norm(dim=1, keepdim=True)
      delta = torch.renorm(x - clean, 2, 0, epsilon)
    else:
      x = x + size * g.sign()
      delta = (x - clean).clamp(-epsilon, epsilon)
    x = (clean + delta).clamp(0, 1)
  expected = x.detach().numpy().reshape(images.shape)
  # torch.renorm divides by the norm plus 1e-7.
  np.testing.assert_allclose(actual, expected, atol=5e-7 * epsilon)


def test_loop_equals_unrolled_on_a_network(x64):
  keys, images, targets = batch(4, (8, 8, 3))
  attack, model = pgd.Attack(0.5, 0.2, steps=2, start="none"), network()
  rolled = RUN(attack, keys, images, targets, model)
  unrolled = RUN(attack.replace(unroll=True), keys, images, targets, model)
  np.testing.assert_allclose(rolled, unrolled, atol=1e-9)
  assert (distance("l2", rolled, images) > 0.1).all()


def test_loop_over_restarts_equals_unrolled(x64):
  arguments = *batch(), perceptron(48, hidden=8)
  rolled = RUN(RESTARTED, *arguments)
  unrolled = RUN(RESTARTED.replace(unroll=True), *arguments)
  np.testing.assert_allclose(rolled, unrolled, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_loss_is_not_below_that_of_the_start(norm):
  keys, images, targets = batch()
  model = perceptron(48, scale=0.3)  # convex, so every ascent step ascends
  attack = pgd.Attack(0.5, 0.1, norm=norm)
  found = RUN(attack, keys, images, targets, model)
  start = RUN(attack.replace(step_size=0.0), keys, images, targets, model)
  before, after = (
    losses.cross_entropy(model(x), targets) for x in (start, found)
  )
  assert (after > before).all()


@pytest.mark.parametrize("objective", ["dlr", "margin"])
def test_objectives_do_not_saturate(objective):
  # Where the cross-entropy's gradient underflows, its attack cannot start.
  model = perceptron(48, scale=1000.0)
  keys, images, _ = batch(64)
  labels = jnp.argmax(model(images), axis=-1)
  attack = pgd.Attack(0.5, 0.1, start="none")
  wrong = [
    int(
      jnp.sum(
        ~losses.correct(model(RUN(a, keys, images, labels, model)), labels)
      )
    )
    for a in (attack, attack.replace(objective=objective))
  ]
  assert wrong[1] > wrong[0] + 5
  assert attack.label == "PGD-7"
  assert attack.replace(objective=objective).label == f"PGD-7 ({objective})"


def test_zero_gradient_or_no_steps_keep_the_start():
  arguments = *batch(), Perceptron(jnp.zeros((48, 3)))
  attack = pgd.Attack(0.5, 0.1)
  start = RUN(attack.replace(steps=0), *arguments)
  np.testing.assert_allclose(RUN(attack, *arguments), start, atol=1e-6)
  assert (distance("l2", start, arguments[1]) > 0.1).all()


def test_restarts_are_never_worse_and_sometimes_better(x64):
  keys, images, targets = batch()
  model = perceptron(48, hidden=8, scale=3.0)
  one, two = (
    attack._judge(model(RUN(attack, keys, images, targets, model)), targets)
    for attack in (RESTARTED.replace(restarts=1), RESTARTED)
  )
  assert (two[0] >= one[0]).all()
  assert ((two[1] >= one[1]) | (two[0] > one[0])).all()
  assert (two[1] > one[1] + 1e-3).any()


def test_misclassified_examples_are_preferred_to_a_higher_loss():
  def found(value, wrong, loss):
    return (
      jnp.full((4, 1, 1, 1), value),
      jnp.asarray(wrong, bool),
      jnp.asarray(loss),
    )

  old = found(0.0, [0, 1, 1, 0], [2.0, 1.0, 1.0, 1.0])
  new = found(1.0, [1, 0, 1, 0], [1.0, 2.0, 0.5, 1.5])
  images, wrong, loss = pgd._better(old, new)
  assert images.ravel().tolist() == [1, 0, 0, 1]
  assert wrong.tolist() == [True, True, True, False]
  assert loss.tolist() == [1.0, 1.0, 1.0, 1.5]


def test_examples_are_independent(x64):
  keys, images, targets = batch()
  model = perceptron(48, hidden=8)
  whole = RUN(RESTARTED, keys, images, targets, model)
  # New company for all but the first two, who keep their keys.
  other = RUN(
    RESTARTED,
    jnp.concatenate([keys[30:], keys[2:]]),
    images.at[:2].set(images[1::-1]),
    targets.at[:2].set(2),
    model,
  )
  np.testing.assert_allclose(whole[2:], other[2:], atol=1e-12)
  other = RUN(RESTARTED, keys[::-1], images, targets, model)
  assert (distance("l2", other, whole) > 1e-6).all()


@pytest.fixture
def optimized(quick_compilation):
  """Compiles as users do, because optimizations change rounding."""
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.parametrize(
  ("size", "counts"),
  [
    (32, (1, 4)),
    pytest.param(32, (1, 2), marks=pytest.mark.slow),
    pytest.param(16, (1, 2, 4), marks=pytest.mark.slow),
  ],
)
def test_starts_are_bit_identical_on_any_number_of_devices(
  optimized, size, counts
):
  keys, images, _ = batch(8, (size, size, 3))

  def starts(keys, images):
    return [
      pgd.Attack(0.5, 0.1, 0, norm=norm, start=start, unroll=True)(
        keys, images, None, None
      )
      for norm, start in EVERY
      if start != "none"  # which draws nothing
    ]

  one, *others = (
    jax.pmap(starts)(
      keys.reshape(devices, -1), images.reshape(devices, -1, size, size, 3)
    )
    for devices in counts
  )
  for many in others:
    for a, b in zip(one, many, strict=True):
      np.testing.assert_array_equal(np.ravel(a), np.ravel(b))


@pytest.mark.parametrize("unroll", [True, False])
def test_no_gradient_flows_out(unroll):
  keys, images, targets = batch()
  attack = pgd.Attack(0.5, 0.2, 2, restarts=2, start="none", unroll=unroll)
  gradients = jax.jit(
    jax.grad(lambda x, m: attack(keys, x, targets, m).sum(), argnums=(0, 1))
  )(images, perceptron(48, hidden=8))
  assert not any(np.any(g) for g in jax.tree.leaves(gradients))


def test_no_recompilation_over_epsilons_and_models():
  keys, images, targets = batch()
  traces = []

  @jax.jit
  def run(attack, model):
    traces.append(None)
    return attack(keys, images, targets, model)

  attack = pgd.Attack(0.25, 0.1, steps=2, start="none")
  for epsilon in (0.25, 0.5, 1.0, 8.0):
    attack = attack.replace(epsilon=epsilon, step_size=2.5 * epsilon / 7)
    out = run(attack, perceptron(48, hidden=8, scale=epsilon))
    assert distance("l2", out, images).max() <= epsilon + 1e-6
  assert len(traces) == 1
  run(attack.replace(steps=3), perceptron(48, hidden=8))
  assert len(traces) == 2


def test_x64_leaves_nothing_in_single_precision(x64):
  keys, images, targets = batch()
  for norm, start in EVERY:
    attack = pgd.Attack(0.5, 0.2, restarts=2, norm=norm, start=start)
    text = jax.make_jaxpr(lambda a, m: a(keys, images, targets, m))(
      attack, perceptron(48, hidden=8)
    )
    assert "f32[" not in str(text)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"epsilon": -0.5}, "epsilon is -0.5: give a finite number"),
    ({"epsilon": float("nan")}, "epsilon is nan"),
    ({"step_size": float("inf")}, "step_size is inf"),
    ({"norm": "l1"}, "norm is 'l1': give l2 or linf"),
    ({"objective": "kl"}, "give cross_entropy or dlr or margin"),
    ({"start": "x"}, "give none or uniform or sphere"),
    ({"steps": -1}, "steps is -1"),
    ({"steps": 2.0}, "steps is 2.0: give an integer"),
    ({"restarts": 0}, "restarts is 0"),
  ],
)
def test_invalid_fields(fields, message):
  with pytest.raises(ValueError, match=message):
    pgd.Attack(**{"epsilon": 1.0, "step_size": 0.1, **fields})
