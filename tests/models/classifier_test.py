import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.models import wide_resnet
from ram_jax.models.classifier import Classifier, forward_views

MODULE = wide_resnet.Model(
  4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), depth=10, widen_factor=1
)


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def variables():
  """Parameters and statistics that are not their initial 0 and 1."""
  images = jnp.zeros((2, 8, 8, 3))
  shapes = jax.eval_shape(lambda: MODULE.init(jax.random.key(0), images, False))
  rng = np.random.default_rng(0)
  made = jax.tree.map(
    lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape) + (x.ndim == 1)),
    shapes,
  )
  return made["params"], made["batch_stats"]


def pictures(count, batch=4):
  """Views whose means differ, so that their order matters."""
  x = jax.random.uniform(jax.random.key(1), (count, batch, 8, 8, 3))
  return tuple(x * (0.3 + 0.3 * jnp.arange(count).reshape(-1, 1, 1, 1, 1)))


def assert_close(ours, expected, rtol):
  pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True)
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


LOGITS = jax.jit(lambda model, images: model(images))
FEATURES = jax.jit(lambda model, images: model.features(images))
FORWARD = jax.jit(forward_views, static_argnums=(0, 4))


@jax.jit
def successive(params, stats, views):
  """One training forward after another, as a PyTorch loop does."""
  logits = []
  for view in views:
    out, update = MODULE.apply(
      {"params": params, "batch_stats": stats},
      view,
      True,
      mutable=["batch_stats"],
    )
    stats = update["batch_stats"]
    logits.append(out)
  return tuple(logits), stats


@pytest.mark.parametrize("count", [1, 3])
def test_separate_views_equal_successive_forwards(x64, count):
  params, stats = variables()
  views = pictures(count)
  ours = FORWARD(MODULE, params, stats, views, True)
  expected = successive(params, stats, views)
  assert_close(ours, expected, 1e-9)
  # The order of the views is in the statistics.
  if count > 1:
    turned = successive(params, stats, views[::-1])
    assert abs(
      expected[1]["norm"]["mean"] - turned[1]["norm"]["mean"]
    ).max() > (1e-4)


def test_gradients_of_separate_views_equal_those_of_successive_forwards(x64):
  params, stats = variables()
  views = pictures(3)

  def loss(params, forward):
    logits, _ = forward(params)
    return sum(jnp.sum(x[:, i] ** 2) for i, x in enumerate(logits))

  ours = jax.grad(loss)(
    params, lambda p: FORWARD(MODULE, p, stats, views, True)
  )
  expected = jax.grad(loss)(params, lambda p: successive(p, stats, views))
  assert_close(ours, expected, 1e-9)


def test_joint_views_equal_one_forward_of_all(x64):
  params, stats = variables()
  views = pictures(3)
  logits, new = FORWARD(MODULE, params, stats, views, False)
  whole, update = successive(params, stats, (jnp.concatenate(views),))
  assert_close((jnp.concatenate(logits), new), (whole[0], update), 1e-9)
  separate, _ = FORWARD(MODULE, params, stats, views, True)
  assert abs(separate[0] - logits[0]).max() > 1e-2


@pytest.mark.parametrize("separate", [True, False])
def test_four_devices_equal_one(x64, separate):
  params, stats = variables()
  views = pictures(3, batch=8)
  expected = FORWARD(MODULE, params, stats, views, separate)
  shared = MODULE.clone(axis_name="batch")
  step = jax.pmap(
    lambda p, s, v: forward_views(shared, p, s, v, separate),
    axis_name="batch",
    in_axes=(None, None, 0),
    out_axes=(0, None),
  )
  shards = tuple(v.reshape(4, 2, *v.shape[1:]) for v in views)
  logits, new = step(params, stats, shards)
  logits = tuple(np.asarray(x).reshape(8, -1) for x in logits)
  assert_close((logits, new), expected, 1e-9)


def test_classifier_is_the_head_over_its_features(x64):
  params, stats = variables()
  (images,) = pictures(1)
  head = params["head"]
  for batch_norm in ("running", "batch"):
    model = Classifier(params, stats, MODULE, batch_norm)
    expected = FEATURES(model, images) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(LOGITS(model, images), expected, rtol=1e-12)


def test_batch_norm_of_the_classifier(x64):
  params, stats = variables()
  first, second = pictures(2)
  both = jnp.concatenate([first, second])
  running = Classifier(params, stats, MODULE)
  # By running statistics an image's logits do not depend on its company.
  np.testing.assert_allclose(
    LOGITS(running, both)[:4], LOGITS(running, first), rtol=1e-9
  )
  batch = running.replace(batch_norm="batch")
  expected, _ = successive(params, stats, (both,))
  np.testing.assert_allclose(LOGITS(batch, both), expected[0], rtol=1e-12)
  assert abs(LOGITS(batch, both)[:4] - LOGITS(batch, first)).max() > 1e-2


def test_new_variables_do_not_recompile():
  params, stats = variables()
  (images,) = pictures(1)
  traces = []

  @jax.jit
  def logits(model, x):
    traces.append(None)
    return model(x)

  one = logits(Classifier(params, stats, MODULE), images)
  other = logits(
    Classifier(jax.tree.map(lambda x: 2 * x, params), stats, MODULE.clone()),
    images,
  )
  assert len(traces) == 1
  assert not np.allclose(one, other)


def test_unknown_batch_norm_is_explained():
  with pytest.raises(ValueError, match=r"'eval'.*\['running', 'batch'\]"):
    Classifier({}, {}, MODULE, "eval")
