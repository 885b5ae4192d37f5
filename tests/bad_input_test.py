"""Any kind of invalid input causes a one-line error before anything runs.

Fields are found by introspection: a new one fails here until it is listed.
"""

import contextlib
import io
import json
import pickle
import time
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import main as program
from configs import robust_augmix
from ram_jax import command_line, experiment
from ram_jax.data import arrays as arrays_source
from ram_jax.data import cifar_c, manifest
from ram_jax.evaluation import loop as evaluate
from ram_jax.report import references, tables
from ram_jax.runs import results as runs
from ram_jax.training import loop as train
from ram_jax.training import step

SECONDS = 5  # of work, and much less without a busy machine


def rejects(words, *argv):
  """Asserts exit code 2 and the one line of an error, without a traceback."""
  out, err = io.StringIO(), io.StringIO()
  clock = time.process_time()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = program.main([str(argument) for argument in argv])
  used = time.process_time() - clock
  *before, line = err.getvalue().splitlines() or [""]
  assert (code, out.getvalue()) == (2, ""), err.getvalue()
  assert line.startswith("error: ") and words in line, line
  assert "Traceback" not in err.getvalue() and len(before) <= 2
  assert used < SECONDS
  return line


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch, tmp_path):
  """Fails if weights are initialized, or anything is trained or evaluated."""

  def forbidden(*args, **kwargs):
    raise AssertionError("something was computed")

  monkeypatch.setattr(step.Program, "create", forbidden)
  monkeypatch.setattr(train, "fit", forbidden)
  monkeypatch.setattr(evaluate, "run", forbidden)
  monkeypatch.chdir(tmp_path)


def write_data(path, **changes):
  """64 training and 32 test images of 8x8 pixels in four classes."""
  rng = np.random.default_rng(0)
  arrays = {}
  for split, size in (("train", 64), ("test", 32)):
    arrays[f"{split}_images"] = rng.integers(0, 256, (size, 8, 8, 3), np.uint8)
    arrays[f"{split}_labels"] = np.arange(size) % 4
  np.savez(path, **arrays | changes)
  return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return write_data(tmp_path_factory.mktemp("data") / "tiny.npz")


# Together they have every field: of one's own arrays, and of the paper's run.
CHOICES = ("", "dataset=arrays", "smoke,dataset=arrays")
CONFIGS = {text: robust_augmix.get_config(text) for text in CHOICES}
FIELDS = {
  name: text
  for text in CHOICES  # of those in several, the smallest config's
  for name in command_line.fields(CONFIGS[text])
}
FILE = command_line.CONFIGS / "robust_augmix.py"


def kind(name):
  *groups, key = name.split(".")
  holder = CONFIGS[FIELDS[name]]
  for group in groups:
    holder = holder[group]
  return holder.get_type(key)


def overridden(data, name, text):
  """The command that trains with a field overridden."""
  argument = FIELDS[name]
  argv = [f"--config={FILE}{':' * bool(argument)}{argument}", "--workdir=run"]
  if argument and name != "dataset.path":
    argv.append(f"--config.dataset.path={data}")
  return [*argv, f"--config.{name}={text}"]


# What text cannot be, by the type of the field. Any text is a str.
WRONG = {
  bool: ("maybe", "true or false"),
  int: ("2.5", "an integer"),
  float: ("fast", "a number"),
  tuple: ("(1", "values separated by commas"),
}


@pytest.mark.parametrize("name", [n for n in FIELDS if kind(n) is not str])
def test_wrong_type(data, name):
  text, wanted = WRONG[kind(name)]
  line = rejects(
    f"config.{name} cannot be {text!r}", *overridden(data, name, text)
  )
  assert wanted in line


