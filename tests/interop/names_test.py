"""Names, shapes and logits of the networks of others, and what does not fit.

originals.json was made with PyTorch 2.13 by the original code: torchvision
0.29's (stem and pooling replaced as the paper's author does), AugMix's,
RobustBench's, and locuslab/fast_adversarial's. `entries` and `sha256` are of
the state_dict's sorted lines "name [shape] type". `logits` are of one image in
float64, in evaluation mode, with weights and images drawn as by `value` and
`logits` below; the generator is numpy's frozen one. All have 7 classes.
"""

import functools
import hashlib
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.interop import names
from ram_jax.models import preact_resnet, resnet, wide_resnet

pytestmark = pytest.mark.usefixtures("quick_compilation")
ORIGINALS = json.loads(
  (pathlib.Path(__file__).parent / "originals.json").read_text()
)
STATISTICS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
SHAPE = (8, 8, 3)


def network(kind, *fields):
  return {
    "resnet": lambda depth=18, width=1: resnet.Model(
      7, **STATISTICS, depth=depth, width_factor=width
    ),
    "wrn": lambda depth=10, width=1: wide_resnet.Model(
      7, **STATISTICS, depth=depth, widen_factor=width
    ),
    "preact": lambda variant="robustbench": preact_resnet.Model(
      7, **STATISTICS, variant=variant
    ),
  }[kind](*fields)


# Of each original: our network, and the place of its naming.
OURS = {
  "torchvision resnet18": (network("resnet"), 0),
  "torchvision resnet50": (network("resnet", 50), 0),
  "torchvision wide_resnet50_2": (network("resnet", 50, 2), 0),
  "robustbench ResNet-18": (network("resnet"), 1),
  "robustbench ResNet-50": (network("resnet", 50), 1),
  "augmix WRN-16-2": (network("wrn", 16, 2), 1),
  "augmix WRN-40-2": (network("wrn", 40, 2), 1),
  "robustbench WRN-16-2": (network("wrn", 16, 2), 0),
  "robustbench WRN-28-10": (network("wrn", 28, 10), 0),
  "robustbench WRN-28-10 sub_block1": (network("wrn", 28, 10), 0),
  "robustbench PreActResNet-18": (network("preact"), 0),
  "robustbench PreActResNet-18 V2": (network("preact", "rice"), 0),
  "fast_adversarial PreActResNet-18": (network("preact", "fast"), 0),
}


@pytest.fixture
def choose(monkeypatch):
  """Makes one naming the one that is used for exports."""

  def set_first(module, place):
    known = names.NAMINGS[type(module)]
    order = (known[place], *known[:place], *known[place + 1 :])
    monkeypatch.setitem(names.NAMINGS, type(module), order)

  return set_first


@functools.cache
def shapes(module, double):
  with jax.enable_x64(double):
    return jax.eval_shape(
      lambda: module.init(jax.random.key(0), jnp.zeros((1, *SHAPE)), False)
    )


def zeros(module):
  made = shapes(module, jax.config.jax_enable_x64)
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), made)


def to_torch(module, variables):
  return names.to_torch(module, variables["params"], variables["batch_stats"])


def value(index, name, shape):
  """The values of the index-th of the sorted names without counters."""
  rng = np.random.RandomState(index)
  if len(shape) > 1:
    return rng.uniform(-1, 1, shape) * np.sqrt(3 / np.prod(shape[1:]))
  positive = name.endswith(("weight", "var"))
  return rng.uniform(*((0.5, 1.5) if positive else (-0.5, 0.5)), shape)


def test_every_original_is_compared():
  assert set(ORIGINALS) == set(OURS)


@pytest.mark.parametrize("original", OURS)
def test_names_and_shapes_equal_the_originals(original, choose):
  module, place = OURS[original]
  choose(module, place)
  tensors = to_torch(module, zeros(module))
  if "sub_block1" in original:
    first = {n: x for n, x in tensors.items() if n.startswith("block1.")}
    tensors |= {f"sub_{name}": array for name, array in first.items()}
    names.from_torch(module, SHAPE, tensors)  # these are not part of the module
  lines = [f"{n} {list(x.shape)} {x.dtype}" for n, x in sorted(tensors.items())]
  expected = ORIGINALS[original]
  assert len(lines) == expected["entries"]
  digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
  assert digest == expected["sha256"]


@pytest.mark.parametrize(
  "original", [name for name, row in ORIGINALS.items() if "logits" in row]
)
def test_logits_equal_the_originals(x64, original, choose):
  module, place = OURS[original]
  choose(module, place)
  tensors = to_torch(module, zeros(module))
  learned = sorted(n for n in tensors if not n.endswith("batches_tracked"))
  params, batch_stats = names.from_torch(
    module,
    SHAPE,
    {n: value(i, n, tensors[n].shape) for i, n in enumerate(learned)},
  )
  size = ORIGINALS[original]["size"]
  image = np.random.RandomState(0).uniform(size=(1, size, size, 3))
  # The originals get pixels that are normalized here.
  pixels = image * STATISTICS["std"] + STATISTICS["mean"]
  variables = {"params": params, "batch_stats": batch_stats}
  logits = module.apply(variables, pixels, False)[0]
  expected = np.array(ORIGINALS[original]["logits"])
  # Measured on one CPU: 6e-15.
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12)


