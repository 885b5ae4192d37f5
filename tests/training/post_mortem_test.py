"""A non-finite step is found, explained, stored, and can be repeated."""

import dataclasses
import functools
import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import standard
from ram_jax import experiment, losses, parallel, plugins
from ram_jax.models.batch_norm import BatchNorm
from ram_jax.runs.checkpoint import Checkpoints
from ram_jax.training import loop as train
from ram_jax.training import optim, post_mortem, step
from ram_jax.training.averaging import Averaging
from ram_jax.training.perturbation import WeightPerturbation

IMAGES, BATCH, CULPRIT = 32, 8, 21
pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def data():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 255, (IMAGES, 4, 4, 3), np.uint8)
  images[CULPRIT] = 255
  return {"images": images, "labels": rng.integers(0, 4, IMAGES, np.int32)}


class Net(nn.Module):
  @nn.compact
  def __call__(self, images, train):
    x = BatchNorm(parallel.AXIS)(images.reshape(len(images), -1), train)
    return nn.Dense(4)(x)


@plugins.make_pytree
@dataclasses.dataclass(frozen=True)
class Method:
  """Two views; what is done to the white image's second view is given."""

  harm: object = staticmethod(lambda images: images)

  def views(self, keys, batch, model):
    images = batch["images"]
    white = (images == 1).all(axis=(1, 2, 3), keepdims=True)
    other = jnp.where(white, self.harm(images), images / 2)
    return (("clean", images), ("other", other)), batch["labels"]

  def loss(self, logits, targets):
    loss, other = (losses.cross_entropy(x, targets) for x in logits)
    return loss + other, {"other": other}


def to_nan(images):
  return images * jnp.nan


def constant(rate):
  return lambda count: jnp.asarray(rate)


def build(method, rate=0.1, per_dispatch=2):
  """A tiny training: 4 steps an epoch, 4 epochs."""
  config = standard.get_config("model=wrn_10_1")
  config.train.batch_size, config.train.epochs = BATCH, 4
  config.train.log_every = 3
  config = experiment.resolve(config)
  program = step.Program(
    module=Net(),
    image_shape=(4, 4, 3),
    crop_flip=lambda keys, images: images,
    separate_views=True,
    attack_batch_norm="running",
    perturbation=WeightPerturbation(0.0),
    split=None,
    label_smoothing=0.0,
    ramp_steps=0.0,
    attack_steps=(),
    mixing=None,
    unroll=True,
    optimizer=optim.Optimizer("constant", 4, 4, 0.9, True, 5e-4, True, 0),
    averaging=Averaging("none", 0.0, 0.0, "copied", 4, 16),
  )
  diagnose = functools.partial(post_mortem.diagnose, program)
  return config, train.Training(
    create=functools.partial(program.create, KEY),
    settings=step.Settings(KEY, method, np.float32(rate)),
    dispatch=parallel.training_dispatch(program.train_steps),
    streamed=False,
    diagnose=parallel.training_dispatch(diagnose, donate=False),
    add_statistics=None,
    schedule=constant(rate),
    seed=config.seed,
    batch_size=BATCH,
    steps_per_epoch=4,
    total_steps=16,
    per_dispatch=per_dispatch,
  )


def fails(config, training, data, folder):
  """The error, and the content of the post-mortem folder."""
  checkpoints = Checkpoints(folder / "checkpoints")
  with pytest.raises(FloatingPointError) as caught:
    train.fit(config, training, data, folder, checkpoints)
  checkpoints.close()
  place = folder / "post_mortem"
  report = json.loads((place / "report.json").read_text())
  with np.load(place / "batch.npz") as batch:
    return str(caught.value), report, dict(batch)


@pytest.fixture(scope="module")
def harmful():
  return build(Method(to_nan))


@pytest.fixture(scope="module")
def healthy():
  return build(Method())


@pytest.fixture(scope="module")
def step_of_culprit():
  order = train.pipeline.batch_indices(0, 0, 4, IMAGES, BATCH)
  return int(np.flatnonzero((order == CULPRIT).any(axis=1))[0]) + 1


