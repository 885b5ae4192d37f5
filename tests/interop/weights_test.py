"""Files of weights: every layout there is, what is rejected, and that no code
of a file runs."""

import hashlib
import itertools
import json
import os
import pickle
import random
import sys
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ram_jax.interop import names, weights
from ram_jax.models import resnet, wide_resnet

# No short binary fractions: their digits must survive.
MEAN, STD = (0.1, 1 / 3, 0.44653), (0.2, 2 / 7, 0.26)
SHAPE = (8, 8, 3)
MODULE = wide_resnet.Model(7, MEAN, STD, depth=10, widen_factor=1)
RGB = (1, 3, 1, 1)


def variables(module=MODULE):
  made = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((1, *SHAPE)), False)
  )
  rng = np.random.default_rng(0)
  drawn = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), made
  )
  # No variance is negative.
  return drawn["params"], jax.tree.map(np.abs, drawn["batch_stats"])


@pytest.fixture(scope="module")
def plain():
  return names.to_torch(MODULE, *variables())


def same(tensors, expected):
  assert tensors.keys() == expected.keys()
  for name, array in expected.items():
    assert tensors[name].dtype == array.dtype
    np.testing.assert_array_equal(tensors[name], array)


def test_exports_read_back(tmp_path, plain):
  path = tmp_path / "made.safetensors"
  about = weights.write(path, MODULE, *variables(), {"run": "digits-0"})
  assert list(tmp_path.iterdir()) == [path]
  read = weights.read(path)
  same(read.tensors, plain)
  params, batch_stats = names.from_torch(MODULE, SHAPE, read.tensors)
  pairs = zip(
    jax.tree.leaves((params, batch_stats)),
    jax.tree.leaves(variables()),
    strict=True,
  )
  assert all(x.tobytes() == y.tobytes() for x, y in pairs)
  assert read.normalization == (MEAN, STD)
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert read.fingerprint == f"sha256:{digest}"
  assert read.metadata == about
  assert json.loads(about["mean"]) == list(MEAN)
  expected = {"run": "digits-0", "format": "pt", "num_classes": "7"}
  assert expected.items() <= about.items() and about["network"] == "WRN-10-1"


def test_only_exports_are_overwritten(tmp_path):
  path = tmp_path / "made.safetensors"
  for run in ("first", "second"):
    weights.write(path, MODULE, *variables(), {"run": run})
  assert weights.read(path).metadata["run"] == "second"
  for made in (
    lambda: save_file({"a": np.zeros(3)}, path, {"format": "pt"}),
    lambda: path.write_text("my diary"),
  ):
    made()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="exists and is not an export of"):
      weights.write(path, MODULE, *variables(), {})
    assert path.read_bytes() == before


def test_files_that_cannot_be_written_are_explained(tmp_path):
  path = tmp_path / "none" / "made.safetensors"
  with pytest.raises(OSError, match="cannot be written"):
    weights.write(path, MODULE, *variables(), {})


@pytest.mark.parametrize(
  ("mean", "stated"),
  [
    ("[0.5", "does not say how"),
    ("[" * 10**5, "does not say how"),
    ('["a", 1, 2]', "does not say how"),
    ("[125, 123, 114]", "has mean 125, 123, 114; std 0.5, 0.5, 0.5: it needs"),
  ],
)
def test_damaged_constants_of_an_export_are_not_used(
  tmp_path, plain, mean, stated
):
  path = tmp_path / "made.safetensors"
  about = {"producer": "ram_jax", "mean": mean, "std": "[0.5, 0.5, 0.5]"}
  save_file(plain, path, about)
  read = weights.read(path)
  assert read.normalization is None and read.stated.startswith(stated)


def prefixed(prefix, tensors):
  return {f"{prefix}{name}": array for name, array in tensors.items()}


def author(state_dict):
  """A checkpoint as saved by experiments/train.py of the paper's author."""
  torch = pytest.importorskip("torch")
  return {
    "model": state_dict,
    "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}},
    "scheduler": {"last_epoch": 3, "_step_count": 4},
    "config": {"train": {"lr": 0.1}, "data": {"root": None}},
    "seed": 0,
    "history": [{"epoch": 1, "loss": np.float64(2.5), "acc": 0.5}],
    "rng_state": {
      "python": random.getstate(),
      "numpy": np.random.get_state(),
      "torch": torch.random.get_rng_state(),
    },
  }