# What is of the right type and cannot be: field -> (text, words of the error).
RANGE = {
  "augment.name": [("none", "config.augment.name is 'none', an unknown aug")],
  "augment.padding": [("-1", "padding is -1")],
  "average.batch_norm": [("last", "copied or averaged or reestimated")],
  "average.decay": [("1", "in [0, 1)"), ("nan", "in [0, 1)")],
  "average.name": [("mean", "give none or ema or swa")],
  "average.start": [("1", "in [0, 1)"), ("-1", "in [0, 1)")],
  "awp.first_epoch": [("-1", "an integer, at least 0")],
  "awp.gamma": [("-1", "at least 0"), ("nan", "a finite number")],
  "batch_norm.affine": [
    ("both", "give shared or split"),
    ("split", "give shared if"),
  ],
  "batch_norm.attack": [("none", "give running or batch")],
  "batch_norm.split": [("clean", "give none or adversarial or augmented")],
  "batch_norm.views": [("all", "give separate or joint")],
  "dataset.classes": [("20", "classes is 20: give 10 or 100")],
  "dataset.folder": [
    ("/no/such", "data_batch_1 is missing: dataset.folder"),
    ("~no-such-user", "~no-such-user/"),
  ],
  "dataset.name": [("imagenet", "unknown dataset: choose one of arrays, ci")],
  "dataset.num_classes": [
    ("1", "num_classes is 1: a classifier needs two"),
    ("3", "label 3 at index 3 is outside 0..2"),
    ("-1", "num_classes is -1"),
  ],
  "dataset.path": [
    ("", "dataset.path must name"),
    (".", "but must hold train_images"),
    ("~no-such-user/a.npz", "~no-such-user/a.npz is missing"),
  ],
  "dataset.tfds_dir": [("/dev/null/x", "cifar10 is not in /dev/null/x")],
  "evaluate.batch_size": [("0", "is 0"), ("30", "multiple of the number")],
  "evaluate.batch_norm": [
    ("all", "give main or auxiliary"),
    ("auxiliary", "give main if config.batch_norm.split is none"),
  ],
  "evaluate.precision": [
    ("float16", "is 'float16': give float32, tensorfloat32"),
    ("tensorfloat32", "bfloat16_3x (only on TPUs); this platform is 'cpu'"),
  ],
  "evaluate.images": [
    ("-1", "a number of images, or 0 for all"),
    ("33", "0..32"),
  ],
  "evaluators.adversarial.attack.epsilon": [
    ("nan", "epsilon is nan"),
    ("-1", ""),
    ("128", "attack.epsilon is 128.0, but pixels are in [0, 1], where no two"),
  ],
  "evaluators.adversarial.attack.name": [("fgsm", "unknown attack: choose")],
  "evaluators.adversarial.attack.norm": [("l0", "give l2 or linf")],
  "evaluators.adversarial.attack.objective": [("kl", "give cross_entropy")],
  "evaluators.adversarial.attack.restarts": [("0", "restarts is 0")],
  "evaluators.adversarial.attack.start": [("x", "give none or uniform")],
  "evaluators.adversarial.attack.step_size": [
    ("-1", "a finite number above 0")
  ],
  "evaluators.adversarial.attack.steps": [("0", "an integer, at least 1")],
  "evaluators.adversarial.check_images": [("-1", "check_images is -1")],
  "evaluators.adversarial.epsilons": [
    ("1,-1", "finite numbers"),
    ("a,b", "gi"),
    ("1,0.5,1.0", "epsilons is (1, 0.5, 1.0): give each value once"),
    ("8/255,0.031373", "give each value once"),  # the same in tables
    (
      "8/255,64",
      "apart than 13.86 in L2: give a smaller value, such as 0.5",
    ),
  ],
  "evaluators.adversarial.name": [("none", "unknown evaluator: choose one")],
  "evaluators.adversarial.relative_step_size": [("inf", "a finite number")],
  "evaluators.clean.name": [("none", "unknown evaluator: choose one of")],
  "evaluators.corruption.classes": [("20", "classes is 20: give 10 or 100")],
  "evaluators.corruption.folder": [("/no/such", "/no/such has no corruption")],
  "evaluators.corruption.frost_folder": [("/no/such", "/no/such")],
  "evaluators.corruption.name": [("none", "unknown evaluator: choose one")],
  "evaluators.corruption.names": [
    ("rain,hail", "names is ('rain', 'hail'): give some of gauss"),
    ("fog,snow,fog", "is ('fog', 'snow', 'fog'): give each value once"),
    ("1,2", ""),
  ],
  "evaluators.corruption.seed": [("-1", "seed is -1"), (str(2**32), "seed")],
  "evaluators.corruption.sets": [
    ("imagenet", "give one or more of cifar_c, cifar_c_bar"),
    ("cifar_c,cifar_c", "give each value once"),
  ],
  "evaluators.corruption.severities": [
    ("0,1", "severities is (0, 1)"),
    ("a,b", "sever"),
    ("5,5", "severities is (5, 5): give each value once"),
  ],
  "evaluators.corruption.tfds_dir": [("/no/such", "uses CIFAR-10-C, but")],
  "evaluators.autoattack.epsilons": [("0,", "finite numbers above 0")],
  "evaluators.autoattack.images": [("-1", "images is -1")],
  "evaluators.autoattack.name": [("none", "unknown evaluator: choose one of")],
  "evaluators.autoattack.norm": [("l1", "norm is 'l1': give l2 or linf")],
  "evaluators.autoattack.version": [
    ("best", "give standard, fast, plus, or some")
  ],
  "evaluators.cifar10_1.folder": [
    ("/no/such", "_data.npy is missing: get the files")
  ],
  "evaluators.cifar10_1.name": [("none", "unknown evaluator: choose one of")],
  "evaluators.cifar10_1.version": [("v5", "give v4 or v6")],
  "evaluators.fourier.images": [("-1", "images is -1")],
  "evaluators.fourier.name": [("none", "unknown evaluator: choose one of")],
  "evaluators.fourier.norm": [("0", "a finite number above 0"), ("nan", "")],
  "floors": [
    ("1,2", "is not (metric, epsilon, bound, value)"),
    ("2 * (('clean', None, 'at least', 0.5),)", "cannot be"),
    (
      "('clean', None, 'at least', 0.5), ('clean', None, 'at least', 0.5)",
      "give each value once",
    ),
  ],
  "method.attack.epsilon": [
    ("inf", "epsilon is inf"),
    ("-1", "epsilon is"),
    ("128", "method.attack.epsilon is 128.0, but pixels are in [0, 1]"),
  ],
  "method.attack.name": [("fgsm", "config.method.attack.name is 'fgsm'")],
  "method.attack.norm": [("l1", "give l2 or linf")],
  "method.attack.objective": [("", "give cross_entropy")],
  "method.attack.restarts": [("-1", "restarts is -1")],
  "method.attack.start": [("", "give none or uniform")],
  "method.attack.step_size": [
    ("nan", "a finite number above 0"),
    ("32", "step_size is 32.0, but pixels are in [0, 1]"),
  ],
  "method.attack.steps": [("-7", "an integer, at least 1")],
  "method.augment.alpha": [("0", "alpha"), ("nan", "alpha")],
  "method.augment.depth": [("0", "depth"), ("-2", "depth")],
  "method.augment.name": [("mosaic", "unknown augment: choose one of")],
  "method.augment.operations": [("11", "9 or 13 or 14")],
  "method.augment.resampling": [("area", "bilinear or author")],
  "method.augment.severity": [("0", "severity"), ("11", "severity")],
  "method.augment.width": [("0", "width")],
  "method.jensen_shannon": [("", "give exact or clamped")],
  "method.adversarial_weight": [("-1", "at least 0"), ("nan", "finite")],
  "method.attacked": [("both", "give clean or augmix")],
  "method.name": [("mart", "unknown method: choose one of")],
  "method.weight": [("-1", "at least 0"), ("inf", "finite")],
  "mix.alpha": [("0", "above 0"), ("nan", "above 0")],
  "mix.name": [("blend", "give none or mixup or cutmix")],
  "mix.probability": [("0", "above 0"), ("1.5", "at most 1")],
  "model.activation": [("gelu", "give relu or silu")],
  "model.depth": [("9", "depth"), ("-2", "depth")],
  "model.name": [("vit", "unknown model: choose one of")],
  "model.widen_factor": [("0", "widen_factor is 0")],
  "model.width_factor": [("0", "width_factor")],
  "name": [
    ("", "a name"),
    ("../../x", "a name"),
    ("a/b", "a name"),
    ("..", "a"),
  ],
  "normalization.mean": [
    ("1,2", "three numbers each"),
    ("a,b,c", "three numbers each"),
    ("125.3,123,113.9", "divide numbers on the 0-255 scale by 255"),
    ("0.5,0.5,0.5", "and std (): give both"),
    ("0.5,1e999,0.5", "mean in [0, 1]"),
  ],
  "normalization.preset": [
    ("imagenet", "'imagenet': give --config.normalization.preset=NAME (augmix")
  ],
  "normalization.std": [
    ("0,1,1", "three numbers each"),
    ("1e999,1,1", "three numbers each"),
  ],
  "optimizer.learning_rate": [("0", "a finite number above 0"), ("nan", "")],
  "optimizer.momentum": [("1", "a number in [0, 1)")],
  "optimizer.schedule": [("linear", "cosine_epoch or cosine_step or constant")],
  "optimizer.warmup_epochs": [
    ("-1", "at least 0"),
    ("inf", "a finite"),
    ("2", "give at most config.train.epochs, 1"),
  ],
  "optimizer.weight_decay": [("-1", "a finite number"), ("inf", "a finite")],
  "seed": [("-1", "from 0 to 2^32 - 1"), (str(2**32), "from 0 to 2^32 - 1")],
  "train.attack_steps": [
    ("7", "pairs (epoch, steps)"),
    ("((1,2,3),)", "pairs (epoch, steps)"),
    ("((0,2.5),)", "of integers"),
    ("((0,0),)", "at least 1"),
    ("((-1,2),)", "epochs of at least 0"),
    ("((0,2),(0,3))", "in ascending order"),
    ("((0,2),(1,3))", "below config.train.epochs, 1"),
  ],
  "train.batch_size": [
    ("0", "at least 1"),
    ("2", "of devices, 4, such as 4 or 8"),
    ("6", "of devices, 4, such as 4 or 8"),
  ],
  "train.checkpoint_every": [("0", "an integer, at least 1")],
  "train.epsilon_ramp": [("-1", "from 0 to 1"), ("1.5", "from 0 to 1")],
  "train.label_smoothing": [("1", "in [0, 1)"), ("nan", "in [0, 1)")],
  "train.dtype": [("float16", "give float32 or bfloat16")],
  "train.epochs": [("0", "at least 1"), (str(10**20), "steps")],
  "train.device_data_gib": [("-1.0", "at least 0"), ("inf", "finite")],
  "train.images": [("-1", "or 0 for all"), ("65", "limit 65 is outside 0..64")],
  "train.log_every": [("0", "an integer, at least 1")],
  "train.steps_per_dispatch": [("0", "an integer, at least 1")],
  "weights.entry": [
    ("ema", "config.weights.entry is 'ema', but there is no weights f")
  ],
  "weights.initial": [
    ("/no/such.pt", "there is no weights file /no/such"),
    ("~no-such-user/a.pt", "there is no weights file ~no-such-user/a.pt"),
  ],
  "weights.measured": [("x.pt", "is for --mode=evaluate")],
}
# Fields of which everything of the right type is possible.
ANYTHING = {
  "dataset.label": "a name for tables, any text",
  "weights.fingerprint": "what the file has, whatever was given",
  "weights.notes": "what the file has, whatever was given",
}