def test_image_with_a_nan_is_named(harmful, data, tmp_path, step_of_culprit):
  config, training = harmful
  text, report, batch = fails(config, training, data, tmp_path)
  number = step_of_culprit
  assert report["step"] == batch["step"] == number
  assert set(report["metrics"]) == {
    "loss",
    "other",
    "gradient_norm",
    "parameter_norm",
    "statistics_norm",
  }
  # Batch normalisation makes all of the other view NaN; one image is to blame.
  assert report["views"] == ["other"] and report["examples"] == [CULPRIT]
  assert report["gradients"] == report["parameters"]
  assert "Dense_0.kernel" in report["gradients"]
  assert report["statistics"] == ["BatchNorm_0.mean", "BatchNorm_0.var"]
  assert text.startswith(f"step {number}: gradient_norm nan, loss nan")
  assert f"; views other; examples {CULPRIT}; gradients " in text
  assert str(tmp_path / "post_mortem") in text and "\n" not in text
  # What is written is the batch, and the same data.
  order = train.pipeline.batch_indices(0, number - 1, 1, IMAGES, BATCH)[0]
  np.testing.assert_array_equal(batch["indices"], order)
  for name in ("images", "labels"):
    np.testing.assert_array_equal(batch[name], data[name][order])
    assert batch[name].dtype == data[name].dtype


def test_the_step_can_be_repeated_from_the_state_before_it(
  harmful, healthy, data, tmp_path, step_of_culprit
):
  config, training = harmful
  text, report, _ = fails(config, training, data, tmp_path)
  [kept] = (tmp_path / "post_mortem" / "checkpoints").glob("[0-9]*")
  # The dispatch that the step is in begins there.
  assert int(kept.name) == (step_of_culprit - 1) // 2 * 2
  assert f"copy checkpoints/{kept.name} from" in report["replay"]
  again = tmp_path / "again"
  shutil.copytree(kept, again / "checkpoints" / kept.name)
  assert fails(config, training, data, again)[1] == report
  checkpoints = Checkpoints(again / "checkpoints")
  state = train.fit(config, healthy[1], data, again, checkpoints)
  checkpoints.close()
  assert int(state.step) == 16  # every number of it is finite, or fit stops


def test_exploding_learning_rate_is_detected_at_the_update(data, tmp_path):
  config, training = build(Method(), rate=1e38)
  text, report, _ = fails(config, training, data, tmp_path)
  # Loss and gradient are finite still, and so are the new parameters, but not
  # their squares: a checkpoint of them would have been bad.
  assert report["step"] == 1 and set(report["metrics"]) == {"parameter_norm"}
  for part in ("gradients", "examples", "views", "statistics", "parameters"):
    assert report[part] == []
  assert text.startswith("step 1: parameter_norm inf. The last checkpoint")


def test_nan_only_in_the_statistics_is_detected(
  data, tmp_path, step_of_culprit
):
  # The square of one pixel is infinite, and so is the variance; what is divided
  # by it is 0, and the loss finite.
  def one_pixel(images):
    return jnp.zeros_like(images).at[0, 0, 0].set(1e20)

  config, training = build(Method(one_pixel))
  _, report, _ = fails(config, training, data, tmp_path)
  assert report["step"] == step_of_culprit
  assert report["statistics"] == ["BatchNorm_0.var"]
  assert set(report["metrics"]) == {"statistics_norm"}


def test_good_run_has_no_post_mortem(healthy, data, tmp_path):
  config, training = healthy
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  train.fit(config, training, data, tmp_path, checkpoints)
  checkpoints.close()
  assert not (tmp_path / "post_mortem").exists()


def test_no_memory_for_a_post_mortem(harmful, data, tmp_path):
  config, training = harmful

  def full(*args):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory")

  training = dataclasses.replace(training, diagnose=full)
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  with pytest.raises(
    FloatingPointError, match="loss is nan.*no post-mortem: R"
  ):
    train.fit(config, training, data, tmp_path, checkpoints)
  checkpoints.close()


def test_long_lists_are_shortened():
  names = ("views", "gradients", "parameters", "statistics", "examples")
  found = {"step": 3, "metrics": {"loss": "nan"}} | dict.fromkeys(names, [])
  assert post_mortem.describe(found) == "step 3: loss nan"
  found["gradients"] = [f"layer{i}" for i in range(11)]
  text = post_mortem.describe(found)
  assert text.endswith(
    "; gradients " + ", ".join(f"layer{i}" for i in range(8)) + " and 3 more"
  )