def random_bits(variables):
  """Random bit patterns, including NaNs and signed zeros."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: np.frombuffer(rng.bytes(x.nbytes), x.dtype).reshape(x.shape),
    variables,
  )


def same_bits(actual, reference):
  assert jax.tree.structure(actual) == jax.tree.structure(reference)
  pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(reference), strict=True)
  for x, y in pairs:
    assert x.dtype == y.dtype and x.shape == y.shape
    assert x.tobytes() == y.tobytes() and y.flags.c_contiguous


# A type is kept whatever the network: one of 0.7 million numbers shows it.
@pytest.mark.parametrize(
  "double", [False, pytest.param(True, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
  ("module", "place"),
  [
    (network("resnet"), 0),
    (network("resnet"), 1),
    (network("wrn", 16, 2), 1),
    (network("preact"), 0),
    (network("preact", "rice"), 0),
  ],
)
def test_round_trips_are_exact(module, place, double, choose):
  assert_round_trip(module, place, double, choose)


@pytest.mark.parametrize("double", [False, True])
def test_round_trips_of_both_types_are_exact(double, choose):
  assert_round_trip(network("wrn", 16, 2), 0, double, choose)


def assert_round_trip(module, place, double, choose):
  choose(module, place)
  with jax.enable_x64(double):
    variables = random_bits(zeros(module))
    tensors = to_torch(module, variables)
    params, batch_stats = names.from_torch(module, SHAPE, tensors)
    same_bits(variables, {"params": params, "batch_stats": batch_stats})
    again = names.to_torch(module, params, batch_stats)
  same_bits(tensors, again)
  stem = np.asarray(variables["params"]["stem"]["kernel"])
  assert stem.dtype == (np.float64 if double else np.float32)
  # [H, W, in, out] has become [out, in, H, W].
  assert tensors["conv1.weight"][5, 2, 0, 1].tobytes() == (
    stem[0, 1, 2, 5].tobytes()
  )


def test_types_become_the_default_one(x64):
  module = network("wrn")
  tensors = to_torch(module, zeros(module))
  tensors = {n: x.astype(np.float32) + 1 / 3 for n, x in tensors.items()}
  params, _ = names.from_torch(module, SHAPE, tensors)
  assert params["head"]["bias"].dtype == np.float64
  assert (params["head"]["bias"] == np.float32(1 / 3)).all()
  with jax.enable_x64(False):
    params, _ = names.from_torch(
      module, SHAPE, {n: x.astype(np.float64) for n, x in tensors.items()}
    )
  assert params["head"]["bias"].dtype == np.float32


def misfit(module, tensors):
  with pytest.raises(ValueError) as error:
    names.from_torch(module, SHAPE, tensors)
  return str(error.value)


def test_mismatches_are_listed():
  module = network("wrn")
  tensors = to_torch(module, zeros(module))
  del tensors["block2.layer.0.bn1.running_mean"]
  del tensors["fc.bias"]
  tensors["conv1.weight"] = np.zeros((16, 1, 3, 3))
  tensors["fc.weight"] = np.zeros((64, 7))  # as many, but lying
  tensors["teacher.fc.weight"] = np.zeros((7, 64))
  message = misfit(module, tensors)
  assert message.startswith("the weights do not fit WRN-10-1 for 7 classes: ")
  for part in (
    "2 missing: block2.layer.0.bn1.running_mean [16], fc.bias [7];",
    "1 unexpected: teacher.fc.weight [7, 64];",
    "2 with a different shape: conv1.weight [16, 1, 3, 3] instead of "
    "[16, 3, 3, 3], fc.weight [64, 7] instead of [7, 64];",
    "they look like WRN-10-1 for 64 classes: choose",
  ):
    assert part in message
  assert "\n" not in message


def test_only_counters_may_be_absent():
  module = network("wrn")
  tensors = to_torch(module, zeros(module))
  counted = [name for name in tensors if name.endswith("num_batches_tracked")]
  assert len(counted) == 7  # normalisations of three blocks, and the last
  names.from_torch(
    module, SHAPE, {n: x for n, x in tensors.items() if n not in counted}
  )
  tensors["fc.num_batches_tracked"] = np.zeros((), np.int64)
  assert "1 unexpected: fc.num_batches_tracked []" in misfit(module, tensors)


@pytest.mark.parametrize(
  ("module", "of_file", "part"),
  [
    (network("wrn"), network("wrn", 40, 2), "look like WRN-40-2 for 7 classes"),
    (network("wrn"), network("resnet", 50, 2), "look like WRN-50-2 for 7"),
    (network("preact"), network("resnet", 50), "look like ResNet-50 for 7"),
    (network("resnet"), network("preact"), "look like PreActResNet-18 for 7"),
    (
      network("preact"),
      network("preact", "fast"),
      "select one in the config string",
    ),
    (network("preact"), network("resnet"), "look like ResNet-18 for 7 classes"),
  ],
)
def test_another_network_is_recognised(module, of_file, part):
  message = misfit(module, to_torch(of_file, zeros(of_file)))
  assert part in message and len(message) < 1500


def test_long_lists_are_shortened():
  module = network("wrn")
  message = misfit(module, {})
  assert "39 missing: " in message and " and 33 more; they" in message
  message = misfit(module, {"backbone.weight": np.zeros(3)})
  assert "look like no known network" in message


def test_other_classes_and_stems_are_recognised():
  module = network("resnet")
  tensors = to_torch(module, zeros(module))
  tensors["fc.weight"] = np.zeros((1000, 512))
  tensors["fc.bias"] = np.zeros(1000)
  tensors["conv1.weight"] = np.zeros((64, 3, 7, 7))
  assert names.describe(tensors) == (
    "ResNet-18 for 1000 classes with a 7x7 stem for larger images"
  )
  message = misfit(module, tensors)
  assert "fc.weight [1000, 512] instead of [7, 512]" in message


def test_networks_without_pytorch_names():
  with pytest.raises(ValueError, match="flax.*are not known.*NAMINGS"):
    names.to_torch(nn.Dense(3), {}, {})
