"""Parity with the PyTorch reference: a subset of docs/parity.md.

The matrix of `python -m benchmarks.parity` takes half an hour of one core; here
each branch of the code is passed once, on the smallest network that has it.
"""

import ast
import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import (  # noqa: E402
  distances,
  setting,
  torch_evaluate,
  two_sides,
)
from benchmarks.torch_reference import training  # noqa: E402
from ram_jax.interop import weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")
WRN = {"name": "wide_resnet", "depth": 10, "widen_factor": 1}
PREACT = {"name": "preact_resnet", "variant": "rice"}
ROOT = pathlib.Path(__file__).resolve().parents[1]
SIZE = distances.SIZE


@pytest.fixture(autouse=True)
def one_thread():
  """Small operations do not gain from threads, and tests run side by side."""
  before = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(before)


def options(views="separate", divergence="exact", attack="running"):
  values = (views, divergence, attack)
  return dict(zip(distances.OPTIONS, values, strict=True))


def test_one_batch_and_its_attacks():
  found = distances.one_batch(WRN, SIZE, attack=True)
  assert len(found) == 10
  assert max(found.values()) <= distances.BATCH_BOUND, found


# Our bottleneck is compared in models/networks_test.py too.
@pytest.mark.parametrize(
  "model",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (i > 0))
    for i, name in enumerate(distances.OTHER_MODELS)
  ],
)
def test_one_batch_of_other_networks(model):
  spec = distances.OTHER_MODELS[model]
  found = distances.one_batch(spec, SIZE, attack=False)
  assert max(found.values()) <= distances.BATCH_BOUND, found


# torchvision's bottleneck with SiLU is compared in models/networks_test.py.
@pytest.mark.parametrize(
  "spec",
  [
    WRN,
    pytest.param(distances.MODELS["ResNet-18"], marks=pytest.mark.slow),
    pytest.param(PREACT, marks=pytest.mark.slow),
  ],
  ids=lambda x: x["name"],
)
def test_one_batch_with_silu(spec):
  found = distances.one_batch(spec | {"activation": "silu"}, SIZE, attack=False)
  assert max(found.values()) <= distances.BATCH_BOUND, found


# The method with every view and loss. The slow ones have other values of every
# option; the other methods are parts of it, and methods_test.py has each one's
# loss by hand.
@pytest.mark.parametrize(
  ("method", "model", "chosen"),
  [
    ("robust_augmix", WRN, options()),
    *(
      pytest.param(*row, marks=pytest.mark.slow)
      for row in (
        ("robust_augmix", WRN, options("joint", "clamped", "batch")),
        ("standard", WRN, {}),
        ("adversarial", WRN, {"batch_norm.attack": "running"}),
        (
          "augmix",
          WRN,
          {"batch_norm.views": "separate", "method.jensen_shannon": "clamped"},
        ),
        ("robust_augmix", distances.MODELS["ResNet-18"], options()),
      )
    ),
  ],
  ids=["separate", "joint", "standard", "adversarial", "augmix", "resnet_18"],
)
def test_three_steps(method, model, chosen):
  count = setting.STEPS
  found = distances.several_steps(method, model, SIZE, count, **chosen)
  assert max(found.values()) <= distances.STEP_BOUND, found


@pytest.mark.slow
def test_float32_is_as_accurate_as_pytorch():
  found = distances.one_batch_in_float32(WRN, SIZE)
  for quantity in ("logits, evaluation", "logits, training", "statistics"):
    assert found[quantity] <= distances.SINGLE_BOUND, quantity
  # Without an attack, whose many passes meet the kinks of ReLU more often.
  momentum = distances.rounding("standard", WRN, SIZE, draws=3)
  actual, expected = np.median(momentum, axis=1)
  assert actual <= distances.ROUNDING_BOUND * expected


def their_steps(**chosen):
  with jax.enable_x64(True):
    run = setting.build("robust_augmix", WRN, SIZE, **chosen)
    return two_sides.their_steps(
      run, setting.draw_views(run), setting.STEPS, torch.float64
    )