def test_every_field_has_an_invalid_value_or_a_reason_for_none():
  free = {name for name in FIELDS if kind(name) is bool}  # true and false
  assert set(RANGE) | set(ANYTHING) | free == set(FIELDS)
  assert not set(RANGE) & (set(ANYTHING) | free)


@pytest.mark.parametrize(
  ("name", "text", "words"),
  [(n, *row) for n, rows in RANGE.items() for row in rows],
)
def test_wrong_value(data, name, text, words):
  argv = overridden(data, name, text)
  if name == "evaluators.corruption.frost_folder":
    argv += ["--config.evaluators.corruption.names=frost,fog"]
    argv += ["--config.evaluators.corruption.generate=true"]
  line = rejects(words, *argv)
  if text in ("nan", "inf", "0", "-1"):  # which say nothing by themselves
    assert name.split(".")[-1] in line


SWEEP = CONFIGS[""].evaluators.adversarial.epsilons


@pytest.mark.parametrize(
  ("overrides", "given"),
  [
    (["method.attack.norm=linf"], "method.attack.epsilon is 1.0"),
    (
      ["method.attack.norm=linf", "method.attack.epsilon=8"],
      "method.attack.epsilon is 8.0",
    ),
    (
      ["method.attack.norm=linf", "method.attack.epsilon=8/255"]
      + ["method.attack.step_size=2"],
      "method.attack.step_size is 2.0",
    ),
    (
      ["evaluators.adversarial.attack.norm=linf"],
      "evaluators.adversarial.attack.epsilon is 1.0 and "
      f"config.evaluators.adversarial.epsilons is {SWEEP}",
    ),
  ],
)
def test_linf_epsilon_in_the_wrong_unit(overrides, given):
  line = rejects(
    f"config.{given}, but",
    f"--config={FILE}",
    *[f"--config.{text}" for text in overrides],
  )
  assert line.endswith(
    ", but pixels are in [0, 1], where no two images are farther apart than 1 "
    "in Linf: give a smaller value, such as 8/255"
  )


