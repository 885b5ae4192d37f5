"""Files that PyTorch users have, as the command line reads them: which network
is taken, with which normalization, and what is said where a file cannot be
used."""

import argparse
import functools
import pathlib
import types

import jax
import numpy as np
import pytest

from ram_jax import plugins
from ram_jax.contracts import Row
from ram_jax.interop import names
from ram_jax.models import wide_resnet
from tests.main_test import config, data, rejects, results, run  # noqa: F401

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

COMMON = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
OWN = ((0.5, 0.25, 0.125), (0.25, 0.5, 0.75))  # exact in float32
SILENT = "the file does not say how its network normalizes pixels"
ACTIVATION = "activation: relu, as given; the file does not state it"
BLOCK = "block1.layer.0.conv1.weight"


@functools.cache
def ones():
  module = wide_resnet.Model(4, *COMMON, depth=10, widen_factor=1)
  images = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
  made = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, 0), images)
  made = jax.tree.map(lambda x: np.ones(x.shape, np.float32), made)
  return names.to_torch(module, made["params"], made["batch_stats"])


def network(value=1.0):
  """The state_dict of a WRN-10-1 for four classes; conv1 has one value."""
  tensors = {name: torch.tensor(array) for name, array in ones().items()}
  return tensors | {"conv1.weight": tensors["conv1.weight"] * value}


def prefixed(prefix, tensors):
  return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def constants(mean="mean", std="std", values=OWN, shape=(1, 3, 1, 1)):
  pairs = zip((mean, std), values, strict=True)
  return {name: torch.tensor(x).reshape(shape) for name, x in pairs}


@pytest.fixture
def evaluate(config, tmp_path, monkeypatch):  # noqa: F811
  """Evaluates a file's content; the numbers themselves are not computed."""
  models = []

  def evaluated(self, model, images, *args):
    models.append(model)
    yield Row("clean", {}, len(images), len(images))

  monkeypatch.setattr(plugins.load("evaluator", "clean"), "results", evaluated)

  def call(content, *flags, suffix=".pt"):
    path, folder = tmp_path / f"file{suffix}", tmp_path / f"run{len(models)}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(content, path)
    argv = ["--mode=evaluate", config, f"--weights={path}"]
    code, out, err = run(*argv, f"--workdir={folder}", *flags)
    assert code == 0, err
    model, found = models[-1], results(folder)
    # What reaches the network is what the results record.
    used = (model.module.mean, model.module.std)
    recorded = found["config"]["normalization"]
    assert used == (tuple(recorded["mean"]), tuple(recorded["std"]))
    table = " ".join(out.split())
    texts = [note["text"] for note in found["notes"]]
    texts.remove(ACTIVATION)
    assert all(" ".join(text.split()) in table for text in texts)
    return types.SimpleNamespace(
      value=float(np.asarray(model.params["stem"]["kernel"])[0, 0, 0, 0]),
      used=used,
      # Between those of the file and of the numbers.
      notes=texts[1:-2],
    )

  return call


@pytest.fixture
def rejected(config, tmp_path):  # noqa: F811
  """Asserts the error line of a file that cannot be evaluated."""

  def call(words, content, *flags, suffix=".pt"):
    path = tmp_path / f"file{suffix}"
    if callable(content):
      content(path)
    else:
      save = save_file if suffix == ".safetensors" else torch.save
      save(content, path)
    argv = ["--mode=evaluate", config, f"--weights={path}"]
    argv += [f"--workdir={tmp_path / 'run'}", *flags]
    line = rejects(words, *argv)
    assert str(path) in line
    assert "get the file again" not in line  # which would not help
    return line

  return call


def saved(state_dict):
  """A checkpoint as AugMix's code saves it, and much other code."""
  extra = {"acc": 90.0, "best_acc": 0.9, "optimizer": {"param_groups": []}}
  return {"epoch": 3, "state_dict": state_dict} | extra


