"""EMA and SWA against PyTorch's, and weight perturbation against its code."""

import contextlib
import copy
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import standard
from ram_jax import experiment
from ram_jax.data import digits, feed, pipeline
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.training import averaging
from ram_jax.training import loop as train
from tests import tiny

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.optim import swa_utils  # noqa: E402

pytestmark = pytest.mark.usefixtures("tiny_network", "quick_compilation")

BATCH, SIDE, PER_EPOCH, EPOCHS = 8, 8, 4, 5
SHAPE = (PER_EPOCH * BATCH, SIDE, SIDE, 3)


@pytest.fixture(scope="module")
def data():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 10, SHAPE[0], np.int32)
  return {"images": rng.integers(0, 256, SHAPE, np.uint8), "labels": labels}


def build(**overrides):
  config = standard.get_config()
  config.train.batch_size, config.train.epochs = BATCH, EPOCHS
  config.optimizer.schedule = "constant"
  config.augment.padding, config.augment.flip = 0, False
  config.update_from_flattened_dict(overrides)
  config = experiment.resolve(config)
  return config, train.build(config, digits.Source(), SHAPE)


def states(data, config, training):
  """The state after each step of a run, on the host."""
  state, settings = training.create(), training.settings
  for rows, indices in feed.dispatches(training, data, 0):
    state, _ = training.dispatch(state, rows, settings, indices)
    state = jax.tree.map(np.asarray, state)
    yield state


def tensors(tree):
  return [torch.tensor(np.array(x)) for x in jax.tree.leaves(tree)]


def assert_same(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def assert_close(tree, expected):
  for ours, theirs in zip(jax.tree.leaves(tree), expected, strict=True):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), 1e-12, 1e-14)


@pytest.mark.parametrize("batch_norm", ["copied", "averaged"])
def test_ema_equals_pytorch(data, batch_norm):
  first, expected = 2, None
  fields = {"name": "ema", "decay": 0.5, "batch_norm": batch_norm}
  fields["start"] = first / (EPOCHS * PER_EPOCH)
  with jax.enable_x64(True):
    run = build(**{f"average.{name}": x for name, x in fields.items()})
    for step, state in enumerate(states(data, *run), start=1):
      weights = {"params": state.params, "batch_stats": state.batch_stats}
      average = dict(state.average)
      if batch_norm == "copied":
        stats = average.pop("batch_stats"), weights.pop("batch_stats")
        assert_same(*stats)
      if step < first:
        assert_same(average, weights)
        expected = tensors(weights)
        continue
      decay = min(0.5, (1 + step - first) / (10 + step - first))
      update = swa_utils.get_ema_multi_avg_fn(decay)
      update(expected, tensors(weights), None)
      assert_close(average, expected)


def test_swa_equals_pytorch(data):
  module = nn.ParameterList()
  with jax.enable_x64(True):
    run = build(**{"average.name": "swa", "average.start": 0.3})
    module.extend(tensors(run[1].create().params))
    average = swa_utils.AveragedModel(module)
    for step, state in enumerate(states(data, *run), start=1):
      if step % PER_EPOCH == 0 and step > 0.3 * EPOCHS * PER_EPOCH:
        average.update_parameters(nn.ParameterList(tensors(state.params)))
      if average.n_averaged:
        assert_close(state.average["params"], average.module)
  assert average.n_averaged == 4


@pytest.mark.parametrize("start, first", [(0.7, 22), (0.69, 21)])
def test_swa_starts_after_whole_epochs(start, first):
  # In floats, 0.7 x 30 x 390 is less than 21 x 390.
  found = averaging.Averaging("swa", 0.0, start, "copied", 390, 30 * 390)
  shares = [float(found._swa(jnp.asarray(390 * epoch))) for epoch in range(31)]
  assert shares[:first] == [0] * first
  # The second epoch counts as much as the first one.
  assert shares[first : first + 2] == [0.0, 0.5]