def arrays(path):
  """The command that trains on user-provided arrays."""
  return [
    f"--config={FILE}:smoke,dataset=arrays",
    f"--config.dataset.path={path}",
    "--workdir=run",
  ]


def test_array_that_expands_without_limit(data, tmp_path):
  path = tmp_path / "bomb.npz"
  with np.load(data) as good:
    np.savez_compressed(
      path, **dict(good) | {"extra": np.zeros(2**22, np.uint8)}
    )
  command = arrays(path)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(arrays_source, "_LARGE", 2**20)
    line = rejects("extra.npy would unpack from ", *command)
    assert "4194432 bytes" in line or "41943" in line


PIXELS = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
CAST = "(images * 255).round().astype(numpy.uint8)"
LABELS = np.arange(64) % 4


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (PIXELS / 255, "is float64 [64, 8, 8, 3] from 0 to 1, expected uint8 [N"),
    (PIXELS / 255, CAST),
    (PIXELS / 128 - 1, "from -1 to 0.9922, expected"),
    (PIXELS * np.nan, "from nan to nan, expected"),
    (PIXELS > 9, "is bool [64, 8, 8, 3] from 0 to 1, expected"),
    (PIXELS.astype("u2") * 257, "from 0 to 6.554e+04, expected"),
    (PIXELS * 1j, "is complex128 [64, 8, 8, 3], expected"),
    (PIXELS.transpose(0, 3, 1, 2), "is uint8 [64, 3, 8, 8] from 0 to 255, exp"),
    (PIXELS.transpose(0, 3, 1, 2), "with images.transpose(0, 2, 3, 1)"),
    (PIXELS[..., [0, 1, 2, 2]], "drop transparency with images[..., :3]"),
    (PIXELS.reshape(64, -1), "is uint8 [64, 192] from 0 to 255, expected"),
    (PIXELS[:0], "is uint8 [0, 8, 8, 3], expected uint8 [N, H, W, 3] or"),
    (LABELS, "is int64 [64] from 0 to 3, expected uint8 [N, H, W, 3] or"),
    (PIXELS[:63], "split 'train': labels are int32 [64], "),
    (np.array([None]), "cannot be read (ValueError('Object arrays cannot be"),
    (
      PIXELS[:, :7],
      "training images are 7 x 8 but test images are 8 x 8: resize",
    ),
    (
      PIXELS // 255,
      "the largest pixel value is 1 in the training images, out of 255, so the "
      "splits differ in scale: probably cast from [0, 1] without scaling: use "
      f"{CAST}",
    ),
  ],
)
def test_user_provided_images(tmp_path, change, words):
  path = write_data(tmp_path / "mine.npz", train_images=change)
  line = rejects(words, *arrays(path), "--config.train.images=0")
  if "expected" in words:
    assert "mine.npz: train_images is " in line


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (LABELS[:, None], "is int64 [64, 1] from 0 to 3, expected integers [N] f"),
    (LABELS[None], "convert [N, 1] with labels.squeeze()"),
    (LABELS / 1, "is float64 [64] from 0 to 3, expected integers [N]"),
    (LABELS > 1, "other types with labels.astype(int)"),
    (np.eye(4)[LABELS], "is float64 [64, 4] from 0 to 1, expected integers [N"),
    (np.eye(4)[LABELS], "one-hot labels with labels.argmax(1)"),
    (np.array(list("abcd"))[LABELS], "is <U1 [64], expected integers [N]"),
    (LABELS + 2**40, "train_labels are int64 [64], expected 64 integers"),
    (PIXELS, "is uint8 [64, 8, 8, 3] from 0 to 255, expected integers [N]"),
    (LABELS.astype(object), "train_labels cannot be read (ValueError('Object"),
    (LABELS[:0], "is int64 [0], expected integers [N]"),
    (LABELS[:5], "split 'train': labels are int32 [5], "),
    (
      np.array([3, 17, 250, 9999])[LABELS],
      "train_labels are 3, 17, 250, 9999 and test_labels 0, 1, 2, 3, so "
      "a label is negative, or some class from 0 to 9999 has no training image"
      ": store labels from 0 to 6, their positions in numpy.unique of all "
      "labels, or give the number of classes (config.dataset.num_classes)",
    ),
    (LABELS + 1, "train_labels are 1, 2, 3, 4 and test_labels 0, 1, 2, 3, so"),
    (LABELS - 1, "train_labels are -1, 0, 1, 2 and test_labels 0, 1, 2, 3, so"),
    (
      LABELS % 3,
      "train_labels are 0, 1, 2 and test_labels 0, 1, 2, 3, so",
    ),
  ],
)
def test_user_provided_labels(tmp_path, change, words):
  path = write_data(tmp_path / "mine.npz", train_labels=change)
  line = rejects(words, *arrays(path))
  if "expected" in words:
    assert "mine.npz: train_labels " in line


