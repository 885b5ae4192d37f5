import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.models.batch_norm import BatchNorm

pytestmark = pytest.mark.usefixtures("quick_compilation")


def init(module, inputs):
  return module.init(jax.random.key(0), inputs, True)


def train(module, variables, inputs):
  run = jax.jit(lambda v, x: module.apply(v, x, True, mutable=["batch_stats"]))
  return run(variables, inputs)


def test_three_steps_and_evaluation_equal_torch(x64):
  torch = pytest.importorskip("torch")
  reference = torch.nn.BatchNorm2d(5).double()
  module, variables = BatchNorm(), init(BatchNorm(), jnp.zeros((1, 2, 2, 5)))
  rng = np.random.default_rng(0)
  weight, bias = rng.normal(size=(2, 5))
  reference.load_state_dict(
    {"weight": torch.tensor(weight), "bias": torch.tensor(bias)}, strict=False
  )
  params = {"scale": jnp.asarray(weight), "bias": jnp.asarray(bias)}
  variables = {**variables, "params": params}
  for _ in range(3):
    x = rng.normal(2, 3, size=(4, 3, 3, 5))
    expected = reference(torch.tensor(x.transpose(0, 3, 1, 2)))
    actual, update = train(module, variables, jnp.asarray(x))
    variables = {**variables, **update}
    expected = expected.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
  stats = variables["batch_stats"]
  np.testing.assert_allclose(stats["mean"], reference.running_mean, rtol=1e-12)
  np.testing.assert_allclose(stats["var"], reference.running_var, rtol=1e-12)
  actual = module.apply(variables, jnp.asarray(x), False)
  expected = reference.eval()(torch.tensor(x.transpose(0, 3, 1, 2)))
  expected = expected.detach().numpy().transpose(0, 2, 3, 1)
  np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_statistics_by_hand():
  # 1, 2, 3, 6: mean 3, biased variance 14/4, unbiased 14/3.
  x = jnp.asarray([1.0, 2, 3, 6]).reshape(4, 1, 1, 1)
  y, update = train(BatchNorm(), init(BatchNorm(), x), x)
  expected = np.array([-2, -1, 0, 3]) / np.sqrt(14 / 4 + 1e-5)
  np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6, atol=1e-7)
  stats = update["batch_stats"]
  np.testing.assert_allclose(stats["mean"], [0.1 * 3], rtol=1e-6)
  np.testing.assert_allclose(stats["var"], [0.9 + 0.1 * 14 / 3], rtol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_axis_name_shares_statistics_over_the_whole_batch(x64, shared):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3, 3, 5)))
  x += jnp.arange(4).reshape(4, 1, 1, 1, 1)  # the shards' means differ
  variables = init(BatchNorm(), x[0])
  whole = train(BatchNorm(), variables, x.reshape(8, 3, 3, 5))
  module = BatchNorm(axis_name="batch" if shared else None)
  run = jax.vmap(
    lambda x: module.apply(variables, x, True, mutable=["batch_stats"]),
    axis_name="batch",
  )
  y, update = jax.jit(run)(x)
  same = np.allclose(y.reshape(whole[0].shape), whole[0], rtol=1e-12)
  assert same == shared
  for actual, expected in zip(
    jax.tree.leaves(update), jax.tree.leaves(whole[1]), strict=True
  ):
    assert np.allclose(actual, expected[None], rtol=1e-12) == shared


def test_large_means_do_not_lose_the_variance():
  # float32 holds 1e4 to 1e-3; its square, 1e8, only to 8: one pass gives 0-16.
  x = jnp.asarray(np.random.default_rng(0).normal(1e4, 1, (4096, 1)))
  _, update = train(BatchNorm(), init(BatchNorm(), x), x)
  measured = (update["batch_stats"]["var"] - 0.9) / 0.1
  expected = np.asarray(x, np.float64).var(0, ddof=1)
  np.testing.assert_allclose(measured, expected, rtol=1e-3)


@pytest.mark.parametrize(("running", "rtol"), [(0, 5e-3), (99, 1e-5)])
def test_bfloat16_variance_is_more_precise_than_its_inputs(running, rtol):
  # Rounding the inputs to multiples of 1/2 changes their variance by 2e-2.
  x = np.random.default_rng(0).normal(100, 1, (4096, 3))
  x = jnp.asarray(x, jnp.bfloat16)
  variables = init(BatchNorm(), x)
  variables["batch_stats"]["mean"] += running
  _, update = train(BatchNorm(), variables, x)
  measured = (update["batch_stats"]["var"] - 0.9) / 0.1
  expected = np.asarray(x, np.float64).var(0, ddof=1)
  np.testing.assert_allclose(measured, expected, rtol=rtol)


def test_constant_bfloat16_inputs_have_no_negative_variance():
  # The mean of squares is 1e4; float32 cannot represent its error, -1e-4.
  x = jnp.broadcast_to(jnp.arange(90, 110, dtype=jnp.bfloat16), (999, 20))
  y, update = train(BatchNorm(), init(BatchNorm(), x), x)
  assert min(update["batch_stats"]["var"]) >= 0.9
  assert np.all(np.isfinite(y))


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize(
  ("dtype", "tolerance"), [("float64", 1e-11), ("bfloat16", 2e-2)]
)
def test_gradients_equal_those_of_the_definition(
  x64, devices, dtype, tolerance
):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(5, 2, size=(8, 3, 3, 5)), dtype)
  weights = jnp.asarray(rng.normal(size=x.shape))
  params = dict(zip(("scale", "bias"), rng.normal(size=(2, 5)), strict=True))
  stats = {"mean": jnp.full(5, 3.0), "var": jnp.ones(5)}
  module = BatchNorm("batch", dtype)

  def loss(x, params, weights):
    y, _ = module.apply(
      {"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"]
    )
    return jnp.sum(weights * jnp.sin(y))

  def definition(x, params):
    normal = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
    return jnp.sum(weights * jnp.sin(normal * params["scale"] + params["bias"]))

  # Each device differentiates its own loss, as in the training step.
  shards = [v.reshape(devices, -1, *v.shape[1:]) for v in (x, weights)]
  to_inputs, to_params = jax.pmap(
    jax.grad(loss, (0, 1)), "batch", in_axes=(0, None, 0)
  )(shards[0], params, shards[1])
  assert to_inputs.dtype == x.dtype
  found = (
    to_inputs.reshape(x.shape),
    jax.tree.map(lambda g: g.sum(0), to_params),
  )
  expected = jax.grad(definition, (0, 1))(x.astype(float), params)
  for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    error = np.linalg.norm(np.asarray(a, float) - b) / np.linalg.norm(b)
    assert error <= tolerance


def test_bfloat16_inputs_have_statistics_in_single_precision():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4096, 3)), jnp.bfloat16)
  module = BatchNorm(dtype=jnp.bfloat16)
  y, update = train(module, init(module, x), x)
  assert y.dtype == jnp.bfloat16
  mean = update["batch_stats"]["mean"]
  assert mean.dtype == jnp.float32
  expected = 0.1 * np.asarray(x, np.float64).mean(0)
  np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-7)


def test_one_value_per_channel_is_an_error():
  x = jnp.zeros((1, 1, 1, 3))
  with pytest.raises(ValueError, match="one value per channel"):
    train(BatchNorm(), init(BatchNorm(), x), x)