class Net(nn.Module):
  """tests.tiny.Net."""

  def __init__(self, variables):
    super().__init__()
    widths = (3, *tiny.Net().widths)
    self.convs = nn.ModuleList(
      nn.Conv2d(*pair, 3, 2, 1, bias=False)
      for pair in itertools.pairwise(widths)
    )
    self.norms = nn.ModuleList(map(nn.BatchNorm2d, widths[1:]))
    self.head = nn.Linear(widths[-1], 10)
    self.double()
    params = variables["params"]
    with torch.no_grad():
      for parameter, value in self.pairs(params):
        parameter.copy_(torch.tensor(value))

  def pairs(self, params):
    """Pairs of a parameter and the tree's array in PyTorch's layout."""
    for i, conv in enumerate(self.convs):
      kernel = params[f"Conv_{i}"]["kernel"]
      yield conv.weight, np.transpose(kernel, (3, 2, 0, 1))
      yield self.norms[i].weight, params[f"BatchNorm_{i}"]["scale"]
      yield self.norms[i].bias, params[f"BatchNorm_{i}"]["bias"]
    yield self.head.weight, params["Dense_0"]["kernel"].T
    yield self.head.bias, params["Dense_0"]["bias"]

  def forward(self, images):
    x = images - 0.5
    for conv, norm in zip(self.convs, self.norms, strict=True):
      x = nn.functional.relu(norm(conv(x)))
    return self.head(x.mean((2, 3)))


def perturbed_step(net, optimizer, images, labels, gamma):
  """A step as in the code of Wu et al. (2020), with a copy of the network."""
  proxy = copy.deepcopy(net)
  ascent = torch.optim.SGD(proxy.parameters(), lr=0.01)
  (-nn.functional.cross_entropy(proxy(images), labels)).backward()
  ascent.step()
  moves = []
  with torch.no_grad():
    pairs = zip(net.parameters(), proxy.parameters(), strict=True)
    for weight, other in pairs:
      move = other - weight
      move *= gamma * (weight.ndim > 1) * weight.norm() / (move.norm() + 1e-20)
      moves.append(move)
      weight += move
  optimizer.zero_grad()
  nn.functional.cross_entropy(net(images), labels).backward()
  optimizer.step()
  with torch.no_grad():
    for weight, move in zip(net.parameters(), moves, strict=True):
      weight -= move


@pytest.mark.parametrize("first_epoch", [0, 1])
def test_weight_perturbation_equals_its_code(data, first_epoch):
  fields = {"awp.gamma": 0.01, "awp.first_epoch": first_epoch}
  with jax.enable_x64(True):
    config, training = build(**fields)
    net = Net({"params": jax.tree.map(np.asarray, training.create().params)})
    sgd = config.optimizer
    optimizer = torch.optim.SGD(
      net.parameters(),
      sgd.learning_rate,
      momentum=sgd.momentum,
      nesterov=True,
      weight_decay=sgd.weight_decay,
    )
    for step, state in enumerate(states(data, config, training)):
      (order,) = pipeline.batch_indices(0, step, 1, SHAPE[0], BATCH)
      images = data["images"][order].transpose(0, 3, 1, 2) / 255
      labels = torch.tensor(data["labels"][order], dtype=torch.int64)
      gamma = 0.01 if step >= first_epoch * PER_EPOCH else 0
      perturbed_step(net, optimizer, torch.tensor(images), labels, gamma)
      for ours, theirs in net.pairs(state.params):
        np.testing.assert_allclose(
          theirs, ours.detach().numpy(), rtol=1e-8, atol=1e-10
        )
      if step == PER_EPOCH + 1:
        break
  for norm, stats in zip(net.norms, state.batch_stats.values(), strict=True):
    np.testing.assert_allclose(norm.running_var, stats["var"], rtol=1e-8)


def test_reestimated_statistics_are_means_over_an_epoch(data, tmp_path):
  fields = {"average.name": "swa", "average.batch_norm": "reestimated"}
  with jax.enable_x64(True):
    config, training = build(**fields, **{"train.epochs": 2})
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as saved:
      train.fit(config, training, data, tmp_path, saved)
      saved.close()
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as saved:
      state, _ = saved.restore(training.create())
    net = Net(state.average)
    for norm in net.norms:
      norm.momentum = None  # a cumulative mean
    order = pipeline.batch_indices(0, 0, PER_EPOCH, SHAPE[0], BATCH)
    for indices in order:
      images = data["images"][indices].transpose(0, 3, 1, 2) / 255
      net(torch.tensor(images))
  found = state.average["batch_stats"].values()
  for norm, stats in zip(net.norms, found, strict=True):
    np.testing.assert_allclose(norm.running_mean, stats["mean"], rtol=1e-10)
    # From a variance of 1, which a cumulative mean drops.
    np.testing.assert_allclose(norm.running_var, stats["var"], rtol=1e-10)