def test_normalization_is_not_guessed(evaluate, rejected):
  content = saved(prefixed("module.", network()))
  line = rejected("does not say how its network normalizes pixels", content)
  for name in ("augmix", "author", "common", "none"):
    assert f"{name}: mean " in line
  assert "--config.normalization.preset=NAME" in line
  found = evaluate(content, "--config.normalization.preset=common")
  assert found.used == COMMON
  assert found.notes == [
    "normalization: mean 0.4914, 0.4822, 0.4465 and std 0.2023, 0.1994, 0.201, "
    f"given by config.normalization.preset=common; {SILENT}"
  ]


@pytest.mark.parametrize(
  "tensors",
  [  # names by which AugMix's and the paper's author's files were guessed
    {
      n.replace("convShortcut", "conv_shortcut"): x
      for n, x in network().items()
    },
    prefixed("net.", network()),
  ],
)
def test_layer_names_do_not_imply_a_normalization(rejected, tensors):
  rejected("does not say how its network normalizes pixels", tensors)


@pytest.mark.parametrize(
  ("preset", "std"),
  [("augmix", 0.5), ("author", 0.2470), ("common", 0.2023), ("none", 1.0)],
)
def test_presets(evaluate, preset, std):
  found = evaluate(network(), f"--config.normalization.preset={preset}")
  assert found.used[1][0] == std


@pytest.mark.parametrize(
  "layout",
  [
    network() | constants("mu", "sigma"),
    network() | constants("mu", "sigma", shape=(3, 1, 1)),
    prefixed("1.", network()) | constants("0.mean", "0.std", shape=(3,)),
    prefixed("model.", network())
    | constants("normalize.mean", "normalize.std"),
    saved(
      prefixed(
        "module.",
        prefixed("model.", network())
        | constants("normalizer.new_mean", "normalizer.new_std")
        | constants("attacker.normalize.new_mean", "attacker.normalize.new_std")
        | prefixed("attacker.model.", network()),
      )
    ),
  ],
)
def test_constants_of_the_file(evaluate, layout):
  found = evaluate(layout)
  assert found.used == OWN
  (note,) = found.notes
  assert note.startswith(
    "normalization: the file states mean 0.5, 0.25, 0.125 and std 0.25, 0.5, "
    "0.75 ("
  )


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)])
def test_one_constant_applies_to_all_channels(evaluate, shape):
  content = network() | constants(values=(0.5, 0.25), shape=shape)
  assert evaluate(content).used == ((0.5,) * 3, (0.25,) * 3)


GREY = ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))


@pytest.mark.parametrize(
  ("extra", "words"),
  [
    (constants(values=GREY), "has mean 125.3, 123, 113.9; std 63, 62.1, 66.7"),
    (constants(values=(OWN[0], (0.2, 0.0, 0.2))), "std above 0 and at most 1"),
    (
      constants(values=((0.5, float("nan"), 0.5), OWN[1])),
      "has mean 0.5, nan,",
    ),
    (constants(values=(OWN[0], (0.5, float("inf"), 0.5))), "std 0.5, inf, 0.5"),
    (
      constants(values=((0.5,) * 4, (0.5,) * 4), shape=4),
      "has mean 0.5, 0.5, 0.5, 0.5; std 0.5, 0.5, 0.5, 0.5: it needs one mean",
    ),
    (
      {"mean": torch.ones(3)},
      "has mean 1, 1, 1: it needs one mean and one std, with one or three num",
    ),
    ({"norm.sigma": torch.ones(3)}, "has norm.sigma 1, 1, 1: it needs one mea"),
    (
      constants() | constants("norm.mean", "norm.std", (OWN[1], OWN[0])),
      "has mean 0.5, 0.25, 0.125; std 0.25, 0.5, 0.75; norm.mean 0.25, 0.5, 0."
      "75; norm.std 0.5, 0.25, 0.125: it needs one mean and one std",
    ),
  ],
)
def test_constants_that_cannot_be_used(evaluate, rejected, extra, words):
  content = prefixed("model.", network()) | extra
  line = rejected(words, content)
  assert "give --config.normalization.preset=NAME" in line
  if extra["mean" if "mean" in extra else "norm.sigma"].max() > 1:
    assert "divide numbers on the 0-255 scale by 255" in line
  found = evaluate(content, "--config.normalization.preset=none")
  assert words in found.notes[0] and found.used[1] == (1.0,) * 3


