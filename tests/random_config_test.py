"""Random configurations: valid ones train, invalid ones start nothing.

RAM_JAX_EXAMPLES=N draws N of each, also of fields that change the compiled
program, a compilation each. Without it programs are few and the draws the same
in each run.
"""

import contextlib
import io
import os
import pathlib
import tempfile

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

import main as program
from ram_jax import command_line
from ram_jax.evaluation import loop as evaluate
from ram_jax.runs import metrics
from ram_jax.training import loop as train
from ram_jax.training import step
from tests import bad_input_test as bad

pytestmark = pytest.mark.usefixtures("tiny_network", "quick_compilation")

EXAMPLES = int(os.environ.get("RAM_JAX_EXAMPLES", 0))
SETTINGS = hypothesis.settings(
  max_examples=EXAMPLES or 12,
  deadline=None,
  database=None,
  derandomize=not EXAMPLES,
  suppress_health_check=list(hypothesis.HealthCheck),
)
ONE_OF = st.sampled_from
COUNT = st.integers(1, 10**6)


def floats(low, high):
  return st.floats(low, high, allow_subnormal=False).map(repr)


# Fields that leave the compiled program as it is.
FREE = {
  "seed": st.integers(0, 2**32 - 1),
  "name": st.from_regex(r"[a-z][a-z0-9._+-]{0,20}", fullmatch=True),
  "train.log_every": COUNT,
  "train.checkpoint_every": COUNT,
  "dataset.label": st.text("abc XYZ-é", max_size=20),
  "dataset.num_classes": ONE_OF([0, 4]),
  "evaluate.images": st.integers(0, 32),
  "evaluate.batch_size": st.integers(1, 200).map(lambda n: 4 * n),
  "evaluators.adversarial.epsilons": st.lists(
    st.floats(0, 0.99).map(lambda value: round(value, 4)),
    min_size=1,
    max_size=5,
    unique=True,
  ).map(lambda values: ",".join(map(repr, values))),
  "evaluators.adversarial.relative_step_size": floats(1e-6, 1e6),
  "evaluators.adversarial.check_images": st.integers(0, 10**6),
  "evaluators.adversarial.attack.norm": ONE_OF(["l2", "linf"]),
  "method.attack.epsilon": floats(0, 0.99),
  "optimizer.learning_rate": floats(1e-6, 0.1),
  "evaluators.fourier.images": st.integers(0, 10**6),
  "evaluators.corruption.severities": ONE_OF(["1", "5,1", "1,2,3,4,5"]),
  "evaluators.corruption.seed": st.integers(0, 2**32 - 1),
  "floors": ONE_OF(["()", "('clean',None,'at least',0.5),"]),
}
# Fields of which each value is a program of its own.
COMPILED = {
  "augment.flip": st.booleans(),
  "augment.padding": st.integers(0, 9),
  "batch_norm.attack": ONE_OF(["running", "batch"]),
  "batch_norm.views": ONE_OF(["separate", "joint"]),
  "batch_norm.sync": st.booleans(),
  "method.attack.norm": ONE_OF(["l2", "linf"]),
  "method.attack.objective": ONE_OF(["cross_entropy", "dlr", "margin"]),
  "method.attack.start": ONE_OF(["none", "uniform", "sphere"]),
  "method.attack.steps": st.integers(1, 2),
  "method.attack.restarts": st.integers(1, 2),
  "optimizer.momentum": floats(0, 0.99),
  "optimizer.nesterov": st.booleans(),
  "optimizer.schedule": ONE_OF(["cosine_epoch", "cosine_step", "constant"]),
  "optimizer.weight_decay": floats(0, 0.1),
  "train.batch_size": ONE_OF([4, 8]),
  "train.images": ONE_OF([16, 23]),
  "train.dtype": ONE_OF(["float32", "bfloat16"]),
  "train.steps_per_dispatch": st.integers(1, 3),
  "train.unroll": st.booleans(),
}
FEW = (
  {},
  {
    "batch_norm.attack": "batch",
    "method.attack.norm": "linf",
    "optimizer.nesterov": False,
    "train.steps_per_dispatch": 2,
  },
)


def some(fields):
  return st.fixed_dictionaries({}, optional=fields)


OVERRIDES = st.builds(
  dict.__or__, some(FREE), some(COMPILED) if EXAMPLES else ONE_OF(FEW)
)


@pytest.fixture(scope="module")
def argv(tmp_path_factory):
  path = bad.write_data(tmp_path_factory.mktemp("data") / "tiny.npz")
  folder = command_line.CONFIGS
  return [
    f"--config={folder / 'adversarial.py'}:smoke,dataset=arrays",
    f"--config.dataset.path={path}",
    "--config.train.images=16",
    "--config.train.batch_size=8",
    "--config.method.attack.steps=1",
    "--config.method.attack.epsilon=0.5",
    "--config.evaluators.adversarial.epsilons=0.5",
    "--config.evaluators.adversarial.attack.epsilon=0.5",
  ]


def flags(overrides):
  return [f"--config.{name}={value}" for name, value in overrides.items()]


@SETTINGS
@hypothesis.given(overrides=OVERRIDES)
def test_valid_configs_train_two_steps(argv, overrides):
  found = []

  def measured(config, evaluation, folder, data, model, step, *rest):
    found.append((model, step))
    raise ValueError("trained")

  with (
    pytest.MonkeyPatch.context() as patch,
    tempfile.TemporaryDirectory() as d,
  ):
    patch.setattr(evaluate, "run", measured)
    error = run(*argv, f"--workdir={d}", *flags(overrides))
    rows = metrics.read(pathlib.Path(d) / "metrics.jsonl")
  assert error == "error: trained", error
  images, size = overrides.get("train.images", 16), 8
  steps = images // overrides.get("train.batch_size", size)
  [(model, step)] = found
  assert step == steps >= 2 and rows[-1]["step"] == steps
  for leaf in jax.tree.leaves(model):
    assert np.isfinite(np.asarray(leaf)).all()


BAD = [(n, text) for n, rows in bad.RANGE.items() for text, _ in rows]
BAD += [
  (name, bad.WRONG[bad.kind(name)][0])
  for name in bad.FIELDS
  if bad.kind(name) in bad.WRONG
]
# But for fields that these tests' config has not, or that count only where they
# are used.
BAD = [
  (name, text)
  for name, text in BAD
  if not name.startswith(("dataset", "model", "method.augment", "method.name"))
  if name not in ("method.jensen_shannon", "method.weight")
  if name != "evaluators.corruption.frost_folder"
]


@SETTINGS
@hypothesis.given(overrides=OVERRIDES, wrong=ONE_OF(BAD))
def test_invalid_configs_start_nothing(argv, overrides, wrong):
  def computed(*args):
    raise AssertionError("something was computed")

  name, text = wrong
  with (
    pytest.MonkeyPatch.context() as patch,
    tempfile.TemporaryDirectory() as d,
  ):
    patch.setattr(step.Program, "create", computed)
    for module, part in ((train, "fit"), (evaluate, "run")):
      patch.setattr(module, part, computed)
    folder = pathlib.Path(d) / "run"
    # Behind the others, as the last one of a field counts.
    line = run(*argv, f"--workdir={folder}", *flags(overrides | {name: text}))
    assert not folder.exists()
  assert line.startswith("error: "), line


def run(*arguments):
  """The last line on stderr of the program, which must end with an error."""
  err = io.StringIO()
  with contextlib.redirect_stderr(err):
    assert program.main(arguments) == 2, err.getvalue()
  return err.getvalue().splitlines()[-1]
