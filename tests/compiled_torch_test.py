"""The compiled form of the PyTorch reference equals its eager form."""

import copy

import pytest

torch = pytest.importorskip("torch")

from benchmarks.torch_reference import compiled, networks, training  # noqa: E402

STEPS = 3


@pytest.fixture
def nothing_compiles_twice():
  """Graphs and their differentiation, without the minutes of kernels."""
  torch.compiler.reset()
  with torch._dynamo.config.patch(error_on_recompile=True):
    yield compiled.compiler("aot_eager")
  torch.compiler.reset()


def batches(count):
  """Images, their AugMix views and the starts of attacks; float64."""
  draw = torch.Generator().manual_seed(0)
  shape = (count, 3, 4, 3, 8, 8)
  return torch.rand(shape, generator=draw, dtype=torch.float64).unbind()


# The method with every part, and one whose only view is adversarial.
@pytest.mark.slow
@pytest.mark.parametrize("method", ["robust_augmix", "adversarial"])
def test_compiled_steps_equal_eager_steps(method, nothing_compiles_twice):
  torch.manual_seed(0)
  mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
  expected = networks.WideResNet(10, mean, std, 10, 1).double()
  found = copy.deepcopy(expected)
  recipe = training.Recipe(method, attack_steps=2)
  labels = torch.arange(4)
  optimizers = [training.sgd(model) for model in (expected, found)]
  step = compiled.step(found, optimizers[1], recipe, nothing_compiles_twice)
  for images, view, start in batches(STEPS):
    given = lambda _, view=view: view  # noqa: E731
    losses = (
      training.step(
        expected, optimizers[0], images, labels, recipe, given, start
      ),
      step(images, labels, given, start),
    )
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
  for name, tensor in expected.state_dict().items():
    torch.testing.assert_close(
      found.state_dict()[name], tensor, rtol=1e-9, atol=1e-12
    )


def test_random_starts_are_on_the_sphere():
  images = torch.full((2, 3, 8, 8), 0.5)
  start = training.on_sphere(images, training.Recipe("adversarial"))
  torch.testing.assert_close(
    training.l2_norm(start - images), torch.ones(2, 1, 1, 1)
  )