def test_constants_of_a_loss_are_ignored(evaluate, rejected):
  loss = constants("perceptual.mean", "perceptual.std")
  content = prefixed("net.", network()) | loss
  rejected("does not say how its network normalizes pixels", content)
  found = evaluate(content, "--config.normalization.preset=none")
  left = "unused tensors in the file: perceptual.mean, perceptual.std"
  assert found.notes[0] == left


def test_given_constants_take_precedence(evaluate):
  found = evaluate(
    network() | constants(),
    "--config.normalization.mean=0,0,0",
    "--config.normalization.std=1,1,1",
  )
  assert found.notes == [
    "normalization: mean 0, 0, 0 and std 1, 1, 1, given by config."
    "normalization; the file states mean 0.5, 0.25, 0.125 and std 0.25, 0.5, "
    "0.75 (mean, std)"
  ]


# What surrounds a network that is alone in its file.
WRAPPED = {
  "model_state_dict": lambda sd: {"model_state_dict": sd, "epoch": 1},
  "model_state": lambda sd: {"model_state": sd, "cfg": {"lr": [0.1]}},
  "averaged alone": lambda sd: {"state_dict_ema": sd},
  "any other name": lambda sd: {"w": {"generator": sd}},
  "compiled": lambda sd: prefixed("_orig_mod.", sd),
  "compiled in parallel": lambda sd: prefixed("module._orig_mod.", sd),
  "parallel in compiled": lambda sd: prefixed("_orig_mod.module.", sd),
  "timm's": lambda sd: {
    "state_dict": sd,
    "args": argparse.Namespace(lr=0.1, out=pathlib.Path("x")),
  },
}


@pytest.mark.parametrize("layout", WRAPPED)
def test_wrappers(evaluate, layout):
  content = WRAPPED[layout](network(3.0) | constants())
  found = evaluate(content)
  assert found.value == 3.0 and len(found.notes) == 1


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_unused_tensors_are_named(evaluate, suffix):
  extra = {"n_averaged": torch.tensor(5), "criterion.weight": torch.ones(4)}
  content = prefixed("module.", network(3.0) | constants()) | extra
  found = evaluate(content, suffix=suffix)
  assert found.value == 3.0 and sorted(found.notes)[-1] in (
    "unused tensors in the file: n_averaged, criterion.weight",
    "unused tensors in the file: criterion.weight, n_averaged",
  )


@pytest.mark.parametrize(
  ("main", "other"),
  [
    ("state_dict", "state_dict_ema"),
    ("model", "model_ema"),
    ("model_state_dict", "unaveraged_model_state_dict"),
    ("last", "best"),
  ],
)
def test_one_of_several_networks(evaluate, main, other):
  content = {
    other: prefixed("module.", network(5.0) | constants()),
    main: prefixed("module.", network(3.0) | constants()),
  }
  found = evaluate(content)
  assert found.value == 3.0 and found.notes[0] == (
    f"of the networks in the file, {main}.module was used, not "
    f"{other}.module (choose with config.weights.entry)"
  )
  chosen = evaluate(content, f"--config.weights.entry={other}")
  assert chosen.value == 5.0 and chosen.notes[0] == (
    f"of the networks in the file, {other}.module was used, not "
    f"{main}.module (choose with config.weights.entry)"
  )


def test_networks_inside_one_state_dict(evaluate, rejected):
  students = prefixed("student.", network(3.0)) | constants(
    "student.normalize.mean", "student.normalize.std"
  )
  teachers = prefixed("teacher.", network(5.0)) | constants(
    "teacher.normalize.mean", "teacher.normalize.std", (OWN[1], OWN[0])
  )
  content = {"state_dict": students | teachers}
  line = rejected("choose one with --config.weights.entry", content)
  assert "state_dict.student, state_dict.teacher" in line
  chosen = "--config.weights.entry=state_dict.teacher"
  found = evaluate(content, chosen)
  assert found.value == 5.0 and found.used == (OWN[1], OWN[0])
  rejected(
    "has no network state_dict.teach (config.weights.entry): it has state_dict",
    content,
    "--config.weights.entry=state_dict.teach",
  )