@pytest.mark.parametrize(
  ("classes", "words"),
  [
    (4, "split 'train': every label is 0: a classifier needs training images"),
    (0, "num_classes is 1: a classifier needs two"),
  ],
)
def test_one_class(tmp_path, classes, words):
  labels = {"train_labels": LABELS * 0, "test_labels": LABELS[:32] * 0}
  path = write_data(tmp_path / "mine.npz", **labels)
  rejects(words, *arrays(path), f"--config.dataset.num_classes={classes}")


def test_arrays_with_other_names(tmp_path):
  path = tmp_path / "mine.npz"
  np.savez(path, x_train=PIXELS, y_train=LABELS)
  line = rejects("lacks train_labels: it holds ", *arrays(path))
  assert "holds ['x_train', 'y_train'] but must hold train_images," in line
  assert line.endswith(": save the arrays under these names")


@pytest.mark.parametrize(
  ("changes", "warning"),
  [
    (
      {"train_images": PIXELS // 255, "test_images": PIXELS[:32] // 255},
      "the largest pixel value is 1 in the training images and 1 in the test "
      "images, out of 255: probably cast from [0, 1] without scaling: use "
      f"{CAST}",
    ),
    (
      {"train_images": PIXELS // 15},
      "the largest pixel value is 17 in the training images, out of 255: if "
      "that is white, store images scaled to 0..255",
    ),
    (
      {"train_labels": LABELS % 2},
      "16 of 32 test images are of classes without a training image: 2, 3",
    ),
    (
      {"train_labels": np.sort(LABELS)},  # of which the first 16 are used
      "all 16 training images in use are of class 0",
    ),
    (
      {"test_labels": LABELS[:32] * 0},
      "all 32 test images in use are of class 0",
    ),
    ({}, None),
  ],
)
def test_warnings_about_unusual_data(tmp_path, monkeypatch, changes, warning):
  def trained(*args):
    raise ValueError("trained")

  monkeypatch.setattr(step.Program, "create", trained)
  path = write_data(tmp_path / "mine.npz", **changes)
  err = io.StringIO()
  with contextlib.redirect_stderr(err):
    program.main(
      [
        *arrays(path),
        "--config.dataset.num_classes=4",
        "--config.train.images=16",
      ]
    )
  *before, line = err.getvalue().splitlines()
  assert line == "error: trained"
  found = [text for text in before if text.startswith("warning: ")]
  assert (f"warning: {warning}" in found) if warning else not found, found


def npy(shape, dtype="|u1", body=b"0123456789"):
  """Bytes of an .npy file with an arbitrary header."""
  header = repr({"descr": dtype, "fortran_order": False, "shape": shape})
  header = header.ljust(117) + "\n"
  return (
    b"\x93NUMPY\x01\x00"
    + len(header).to_bytes(2, "little")
    + header.encode()
    + body
  )


@pytest.mark.parametrize(
  "member",
  [
    npy((10**13, 32, 32, 3)),
    npy((-1, 8, 8, 3)),
    npy((10**5, 8, 8, 3)),
    npy((2,), "|O"),
    npy((2,), "no type"),
    npy("2"),
    b"\x93NUMPY\x01\x00\xff\xff",
  ],
)
def test_header_with_a_wrong_size(data, tmp_path, member):
  path = tmp_path / "lies.npz"
  with np.load(data) as good, zipfile.ZipFile(path, "w") as archive:
    for name, array in good.items():
      body = io.BytesIO()
      np.save(body, array)
      archive.writestr(f"{name}.npy", body.getvalue())
  with zipfile.ZipFile(path) as old:
    parts = {n: old.read(n) for n in old.namelist()}
  with zipfile.ZipFile(path, "w") as archive:
    for name, body in (parts | {"train_images.npy": member}).items():
      archive.writestr(name, body)
  rejects("train_images cannot be read", *arrays(path))


@pytest.mark.parametrize(
  "name", ["../../evil.npy", "/etc/evil.npy", "a\nb.npy"]
)
def test_member_outside_the_folder(tmp_path, name):
  path = tmp_path / "outside.npz"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr(name, npy((2, 8, 8, 3)))
  rejects("lacks ", *arrays(path))
  assert [p.name for p in tmp_path.iterdir()] == ["outside.npz"]


def nested(depth=60):
  """Nested lists that expand to 2^60 elements."""
  value = [0]
  for _ in range(depth):
    value = [value, value]
  return value


@pytest.mark.parametrize(
  ("batch", "words"),
  [
    ({"data": nested(), "labels": [0]}, "a list contains lists"),
    (
      {"data": np.zeros((1, 3072), np.uint8), "labels": nested()},
      "contains lists",
    ),
    (nested(), "holds a list, expected a dictionary"),
    ({"data": Fraction(1, 2), "labels": [0]}, "refers to fractions.Fraction"),
    ({"data": b"x", "labels": [0]}, "data is bytes"),
    ({}, "lacks ['data', 'labels']"),
  ],
)
def test_pickles(tmp_path, batch, words):
  folder = tmp_path / "cifar-10-batches-py"
  folder.mkdir()
  names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
  for name in names:
    (folder / name).write_bytes(pickle.dumps(batch))
  rejects(
    words,
    f"--config={FILE}",
    f"--config.dataset.folder={tmp_path}",
    "--workdir=run",
  )


@pytest.mark.parametrize(
  ("name", "content", "words"),
  [
    ("a.safetensors", b"", "is truncated, damaged, not a safetensors"),
    ("a.safetensors", b"\xff" * 8 + b"{}", "not a safetensors file"),
    ("a.safetensors", (2**40).to_bytes(8, "little") + b"{}", "not a safeten"),
    ("a.safetensors", b"\2" + bytes(7) + b"[]", "not a safetensors file"),
    ("a.safetensors", b"\2" + bytes(7) + b"{}", "holds no weights"),
    ("a.pkl", b"", "give one that ends in"),
    (".safetensors", b"", "give one that ends in"),
  ],
)
def test_weights(data, tmp_path, name, content, words):
  (tmp_path / name).write_bytes(content)
  rejects(words, *arrays(data), f"--init_from={tmp_path / name}")


def test_tensor_larger_than_its_file(data, tmp_path):
  tensor = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
  head = json.dumps({"conv1.weight": tensor}).encode()
  path = tmp_path / "a.safetensors"
  path.write_bytes(len(head).to_bytes(8, "little") + head + b"0" * 64)
  rejects("is truncated, damaged", *arrays(data), f"--init_from={path}")


def test_compressed_weights_of_torch(data, tmp_path):
  pytest.importorskip("torch")
  path = tmp_path / "a.pt"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("archive/data/0", bytes(2**20))
  rejects(
    "is compressed (archive/data/0)", *arrays(data), f"--init_from={path}"
  )


def test_photograph_that_expands_without_limit(data, tmp_path):
  def chunk(name, body):
    sum_ = zlib.crc32(name + body).to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + name + body + sum_

  size = (60_000).to_bytes(4, "big")
  head = chunk(b"IHDR", size + size + b"\x08\x02\0\0\0")
  picture = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"0"))
  for name in (
    "frost1.png",
    "frost2.png",
    "frost3.png",
    "frost4.jpg",
    "frost5.jpg",
  ):
    (tmp_path / name).write_bytes(picture)
  fields = "--config.evaluators.corruption"
  line = rejects(
    "frost cannot read",
    *arrays(data),
    f"{fields}.generate=true",
    f"{fields}.names=frost,fog",
    f"{fields}.frost_folder={tmp_path}",
  )
  assert "frost1.png" in line


