"""The optimizer and its learning rates against PyTorch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ram_jax.training import optim

EPOCHS, PER_EPOCH = 5, 3
STEPS = EPOCHS * PER_EPOCH
FIELDS = {
  "momentum": 0.9,
  "nesterov": True,
  "weight_decay": 5e-4,
  "decay_all": True,
  "warmup_epochs": 0,
}


def sgd(schedule, steps_per_epoch, epochs, **fields):
  return optim.Optimizer(schedule, steps_per_epoch, epochs, **FIELDS | fields)


def rates(*fields, **others):
  return functools.partial(sgd(*fields, **others).rate, 0.1)


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_equals_pytorch(nesterov):
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(0)
  start, targets = rng.normal(size=(2, 7))
  weight = torch.nn.Parameter(torch.tensor(start))
  reference = torch.optim.SGD(
    [weight], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=5e-4
  )
  # The author steps the cosine once an epoch.
  cosine = torch.optim.lr_scheduler.CosineAnnealingLR(reference, EPOCHS)
  with jax.enable_x64(True):
    optimizer = sgd("cosine_epoch", PER_EPOCH, EPOCHS, nesterov=nesterov)
    actual = optimizer(0.1)
    params = jnp.asarray(start)
    state = actual.init(params)
    for step in range(STEPS):
      assert reference.param_groups[0]["lr"] == pytest.approx(
        float(optimizer.rate(0.1, step)), rel=1e-12
      )
      reference.zero_grad()
      ((weight - torch.tensor(targets)) ** 4).sum().backward()
      reference.step()
      gradient = 4 * (params - targets) ** 3
      updates, state = actual.update(gradient, state, params)
      params = optax.apply_updates(params, updates)
      np.testing.assert_allclose(params, weight.detach().numpy(), rtol=1e-12)
      if (step + 1) % PER_EPOCH == 0:
        cosine.step()


def test_learning_rates():
  # Half of the way: cos(pi / 2) = 0, so half of the peak.
  step = rates("cosine_step", 2, 4)
  np.testing.assert_allclose(
    [step(0), step(4), step(8)], [0.1, 0.05, 0], atol=1e-8
  )
  epoch = rates("cosine_epoch", 2, 4)
  assert float(epoch(4)) == float(epoch(5)) == pytest.approx(0.05)
  assert float(epoch(3)) > float(epoch(4)) > float(epoch(6)) > 0
  constant = rates("constant", 2, 4)
  assert float(constant(0)) == float(constant(7)) == pytest.approx(0.1)


def test_piecewise_with_a_warm_up_equals_pytorch():
  torch = pytest.importorskip("torch")
  epochs, steps = 8, 3
  reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
  ends = [4 * steps, 6 * steps]
  multi_step = torch.optim.lr_scheduler.MultiStepLR(reference, ends)
  with jax.enable_x64(True):
    schedule = rates("piecewise", steps, epochs, warmup_epochs=1.5)
    for step in range(epochs * steps):
      expected = multi_step.get_last_lr()[0] * min(
        1, (step + 1) / (1.5 * steps)
      )
      for given in (step, jnp.array(step)):
        assert float(schedule(given)) == pytest.approx(expected, 1e-12)
      reference.step()
      multi_step.step()


@pytest.mark.parametrize("decay_all", [True, False])
def test_weight_decay_of_some_parameters_equals_pytorch(decay_all):
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(0)
  start = {"kernel": rng.normal(size=(2, 3)), "scale": rng.normal(size=3)}
  weights = {n: torch.nn.Parameter(torch.tensor(x)) for n, x in start.items()}
  decay = {"kernel": 0.1, "scale": 0.1 if decay_all else 0}
  groups = [{"params": [weights[n]], "weight_decay": decay[n]} for n in start]
  reference = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
  with jax.enable_x64(True):
    fields = {"weight_decay": 0.1, "decay_all": decay_all, "nesterov": False}
    actual = sgd("constant", 1, 1, **fields)(0.1)
    params = jax.tree.map(jnp.asarray, start)
    state = actual.init(params)
    for _ in range(3):
      sum((x**2).sum() for x in weights.values()).backward()
      reference.step()
      reference.zero_grad()
      gradient = jax.tree.map(lambda x: 2 * x, params)
      updates, state = actual.update(gradient, state, params)
      params = optax.apply_updates(params, updates)
  for name, weight in weights.items():
    np.testing.assert_allclose(params[name], weight.detach(), rtol=1e-12)


def test_unknown_schedule_lists_the_schedules():
  with pytest.raises(ValueError, match="or constant or piecewise"):
    sgd("linear", 2, 4)