def constants(mean, std, shape=RGB):
  values = (MEAN, STD)
  return {
    name: np.reshape(np.float32(x), shape)
    for name, x in zip((mean, std), values, strict=True)
  }


def augmix(state_dict):
  """A checkpoint as saved by AugMix's cifar.py."""
  return {
    "epoch": 3,
    "dataset": "cifar10",
    "model": "wrn",
    "state_dict": state_dict,
    "best_acc": 0.5,
    "optimizer": {"param_groups": [{"lr": 0.1}]},
  }


OWN = (tuple(map(float, np.float32(MEAN))), tuple(map(float, np.float32(STD))))
# Of each: the file made of a state_dict.
LAYOUTS = {
  "plain": lambda sd: sd,
  "model, epochs": lambda sd: {"model": sd, "epoch": 3},
  "net": lambda sd: {"net": prefixed("module.", sd), "acc": 90.0},
  "AugMix": lambda sd: augmix(prefixed("module.", sd)),
}


@pytest.mark.parametrize(
  ("layout", "suffix"),
  list(zip(LAYOUTS, itertools.cycle([".pt", ".pth", ".pth.tar", ".ckpt"]))),
)
def test_layouts_of_pytorch(tmp_path, plain, layout, suffix):
  torch = pytest.importorskip("torch")
  state_dict = {name: torch.tensor(array) for name, array in plain.items()}
  path = tmp_path / f"reference{suffix}"
  torch.save(LAYOUTS[layout](state_dict), path)
  read = weights.read(path)
  same(read.tensors, plain)
  names.from_torch(MODULE, SHAPE, read.tensors)
  assert read.normalization is None
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert read.fingerprint == f"sha256:{digest}" and read.metadata == {}


@pytest.mark.parametrize("numpy_1", [False, True])
def test_the_authors_checkpoint(tmp_path, numpy_1):
  torch = pytest.importorskip("torch")
  module = resnet.Model(10, MEAN, STD)
  tensors = names.to_torch(module, *variables(module))
  path = tmp_path / "model.pt"
  state_dict = {f"net.{n}": torch.tensor(x) for n, x in tensors.items()}
  torch.save(
    author(state_dict), path, _use_new_zipfile_serialization=not numpy_1
  )
  if numpy_1:  # where numpy's functions were before its version 2
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.", b"numpy.core."))
  allowed = set(torch.serialization.get_safe_globals())
  read = weights.read(path)
  assert set(torch.serialization.get_safe_globals()) == allowed
  same(read.tensors, tensors)
  assert read.normalization is None


def test_prefixes_and_constants_of_safetensors(tmp_path, plain):
  path = tmp_path / "reference.safetensors"
  save_file(prefixed("model.", plain) | constants("mean", "std"), path)
  read = weights.read(path)
  same(read.tensors, plain)
  assert read.normalization == OWN and read.metadata == {}


