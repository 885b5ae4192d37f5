"""Every method: its views, its loss by hand, its gradient by differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from ram_jax import keys as keys_lib
from ram_jax import losses, plugins
from ram_jax.models.classifier import Classifier, forward_views
from tests.tiny import Net

pytestmark = pytest.mark.usefixtures("quick_compilation")

ATTACK = {
  "name": "pgd",
  "epsilon": 0.5,
  "step_size": 0.2,
  "steps": 2,
  "start": "sphere",
}
SPECS = {
  "standard": {},
  "adversarial": {"attack": ATTACK},
  "augmix": {"augment": {"name": "augmix"}},
  "robust_augmix": {"augment": {"name": "augmix"}, "attack": ATTACK},
  "trades": {"attack": ATTACK},
  "augmax": {"augment": {"name": "augmix"}, "steps": 2},
}
VIEWS = {
  "standard": ("clean",),
  "adversarial": ("adversarial",),
  "augmix": ("clean", "augmix_1", "augmix_2"),
  "robust_augmix": ("clean", "augmix", "adversarial"),
  "trades": ("clean", "adversarial"),
  "augmax": ("augmax", "augmix", "clean"),
}


def method(name, **fields):
  return plugins.build("method", {"name": name} | SPECS[name] | fields)


@pytest.fixture(scope="module")
def model():
  module = Net()
  with jax.enable_x64(True):
    variables = module.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)), False)
  return Classifier(variables["params"], variables["batch_stats"], module)


def batch(size=4):
  rng = np.random.default_rng(2)
  images = rng.integers(0, 256, (size, 8, 8, 3)) / 255
  return {"images": jnp.asarray(images), "labels": jnp.arange(size)}


def test_every_method_is_listed_here():
  assert set(SPECS) == set(plugins.available("method"))


@pytest.mark.parametrize("name", SPECS)
def test_views_and_gradient(name, model):
  with jax.enable_x64(True):
    given = batch()
    keys = keys_lib.per_example(jax.random.key(0), jnp.arange(4))
    names = []

    @jax.jit
    def draw(keys, batch, model):
      views, targets = method(name).views(keys, batch, model)
      names.extend(name for name, _ in views)
      return tuple(images for _, images in views), targets

    views, targets = draw(keys, given, model)
    # BatchNorm's running statistics are updated in this order.
    assert tuple(names) == VIEWS[name]
    for view, view_name in zip(views, VIEWS[name], strict=True):
      change = float(jnp.abs(view - given["images"]).max())
      assert (change > 0) == (view_name != "clean"), view_name
    np.testing.assert_array_equal(targets, given["labels"])
    if name == "augmix":  # its two views are independent
      assert float(jnp.abs(views[1] - views[2]).max()) > 0.01

    @jax.jit
    def loss(params):
      logits, _ = forward_views(
        model.module, params, model.batch_stats, views, separate=True
      )
      return method(name).loss(logits, targets)[0].mean()

    # Central differences, the views held fixed. Directions lean toward the
    # gradient, so that the slope stands far above the rounding of about 1e-10
    # that float64 leaves at h = 1e-6.
    gradient = jax.grad(loss)(model.params)
    for seed in range(3):
      direction = _unit(_add(_unit(gradient), 1, _random_unit(gradient, seed)))
      slope = sum(
        float((g * d).sum())
        for g, d in zip(
          jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True
        )
      )
      h = 1e-6
      ahead, behind = (
        loss(_add(model.params, step, direction)) for step in (h, -h)
      )
      np.testing.assert_allclose((ahead - behind) / (2 * h), slope, rtol=1e-6)


@pytest.mark.parametrize("name", ["augmix", "robust_augmix"])
def test_loss_is_cross_entropy_plus_weighted_divergence(name):
  rng = np.random.default_rng(3)
  logits = rng.normal(size=(3, 5, 10)) * 3
  labels = np.arange(5)
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  cross_entropy = -np.log(p[0][np.arange(5), labels])
  mixture = p.mean(0)
  divergence = np.mean([(q * np.log(q / mixture)).sum(-1) for q in p], axis=0)
  # Two distributions: scipy's distance is the root of the divergence.
  pair = distance.jensenshannon(p[0], p[1], axis=-1) ** 2
  with jax.enable_x64(True):
    views = tuple(map(jnp.asarray, logits))
    loss, metrics = method(name, weight=7.0).loss(views, labels)
    of_two = losses.jensen_shannon(*views[:2])
  np.testing.assert_allclose(of_two, pair, rtol=1e-9)
  np.testing.assert_allclose(loss, cross_entropy + 7 * divergence, rtol=1e-12)
  np.testing.assert_allclose(metrics["jensen_shannon"], divergence, rtol=1e-9)
  np.testing.assert_array_equal(metrics["accuracy"], p[0].argmax(-1) == labels)


def test_trades_equals_pytorch():
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(3)
  logits, labels = rng.normal(size=(2, 5, 10)) * 3, np.arange(5)
  clean, adversarial = theirs = [
    torch.tensor(x, requires_grad=True) for x in logits
  ]
  functional = torch.nn.functional
  divergence = functional.kl_div(
    functional.log_softmax(adversarial, dim=1),
    functional.softmax(clean, dim=1),
    reduction="batchmean",
  )
  cross_entropy = functional.cross_entropy(clean, torch.tensor(labels))
  expected = cross_entropy + 6 * divergence
  expected.backward()

  def mean(logits):
    return method("trades").loss(tuple(logits), labels)[0].mean()

  with jax.enable_x64(True):
    loss, gradient = jax.value_and_grad(mean)(jnp.asarray(logits))
  np.testing.assert_allclose(loss, expected.item(), rtol=1e-12)
  for ours, tensor in zip(gradient, theirs, strict=True):
    np.testing.assert_allclose(ours, tensor.grad, rtol=1e-9, atol=1e-15)


def test_trades_attacks_the_clean_predictions(model):
  """Its steps increase the divergence, whatever the labels."""
  with jax.enable_x64(True):
    given = batch(16)
    keys = keys_lib.per_example(jax.random.key(0), jnp.arange(16))

    def divergence(**attack):
      made = method("trades", attack=ATTACK | attack)
      ((_, clean), (_, images)), _ = made.views(keys, given, model)
      found = model(clean), model(images)
      return losses.kullback_leibler(*found)

    start, found = divergence(steps=0), divergence(steps=4)
    given["labels"] = given["labels"] % 3
    other = divergence(steps=4)
  assert (found > start).all()
  np.testing.assert_array_equal(found, other)


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_worst_mixture_equals_pytorch(patience):
  """The authors' search, for a linear model whose images turn wrong."""
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(5)
  images, chains = rng.random((99, 4, 4, 3)), rng.random((99, 3, 4, 4, 3))
  weights, labels = rng.normal(size=(48, 10)), rng.integers(0, 10, 99)
  labels[:80] = np.argmax(images[:80].reshape(80, -1) @ weights, axis=1)
  start = rng.random(99), rng.random((99, 3))
  share, logits = theirs = [torch.tensor(x) for x in start]
  parts = torch.tensor(images), torch.tensor(chains)
  left, wrong = np.full(99, patience), []

  def mixture():
    w = torch.softmax(logits, dim=1)[..., None, None, None]
    m = share[:, None, None, None]
    return (1 - m) * parts[0] + m * (w * parts[1]).sum(1)

  for _ in range(6):
    for tensor in theirs:
      tensor.requires_grad_()
    found = mixture().reshape(99, -1) @ torch.tensor(weights)
    wrong.append(found.argmax(1).numpy() != labels)
    left[wrong[-1] & (left != 0)] -= 1
    active = torch.tensor((left > 0) | (patience == 0))
    loss = torch.nn.functional.cross_entropy(
      found, torch.tensor(labels), reduction="sum"
    )
    slopes = torch.autograd.grad(loss, theirs)
    with torch.no_grad():
      share += 0.1 * torch.sign(slopes[0]) * active
      share.clamp_(0, 1)
      logits += 0.1 * torch.sign(slopes[1]) * active[:, None]
  assert (~wrong[0] & wrong[-1]).any()  # some images turn wrong on the way
  with jax.enable_x64(True):
    made = method("augmax", steps=6, patience=patience)
    matrix = jnp.asarray(weights)
    ours = made.worst(
      tuple(map(jnp.asarray, start)),
      jnp.asarray(images),
      jnp.asarray(chains),
      jnp.asarray(labels),
      jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, matrix),
    )
  np.testing.assert_allclose(ours, mixture().detach(), rtol=1e-9)


