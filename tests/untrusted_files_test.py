"""Any content of an untrusted file gives a result or a one-line error.

Each reader of such files gets arbitrary bytes, arbitrary JSON, and its own
valid file with a part changed. RAM_JAX_EXAMPLES sets how many of each.
"""

import contextlib
import io
import json
import os
import pathlib
import pickle
import tempfile

import hypothesis
import matplotlib.figure
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

import main as program
from ram_jax import command_line
from ram_jax.evaluation import loop as evaluate
from ram_jax.training import loop as train
from tests import bad_input_test as bad

pytestmark = pytest.mark.usefixtures("quick_compilation")

SECONDS = 30
EXAMPLES = int(os.environ.get("RAM_JAX_EXAMPLES", 0))
SETTINGS = hypothesis.settings(
  max_examples=EXAMPLES or 25,
  deadline=1000 * SECONDS,
  database=None,
  derandomize=not EXAMPLES,
  # Shrinking would read the same broken file hundreds of times more.
  phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
  suppress_health_check=list(hypothesis.HealthCheck),
)
TEXT = st.text(max_size=8) | st.sampled_from(
  ["nan", "-1", "1e999", "8/0", "8/255", "l2", "\n", "a,b", "../x", "true"]
)
NUMBERS = st.integers() | st.floats() | st.integers(-1, 3)
JSON = st.recursive(
  st.none() | st.booleans() | NUMBERS | TEXT,
  lambda part: (
    st.lists(part, max_size=3) | st.dictionaries(TEXT, part, max_size=3)
  ),
  max_leaves=6,
)
CORRUPTIONS = "corruption,severity,accuracy\nfog,1,0.5\nfog,2,0.25\n"
BENCH = ",fog,fog\n,1,2\nOne,0.5,0.25\nTwo,0.75,0.5\n"
BOARD = {
  **{"dataset": "cifar10", "architecture": "WRN-28-10", "eps": "0.5"},
  **{"clean_acc": "90.1", "autoattack_acc": "70.5", "corruptions_acc": "80.0"},
  "additional_data": False,
}
PUBLISHED = {
  **{"description": "d", "source": "s", "model": "M", "data": "CIFAR-10"},
  **{"images": 10000, "rounding": 0.0, "clean": 0.9, "notes": ["n"]},
  "adversarial": [
    {"attack": "PGD-10", "norm": "l2", "by_epsilon": [[0.5, 0.4]]}
  ],
  "corruption": {"fog": [0.9, 0.8, 0.7, 0.6, 0.5]},
  "corruption_mean": 0.7,
}
AUTHOR = {
  "clean_accuracy": 0.9,
  "pgd_adversarial_accuracy_by_epsilon": {"0.5": 0.4},
  "cifar10c_mean_accuracy": 0.7,
}
METRICS = {"step": 4, "epoch": 1.0, "loss": 2.0, "timing": {"seconds": 1.0}}
FILE = command_line.CONFIGS / "standard.py"


def array(content, dtype=np.uint8):
  file = io.BytesIO()
  np.save(file, np.asarray(content, dtype))
  return file.getvalue()


def archive(**arrays):
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


def splits():
  rng = np.random.default_rng(0)
  for split, size in (("train", 16), ("test", 8)):
    yield f"{split}_images", rng.integers(0, 256, (size, 8, 8, 3), np.uint8)
    yield f"{split}_labels", np.arange(size) % 4


def run_folder(folder):
  (folder / "results.json").write_text(json.dumps(bad.RESULTS))
  (folder / "metrics.jsonl").write_text(json.dumps(METRICS) + "\n")


def training(folder):
  return [
    f"--config={FILE}:smoke,dataset=arrays",
    f"--config.dataset.path={bad.write_data(folder / 'data.npz')}",
    f"--workdir={folder / 'new'}",
  ]


def compare(folder, name):
  run_folder(folder)
  return [
    "--mode=compare",
    f"--workdir={folder}",
    f"--reference={folder / name}",
  ]


def report(folder, name):
  run_folder(folder)
  return ["--mode=report", f"--runs={folder}", f"--workdir={folder / 'out'}"]


def compare_run(folder, name):
  run_folder(folder)
  return [
    "--mode=compare",
    f"--workdir={folder}",
    "--reference=madry_l2_eps05",
  ]


def own_arrays(folder, name):
  path = folder / name if name.endswith(".npz") else folder
  for key, content in splits():
    np.save(folder / f"{key}.npy", content)
  return [*training(folder), f"--config.dataset.path={path}"]


def corrupted_set(folder, name):
  field = "--config.evaluators.corruption"
  corrupted = folder / "set"
  corrupted.mkdir()
  fog, labels = np.zeros((5 * 32, 8, 8, 3)), np.tile(np.arange(32) % 4, 5)
  (corrupted / "fog.npy").write_bytes(array(fog))
  (corrupted / "labels.npy").write_bytes(array(labels))
  return [*training(folder), f"{field}.folder={corrupted}"]


def batches(folder, name):
  inner = folder / "cifar-10-batches-py"
  inner.mkdir()
  for other in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
    (inner / other).write_bytes(BATCH)
  return [
    f"--config={FILE}:smoke",
    f"--config.dataset.folder={folder}",
    f"--workdir={folder / 'new'}",
  ]


def started(folder, name):
  """A run that was started, with the data of the other files."""
  argv = training(folder)
  code, _, error = run(argv)
  assert (code, error.splitlines()[-1]) == (2, "error: read"), error
  return argv