# A results.json with every part; one part after another is made wrong.
RESULTS = {
  "schema": 2,
  "run": {"name": "x-0", "method": "augmix", "label": "X", "model": "M"}
  | {"data_label": "D", "seed": 0, "step": 4, "epochs": 1},
  "config": {"seed": 0, "train": {"epochs": 1}},
  "versions": {"python": "3"},
  "device": {"platform": "cpu", "kind": "cpu", "count": 1},
  "data": {
    "train": {"size": 4, "fingerprint": "sha256:1"},
    "test": {"size": 2, "fingerprint": "sha256:0"},
  },
  "timing": {"train_seconds": 1.0, "evaluate_seconds": 1.0},
  "notes": [{"text": "n", "level": "info"}],
  "rows": [
    {"total": 2, "correct": 1} | row
    for row in (
      {"evaluator": "clean", "settings": {}, "values": {"rms": 0.1}},
      {
        "evaluator": "adversarial",
        "settings": {"attack": "PGD-1", "norm": "l2", "epsilon": 1.0},
        "values": {},
      },
      {
        "evaluator": "corruption",
        "settings": {"corruption": "fog", "severity": 1, "images": "c"},
        "values": {},
      },
      {"evaluator": "fourier", "settings": {"y": 0, "x": 1}, "values": {}},
    )
  ],
}
OTHERS = (None, "x", -1, True, [], {}, [1], {"a": 1})