def test_options_beyond_the_paper(model):
  rng = np.random.default_rng(3)
  with jax.enable_x64(True):
    logits = tuple(jnp.asarray(rng.normal(size=(3, 5, 10))))
    plain, _ = method("robust_augmix").loss(logits, jnp.arange(5))
    options = {"attacked": "augmix", "adversarial_weight": 0.5}
    made = method("robust_augmix", **options)
    loss, _ = made.loss(logits, jnp.arange(5))
    extra = losses.cross_entropy(logits[2], jnp.arange(5))
    np.testing.assert_allclose(loss, plain + 0.5 * extra, rtol=1e-12)
    given = batch()
    keys = keys_lib.per_example(jax.random.key(0), jnp.arange(4))
    images = jax.jit(lambda *x: [x for _, x in made.views(*x)[0]])
    _, augmented, adversarial = images(keys, given, model)
    moved = np.linalg.norm(np.reshape(adversarial - augmented, (4, -1)), axis=1)
  assert (moved <= ATTACK["epsilon"] + 1e-6).all()
  assert (moved > 0).all()


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"weight": -1.0}, "weight is -1.0"),
    ({"weight": float("nan")}, "weight is nan"),
    ({"jensen_shannon": "fast"}, "give exact or clamped"),
    ({"attacked": "both"}, "give clean or augmix"),
    ({"adversarial_weight": -0.5}, "adversarial_weight is -0.5"),
    ({"temperature": 1.0}, "has no field temperature"),
  ],
)
def test_bad_fields_are_named(fields, words):
  with pytest.raises(ValueError, match=words):
    method("robust_augmix", **fields)


def test_unknown_method_lists_the_methods():
  known = ", ".join(plugins.available("method"))
  with pytest.raises(ValueError, match=known):
    plugins.build("method", {"name": "none"})


def _add(tree, factor, direction):
  return jax.tree.map(lambda x, d: x + factor * d, tree, direction)


def _unit(tree):
  norm = np.sqrt(sum(float((x**2).sum()) for x in jax.tree.leaves(tree)))
  return jax.tree.map(lambda x: x / norm, tree)


def _random_unit(tree, seed):
  rng = np.random.default_rng(seed)
  return _unit(
    jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), tree)
  )