def recorded(folder, name):
  started(folder, name)
  return [
    f"--config={folder / 'new' / 'config.json'}",
    f"--workdir={folder / 'again'}",
  ]


def weights(folder, name):
  return [*training(folder), f"--init_from={folder / name}"]


BATCH = pickle.dumps(
  {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3]}
)
MANIFEST = {
  "schema": 1,
  "made_with": {
    "seed": 0,
    "data": {"label": "D", "classes": 4, "image": [8, 8, 3], "size": 32}
    | {"fingerprint": "sha256:0"},
  },
  "files": {"fog.npy": "sha256:0", "labels.npy": "sha256:0"},
  "missing": {"frost": "why"},
}
TENSORS = safetensors.numpy.save(
  {"fc.weight": np.zeros((4, 2), np.float32)}, {"producer": "x"}
)
# File -> (function that writes the other files and returns the command line,
# valid content of the file, as a tree for JSON).
READERS = {
  "cifar10/L2/board.json": (compare, BOARD),
  "author/eval_metrics.json": (compare, AUTHOR),
  "published.json": (compare, PUBLISHED),
  "corruptions.csv": (compare, CORRUPTIONS.encode()),
  "pgd.csv": (compare, b"epsilon,accuracy\n0.5,0.4\n1,0.25\n"),
  "bench.csv:One": (compare, BENCH.encode()),
  "results.json": (report, bad.RESULTS),
  "results.json ": (compare_run, bad.RESULTS),
  "metrics.jsonl": (report, METRICS),
  "correct.npz": (report, archive(clean=np.arange(2) < 1)),
  "arrays.npz": (own_arrays, archive(**dict(splits()))),
  "train_images.npy": (own_arrays, array(np.zeros((16, 8, 8, 3)))),
  "test_labels.npy": (own_arrays, array(np.arange(8) % 4, np.int64)),
  "set/fog.npy": (corrupted_set, array(np.zeros((5 * 32, 8, 8, 3)))),
  "set/labels.npy": (corrupted_set, array(np.zeros(5 * 32))),
  "set/manifest.json": (corrupted_set, MANIFEST),
  "cifar-10-batches-py/data_batch_2": (batches, BATCH),
  "w.safetensors": (weights, TENSORS),
  "w.pt": (weights, None),
  "new/config.json": (started, None),
  "new/data.json": (started, None),
  "new/config.json ": (recorded, None),
}


def run(argv):
  """Exit code, stdout and stderr."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = program.main(argv)
  return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module", autouse=True)
def read_only():
  """Results are only read; drawing writes a minimal PNG."""

  def stop(*args, **kwargs):
    raise ValueError("read")

  def savefig(figure, path, **kwargs):
    pathlib.Path(path).write_bytes(
      bytes.fromhex("89504e470d0a1a0a0000000d494844520000000100000001")
    )

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train, "fit", stop)
    patch.setattr(evaluate, "run", stop)
    patch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    yield


def weights_of_torch():
  torch = pytest.importorskip("torch")
  file = io.BytesIO()
  torch.save({"state_dict": {"fc.weight": torch.zeros(4, 2)}}, file)
  return file.getvalue()


def places(tree, before=()):
  yield before
  if isinstance(tree, dict | list):
    rows = enumerate(tree) if isinstance(tree, list) else tree.items()
    for key, part in rows:
      yield from places(part, (*before, key))


def with_part(tree, place, part):
  if not place:
    return part
  copy = tree.copy()
  copy[place[0]] = with_part(tree[place[0]], place[1:], part)
  return copy


def contents(valid):
  """Strategies for the content of the file, by name."""
  text = valid
  ways = {"bytes": st.binary(max_size=200)}
  ways["JSON"] = JSON.map(lambda tree: json.dumps(tree).encode())
  if isinstance(valid, dict):
    text = json.dumps(valid).encode()
    ways["a part"] = st.tuples(st.sampled_from(list(places(valid))), JSON).map(
      lambda way: json.dumps(with_part(valid, *way)).encode()
    )
  cut = st.tuples(*[st.integers(0, len(text))] * 2).map(sorted)
  ways["damage"] = st.tuples(cut, st.binary(max_size=9)).map(
    lambda way: text[: way[0][0]] + way[1] + text[way[0][1] :]
  )
  return ways


@pytest.mark.parametrize("name", READERS)
def test_any_content_is_a_result_or_a_one_line_error(name):
  make, valid = READERS[name]
  if name.endswith(".pt"):
    valid = weights_of_torch()
  with tempfile.TemporaryDirectory() as root:
    folder = pathlib.Path(root)
    argv = make(folder, name)
    path = folder / name.strip().partition(":")[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    if valid is None:
      valid = json.loads(path.read_text())

    # Writing a report takes a second.
    few = not EXAMPLES and make is report

    @hypothesis.settings(
      SETTINGS, max_examples=6 if few else SETTINGS.max_examples
    )
    @hypothesis.given(content=st.one_of(*contents(valid).values()))
    def check(content):
      path.write_bytes(content)
      code, _, error = run(argv)
      assert code in (0, 2), error
      if code:
        *before, line = error.splitlines()
        assert line.startswith("error: ") and "Traceback" not in error
        assert len(before) <= 2 and len(line) < 2000, line

    good = valid if isinstance(valid, bytes) else json.dumps(valid).encode()
    path.write_bytes(good)
    code, _, error = run(argv)
    # Valid content must be read completely, or the test would be meaningless.
    assert code == 0 or "error: " in error, error
    check()