def places(tree, before=()):
  """The paths of all parts of a JSON tree."""
  rows = enumerate(tree) if isinstance(tree, list) else tree.items()
  for key, part in rows:
    yield (*before, key)
    if isinstance(part, dict | list):
      yield from places(part, (*before, key))


def changed(tree, place):
  """Copies of a tree with the part at a path replaced or removed."""
  for other in (*OTHERS, "gone"):
    copy = json.loads(json.dumps(tree))
    holder = copy
    for key in place[:-1]:
      holder = holder[key]
    if other == "gone":
      del holder[place[-1]]
    else:
      holder[place[-1]] = other
    yield copy


@pytest.mark.parametrize("place", list(places(RESULTS)), ids=str)
def test_results_are_rejected_or_shown(tmp_path, place):
  for tree in changed(RESULTS, place):
    (tmp_path / "results.json").write_text(json.dumps(tree))
    try:
      run = runs.load(tmp_path)
      references.of_run(run)
    except ValueError as error:
      assert "results.json" in str(error) and "\n" not in str(error)
      continue
    tables.summary([run]).markdown()
    tables.fields([run]).markdown()
    tables.corruptions([run], run)
    tables.calibration([run])


def test_results_through_the_command(tmp_path):
  (tmp_path / "results.json").write_text(json.dumps(RESULTS | {"notes": [3]}))
  words = "notes contain an invalid note: 3"
  rejects(words, "--mode=report", f"--runs={tmp_path}")
  rejects(words, "--mode=compare", f"--workdir={tmp_path}", "--reference=x")