@pytest.mark.parametrize(
  "dtype", [np.float16, ml_dtypes.bfloat16, np.float64], ids=str
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_half_becomes_single_and_double_stays(tmp_path, dtype, suffix):
  name = "layer1.0.conv1.weight"
  values = {name: np.float64([[0.1, -3e-5], [1 / 3, 7]]).astype(dtype)}
  path = tmp_path / f"half{suffix}"
  if suffix == ".pt":
    torch = pytest.importorskip("torch")
    as_double = torch.tensor(values[name].astype(np.float64))
    half = getattr(torch, np.dtype(dtype).name)
    torch.save({name: as_double.to(half)}, path)
  else:
    save_file(values, path)
  array = weights.read(path).tensors[name]
  assert array.dtype == (np.float64 if dtype == np.float64 else np.float32)
  np.testing.assert_array_equal(array, values[name].astype(array.dtype))


class Malicious:
  """Runs a function when it is unpickled."""

  def __init__(self, *call):
    self.call = call

  def __reduce__(self):
    return self.call[0], self.call[1:]


@pytest.mark.parametrize("wrapped", ["zip", "old", "pickle"])
@pytest.mark.parametrize("function", [os.mkdir, os.system, eval])
def test_code_of_a_file_does_not_run(tmp_path, wrapped, function):
  torch = pytest.importorskip("torch")
  proof, path = tmp_path / "proof", tmp_path / "model.pt"
  argument = {
    os.mkdir: str(proof),
    os.system: f"mkdir {proof}",
    eval: f"__import__('os').mkdir({str(proof)!r})",
  }[function]
  content = {"model": {"fc.weight": torch.ones(2)}}
  content["rng_state"] = Malicious(function, argument)
  if wrapped == "pickle":
    path.write_bytes(pickle.dumps(content["rng_state"], protocol=2))
  else:
    torch.save(content, path, _use_new_zipfile_serialization=wrapped == "zip")
  # It would, where whoever reads the file lets it.
  if wrapped == "pickle":
    pickle.loads(path.read_bytes())
  else:
    torch.load(path, weights_only=False)
  proof.rmdir()
  with pytest.raises(ValueError) as error:
    weights.read(path)
  assert not proof.exists()
  if wrapped != "pickle":
    assert f"{function.__name__}, which is code" in str(error.value)
    assert "none of it was run" in str(error.value)


def test_pickled_networks_are_rejected(tmp_path):
  torch = pytest.importorskip("torch")
  path = tmp_path / "model.pt"
  torch.save(torch.nn.Linear(2, 2), path)
  message = "torch.nn.modules.linear.Linear, which is code.*state_dict alone"
  with pytest.raises(ValueError, match=message):
    weights.read(path)


@pytest.mark.parametrize(
  ("name", "change", "message"),
  [
    ("a.safetensors", lambda b: b[:-5], "truncated, damaged"),
    ("a.safetensors", lambda b: b[:20], "truncated, damaged"),
    ("a.safetensors", lambda b: b"", r"not a safetensors file.*\(0 bytes"),
    ("a.safetensors", lambda b: b"<html>" * 99, "get the file again"),
    ("a.pt", lambda b: b[:-5], "truncated, damaged"),
    ("a.pt", lambda b: b[:200], "truncated, damaged"),
    ("a.pt", lambda b: b"", r"not a weights file from torch.save.*\(0 bytes"),
    ("a.pt", lambda b: b"<html>" * 99, "get the file again"),
    ("a.onnx", lambda b: b, "ends in .safetensors, .pt, .pth, .tar, .ckpt"),
  ],
)
def test_damaged_files_are_explained(tmp_path, plain, name, change, message):
  path = tmp_path / name
  if path.suffix == ".pt":
    torch = pytest.importorskip("torch")
    torch.save({n: torch.tensor(x) for n, x in plain.items()}, path)
  else:
    save_file(plain, path)
  path.write_bytes(change(path.read_bytes()))
  with pytest.raises(ValueError, match=message) as error:
    weights.read(path)
  assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {"mean": 3}}])
def test_files_without_weights_are_explained(tmp_path, content):
  torch = pytest.importorskip("torch")
  path = tmp_path / "a.pt"
  torch.save(content, path)
  with pytest.raises(ValueError, match="holds no weights"):
    weights.read(path)
  endless = {}
  endless["model"] = endless
  torch.save(endless, path)
  with pytest.raises(ValueError, match="holds no weights"):
    weights.read(path)


def test_missing_files_and_folders(tmp_path):
  for path in (tmp_path, tmp_path / "none.safetensors"):
    with pytest.raises(FileNotFoundError, match="no weights file"):
      weights.read(path)


@pytest.mark.parametrize(
  ("torch", "error", "message"),
  [
    (None, ModuleNotFoundError, "pip install torch, or convert"),
    (
      types.SimpleNamespace(__version__="2.5.1+cpu"),
      ValueError,
      "2.6 or newer",
    ),
  ],
)
def test_pytorch_must_be_installed_and_safe(
  tmp_path, monkeypatch, torch, error, message
):
  path = tmp_path / "a.pt"
  path.touch()
  monkeypatch.setitem(sys.modules, "torch", torch)
  with pytest.raises(error, match=message):
    weights.read(path)


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "made.safetensors"
  weights.write(path, MODULE, *variables(), {"run": "first"})

  def stopped(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(weights.os, "replace", stopped)
  with pytest.raises(KeyboardInterrupt):
    weights.write(path, MODULE, *variables(), {"run": "second"})
  assert list(tmp_path.iterdir()) == [path]
  with safe_open(path, framework="numpy") as file:
    assert file.metadata()["run"] == "first"
  assert len(load_file(path)) == 46