def test_a_network_around_another_one(evaluate):
  content = network(3.0) | constants() | prefixed("ema.", network(5.0))
  found = evaluate(content, suffix=".safetensors")
  assert found.value == 3.0 and found.notes[0] == (
    "of the networks in the file, the outermost was used, not ema "
    "(choose with config.weights.entry)"
  )


def test_files_without_a_known_network(rejected):
  vgg = prefixed("encoder.features.", {"0.weight": torch.ones(2, 3, 3, 3)})
  line = rejected(
    "no weights of a supported network", {"arch": "vgg", "params": vgg}
  )
  assert "it has params.encoder.features.0.weight: give a state_dict" in line


class Scripted(torch.nn.Module):
  """A small network that TorchScript can compile."""

  def __init__(self):
    super().__init__()
    self.weight = torch.nn.Parameter(torch.tensor([7.0]))

  def forward(self, x):
    return x * self.weight


def script(path):
  torch.jit.save(torch.jit.script(Scripted()), str(path))


def exported(path):
  program = torch.export.export(Scripted(), (torch.ones(1),))
  other = path.with_suffix(".other.pt2")
  torch.export.save(program, other)
  other.rename(path)


@pytest.mark.filterwarnings("ignore")  # TorchScript is old
@pytest.mark.parametrize(
  ("content", "words"),
  [
    (
      torch.ones(2, 3),
      "has a bare Tensor and no network with named layers: store",
    ),
    (
      [torch.ones(2)] * 3,
      "has a bare list and no network with named layers",
    ),
    (7, "has a bare int and no network with named layers"),
    (
      torch.optim.SGD([torch.ones(2)]).state_dict(),
      "has an optimizer's state and no network with named layers: store the "
      "network's state_dict",
    ),
  ],
)
def test_content_without_names(rejected, content, words):
  rejected(words, content)


@pytest.mark.filterwarnings("ignore")  # TorchScript is old
@pytest.mark.parametrize(
  ("write", "words"),
  [(script, "a TorchScript program"), (exported, "a torch.export program")],
)
def test_the_advice_for_a_program_extracts_its_weights(
  rejected, write, words, tmp_path
):
  line = rejected(f"is {words}, which is code; none of it was run", write)
  file = tmp_path / ("own.pt2" if write is exported else "own.pt")
  write(file)
  code = line.partition("use torch.save(")[2].partition(", FILE.pt")[0]
  found = eval(code, {"torch": torch, "FILE": str(file)})
  assert {k: float(x) for k, x in found.items()} == {"weight": 7}


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (
      lambda x: x.to(torch.float8_e4m3fn),
      "is of type float8_e4m3fn (strided, cpu), which cannot be read as weights"
      ": store dense float32 tensors in the state_dict (tensor.to_dense(), ",
    ),
    (lambda x: x.to(torch.int8), "is of type int8, which cannot be read as"),
    (lambda x: x.to(torch.complex64), "is of type complex64, which cannot be"),
    (
      lambda x: x.to_sparse(),
      "is of type float32 (sparse_coo, cpu), which cannot be read",
    ),
    (
      lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
      "is of type qint8 (strided, cpu), which cannot be read as weights",
    ),
    (lambda x: x.to("meta"), "is of type float32 (strided, meta), which canno"),
    (lambda x: x.numpy(), "is a numpy array, which cannot be read as weights:"),
    (
      lambda x: torch.ones(1).expand(10**9),
      "is of type float32 (strided, cpu) and larger than its file, which canno",
    ),
  ],
)
@pytest.mark.filterwarnings("ignore")  # quantized tensors are old
def test_tensors_that_are_not_weights(rejected, change, words):
  tensors = network()
  content = prefixed("module.", tensors | {BLOCK: change(tensors[BLOCK])})
  rejected(f": module.{BLOCK} {words}", content)


@pytest.mark.parametrize(
  ("dtype", "name"),
  [("float8_e5m2", "F8_E5M2"), ("complex64", "complex64"), ("int8", "int8")],
)
def test_safetensors_that_are_not_weights(rejected, dtype, name):
  tensors = {
    n: x.to(getattr(torch, dtype)) if x.ndim == 4 else x
    for n, x in network().items()
  }
  words = f"(and 8 more) is of type {name}, which cannot be read as"
  rejected(words, tensors, suffix=".safetensors")