DEEP = "[" * 100_000


@pytest.mark.parametrize(
  "line",
  [
    '{"step": "8", "epoch": 1, "timing": {"seconds": 1}}',
    '{"step": true, "epoch": 1, "timing": {"seconds": 1}}',
    '{"step": 8.5, "epoch": 1, "timing": {"seconds": 1}}',
    '{"step": 8, "epoch": "1", "timing": {"seconds": 1}}',
    '{"step": 8, "epoch": 1, "loss": "low", "timing": {"seconds": 1}}',
    '{"step": 8, "epoch": 1, "loss": null, "timing": {"seconds": 1}}',
    '{"step": 8, "epoch": 1, "loss": NaN, "timing": {"seconds": 1}}',
    f'{{"step": 8, "epoch": 1{"0" * 400}, "timing": {{"seconds": 1}}}}',
    '{"step": 8, "epoch": 1, "timing": 3}',
    '{"step": 8, "epoch": 1, "seconds": 1, "timing": {}}',
    DEEP,
  ],
)
def test_lines_of_metrics(tmp_path, line):
  (tmp_path / "results.json").write_text(json.dumps(RESULTS))
  first = '{"step": 4, "epoch": 0.5, "loss": 1.0, "timing": {"seconds": 1}}'
  (tmp_path / "metrics.jsonl").write_text(f"{first}\n{line}\n{first}\n")
  words = "metrics.jsonl is damaged in line 2 ("
  rejects(words, "--mode=report", f"--runs={tmp_path}")


def test_profile_in_a_read_only_folder(data, monkeypatch):
  def forbidden(path, *args, **kwargs):
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr(train, "build", lambda *args: None)
  monkeypatch.setattr(Path, "mkdir", forbidden)
  words = "'run/profile': change its permissions, or use another path"
  rejects(words, *arrays(data), "--mode=profile")


@pytest.mark.parametrize("mode", ["train", "evaluate", "export"])
@pytest.mark.parametrize(
  "place", ["train", "weights", "normalization", "dataset", "model", "method"]
)
def test_config_json(data, tmp_path, place, mode):
  saved = experiment.resolve(CONFIGS[CHOICES[-1]]).to_dict()
  folder = tmp_path / "run"
  folder.mkdir()
  argv = [f"--mode={mode}", f"--workdir={folder}"]
  argv += ["--out=a.safetensors"] if mode == "export" else arrays(data)[:2]
  for tree in changed(saved, (place,)):
    (folder / "config.json").write_text(json.dumps(tree))
    rejects("config.json is damaged", *argv)


@pytest.mark.parametrize("harm", ["classes", "image", "missing", "labels"])
def test_manifest_is_rejected_or_used(tmp_path, harm):
  np.save(tmp_path / "fog.npy", np.zeros((15, 8, 8, 3), np.uint8))
  np.save(tmp_path / "labels.npy", np.zeros(15, np.uint8))
  names = ("fog.npy", "labels.npy")
  tree = {
    "schema": 1,
    "made_with": {
      "seed": 0,
      "data": {"label": "D", "classes": 4, "image": [8, 8, 3], "size": 3}
      | {"fingerprint": "sha256:0"},
    },
    "files": {name: manifest.digest(tmp_path / name) for name in names},
    "missing": {"frost": "why"},
  }
  path = tmp_path / "manifest.json"
  path.write_text(json.dumps(tree))
  # The fingerprint is of the whole test set: the first images have another.
  test = np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, np.int32)
  cifar_c.CorruptedSource(folder=str(tmp_path)).check(*test)  # good as it is
  rejected = 0
  for place in (p for p in places(tree) if harm in "/".join(map(str, p))):
    for other in changed(tree, place):
      path.write_text(json.dumps(other))
      try:
        source = cifar_c.CorruptedSource(folder=str(tmp_path))
        source.check(*test)
        source.load("fog", 1)
        assert isinstance(source.missing(), dict)
      except (ValueError, OSError):
        rejected += 1
  assert rejected > 3


def test_folder_for_adversarial_images(data, tmp_path):
  flag = f"--save_adversarial={tmp_path}"
  rejects("no adversarial images to save", *arrays(data), flag)
  epsilons = "--config.evaluators.autoattack.epsilons=0.5,"
  (tmp_path / "mine.npy").touch()
  rejects("is not empty: choose a new", *arrays(data), flag, epsilons)
  assert [path.name for path in tmp_path.iterdir()] == ["mine.npy"]
  inside = "--save_adversarial=run/images"
  rejects("run: choose another folder", *arrays(data), inside, epsilons)