def test_every_option_changes_results_beyond_the_tolerance():
  """Otherwise, the wrong option could go undetected."""
  usual = their_steps(**options())
  for name, values in distances.OPTIONS.items():
    other = their_steps(**options() | {name: values[1]})
    assert max(distances.between(other, usual).values()) > 1e-7, name


def with_bias(run, bias):
  head = run.params["head"] | {"bias": bias}
  return dataclasses.replace(run, params=run.params | {"head": head})


def test_small_difference_is_detected():
  with jax.enable_x64(True):
    run = setting.build("robust_augmix", WRN, SIZE)
    views = setting.draw_views(run)
    expected = two_sides.their_forward(run, views, torch.float64)
    changed = with_bias(run, run.params["head"]["bias"] + 1e-7)
    actual = two_sides.their_forward(changed, views, torch.float64)
  found = distances.between(actual, expected)
  assert found["logits, training"] > distances.BATCH_BOUND
  assert found["statistics"] == 0


def test_non_finite_and_unmatched_tensors_are_detected():
  whole = {"logits": {"a": np.ones(2), "b": np.ones(2)}}
  broken = {"logits": {"a": np.ones(2), "b": np.asarray([1, np.nan])}}
  assert distances.between(broken, whole) == {"logits": np.inf}
  with pytest.raises(ValueError, match="cannot be compared"):
    distances.between({"logits": {"a": np.ones(2)}}, whole)


def test_the_page_has_every_case_within_the_bounds():
  text = (ROOT / "docs" / "parity.md").read_text()
  assert "**" not in text
  rows = [line for line in text.splitlines() if line.startswith("| ")]
  steps = [line for line in rows if f"| {setting.STEPS} |" in line]
  assert (
    len(steps) == len(distances.MODELS) * len(list(distances.cases())) == 45
  )


def test_attack_of_the_reference_draws_its_start_and_leaves_statistics():
  run = setting.build("adversarial", WRN, SIZE)
  network = two_sides.reference(run, torch.float32)
  before = {k: x.clone() for k, x in network.state_dict().items()}
  images = torch.full((4, 3, SIZE, SIZE), 0.5)
  labels = torch.arange(4)
  recipe = training.Recipe("adversarial", attack_batch_norm="batch")
  still = dataclasses.replace(recipe, attack_steps=0)
  start = training.attack(network, images, labels, still)
  np.testing.assert_allclose((start - images).flatten(1).norm(dim=1), 1, 1e-5)
  found = training.attack(network, images, labels, recipe)
  assert ((found - images).flatten(1).norm(dim=1) <= 1 + 1e-5).all()
  for name, value in network.state_dict().items():
    assert torch.equal(value, before[name]), name
  network.train()(images)  # and they are recorded again
  assert int(network.state_dict()["bn1.num_batches_tracked"]) == 1


def test_plain_pytorch_makes_the_same_predictions(tmp_path):
  run = setting.build("standard", WRN, SIZE)
  run = with_bias(run, np.zeros(10, np.float32))  # no class is the rule
  path = tmp_path / "export.safetensors"
  weights.write(path, run.module, run.params, run.batch_stats, {})
  images = run.data["images"]
  logits = run.classifier("running")(images / np.float32(255))
  fields = {name: value for name, value in WRN.items() if name != "name"}
  found = torch_evaluate.predictions(path, images, WRN["name"], **fields)
  np.testing.assert_array_equal(found, np.argmax(logits, axis=-1))
  assert len(set(found.tolist())) > 1
  silu = {"model": json.dumps({"activation": "silu"})}
  weights.write(path, run.module, run.params, run.batch_stats, silu)
  other = torch_evaluate.predictions(path, images, WRN["name"], **fields)
  assert (other != found).any()
  with pytest.raises(RuntimeError, match="block1.layer.1"):
    torch_evaluate.load(path, "wide_resnet", depth=16, widen_factor=1)


def test_plain_pytorch_is_plain():
  for path in ("torch_evaluate.py", *("torch_reference/networks.py",)):
    nodes = ast.walk(ast.parse((ROOT / "benchmarks" / path).read_text()))
    names = [n.module for n in nodes if isinstance(n, ast.ImportFrom)]
    assert not any(n.startswith(("jax", "ram_jax", "flax")) for n in names)
