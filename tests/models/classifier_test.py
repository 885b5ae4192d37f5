import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.models import layers
from ram_jax.models.batch_norm import BatchNorm
from ram_jax.models.classifier import Classifier, forward_views

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Tiny(nn.Module):
  """Two convolutions, each with batch normalization, and a head."""

  axis_name: str | None = None

  def setup(self):
    self.convs = [layers.conv(6, 3), layers.conv(5, 3, 2)]
    self.norms = [BatchNorm(self.axis_name) for _ in self.convs]
    self.head = layers.linear(4, nn.initializers.zeros)

  def features(self, images, train):
    x = images
    for conv, norm in zip(self.convs, self.norms, strict=True):
      x = nn.relu(norm(conv(x), train))
    return layers.pool(x)

  def __call__(self, images, train):
    return self.head(self.features(images, train))


MODULE = Tiny()


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


def pictures(count, batch=8):
  """Views whose means differ, so that their order matters."""
  x = np.random.default_rng(1).uniform(size=(count, batch, 8, 8, 3))
  return tuple(
    jnp.asarray(x) * (0.3 + 0.3 * jnp.arange(count).reshape(-1, 1, 1, 1, 1))
  )


def assert_close(actual, expected, rtol):
  pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


LOGITS = jax.jit(lambda model, images: model(images))
FEATURES = jax.jit(lambda model, images: model.features(images))
FORWARD = jax.jit(forward_views, static_argnums=(0, 4))


@jax.jit
def successive(params, stats, views):
  """One forward pass after another, as in a PyTorch training loop."""
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


def test_separate_views_equal_successive_forwards(x64):
  params, stats = variables()
  views = pictures(3)

  def loss(params, forward):
    logits, new = forward(params)
    total = sum(jnp.sum(x[:, i] ** 2) for i, x in enumerate(logits))
    return total, (logits, new)

  both = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
  actual = both(
    params, lambda p: forward_views(MODULE, p, stats, views, separate=True)
  )
  expected = both(params, lambda p: successive(p, stats, views))
  assert_close(actual, expected, 1e-9)


def test_statistics_depend_on_the_order_of_views(x64):
  params, stats = variables()
  views = pictures(3)
  _, new = FORWARD(MODULE, params, stats, views, True)
  _, turned = FORWARD(MODULE, params, stats, views[::-1], True)
  assert abs(new["norms_1"]["mean"] - turned["norms_1"]["mean"]).max() > 1e-4


def test_one_view_is_one_forward():
  params, stats = variables()
  one, other = (
    jax.make_jaxpr(forward_views, static_argnums=(0, 4))(
      MODULE, params, stats, pictures(1), separate
    )
    for separate in (True, False)
  )
  assert str(one) == str(other)


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
  views = pictures(3)
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
  mixed = jnp.concatenate([first[:4], second[4:]])
  # By running statistics an image's logits do not depend on its company.
  running = Classifier(params, stats, MODULE)
  logits = LOGITS(running, mixed)
  np.testing.assert_allclose(logits[:4], LOGITS(running, first)[:4], rtol=1e-9)
  batch = running.replace(batch_norm="batch")
  logits = LOGITS(batch, mixed)
  expected, _ = successive(params, stats, (mixed,))
  np.testing.assert_allclose(logits, expected[0], rtol=1e-12)
  assert abs(logits[:4] - LOGITS(batch, first)[:4]).max() > 1e-2


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


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("part", [100, 10**6])
def test_unrolled_forward_is_the_same(x64, monkeypatch, separate, part):
  # 8x8 pixels: parts of one, and of three examples where the stride is 2,
  # which leaves a smaller last one.
  monkeypatch.setattr(layers, "PART", part)
  params, stats = variables()
  views = pictures(3, 5)

  def loss(params, views, unroll):
    logits, new = forward_views(
      MODULE, params, stats, views, separate, unroll=unroll
    )
    return sum(jnp.sum(x**2) * (i + 1) for i, x in enumerate(logits)), new

  found = [
    jax.jit(jax.grad(loss, (0, 1), has_aux=True), static_argnums=2)(
      params, views, unroll
    )
    for unroll in (True, False)
  ]
  assert_close(*found, rtol=1e-11)


def test_parts_of_weight_gradients_are_small(monkeypatch):
  monkeypatch.setattr(layers, "PART", 128)
  params, stats = variables()
  views = pictures(1)

  def loss(params, unroll):
    logits, _ = forward_views(MODULE, params, stats, views, True, unroll)
    return jnp.sum(logits[0])

  count = [
    str(jax.make_jaxpr(jax.grad(loss), static_argnums=1)(params, unroll)).count(
      "conv_general_dilated["
    )
    for unroll in (False, True)
  ]
  # The first layer's gradient in 8 / 2 parts, the second's in 8 / 8; and the
  # one to the pixels, which nobody asked for and the compiler drops.
  assert count[1] == count[0] + 3 + 1
