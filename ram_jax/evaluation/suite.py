"""A suite of attacks, each run on the images that are still robust.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble
of diverse parameter-free attacks", ICML 2020; code fra31/auto-attack,
`autoattack/autoattack.py`.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import losses, parallel
from ram_jax.attacks import apgd, fab, square, targets
from ram_jax.attacks.iterative import Iterative
from ram_jax.attacks.pgd import finite_gradients
from ram_jax.contracts import Batch, Cache, Model, Row
from ram_jax.evaluation import attack_checks, pool, precision, rows

RANKS = 9  # number of target classes that are tried, one after another
UNIT = 4  # number of batches whose results are cached together
# GAIN: after other attacks, Square, which uses no gradients, should lower the
# accuracy by at most this much. SOFTMAX: softmax outputs sum to one to within
# this tolerance. Both are from auto-attack's checks.py.
GAIN, SOFTMAX = 0.002, 1e-5
CHANGE = 1e-4  # tolerated change of logits, relative to their norm (checks.py)
CHECKED = 200  # number of images whose logits and gradients are checked
TOLERANCE = 1e-6  # relative to the radius of the ball


@dataclasses.dataclass(frozen=True)
class Stage:
  """One attack of a suite.

  Attributes:
    make: (norm, epsilon) -> the attack.
    targets: number of target classes; 0: untargeted.
    malt: whether the targets are the classes with the smallest ratio of margin
      to gradient norm, instead of those with the largest logits.
    classes: minimum number of classes.
    restarts: number of runs of an untargeted attack, each on the images that
      are left.
    passes: number of classes -> forward and backward passes per step.
  """

  make: Callable[..., Iterative]
  targets: int = 0
  malt: bool = False
  classes: int = 2
  restarts: int = 1
  passes: Callable[[int], tuple[int, int]] = lambda classes: (1, 1)


_ce = functools.partial(apgd.Apgd, objective="cross_entropy")
_untargeted_dlr = functools.partial(apgd.Apgd, objective="dlr")
_dlr = functools.partial(apgd.Apgd, objective="targeted_dlr")
_fab = functools.partial(fab.Fab, targeted=False)
ATTACKS: Mapping[str, Stage] = {
  "apgd-ce": Stage(_ce),
  "apgd-dlr": Stage(_untargeted_dlr, classes=3),
  "apgd-margin": Stage(functools.partial(apgd.Apgd, objective="margin")),
  "apgd-t": Stage(_dlr, RANKS, classes=4),
  "apgd-malt": Stage(_dlr, 3, malt=True, classes=4),
  "fab-t": Stage(fab.Fab, RANKS, passes=lambda classes: (2, 1)),
  "square": Stage(square.Square, passes=lambda classes: (1, 0)),
  "apgd-ce-5": Stage(_ce, restarts=5),
  "apgd-dlr-5": Stage(_untargeted_dlr, classes=3, restarts=5),
  "fab-5": Stage(_fab, restarts=5, passes=lambda classes: (3, 1 + classes)),
}
VERSIONS: Mapping[str, tuple[str, ...]] = {
  "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
  "fast": ("apgd-ce", "apgd-malt", "apgd-margin"),
  "plus": ("apgd-ce-5", "apgd-dlr-5", "fab-5", "square", "apgd-t", "fab-t"),
}


def attacks_of(version: str) -> tuple[str, ...]:
  """Names of the attacks of a version.

  Args:
    version: a key of `VERSIONS`, or keys of `ATTACKS` joined by "+".

  Returns:
    The names in order.

  Raises:
    ValueError: for anything else.
  """
  names = VERSIONS.get(version, tuple(str(version).split("+")))
  if not set(names) <= set(ATTACKS):
    raise ValueError(
      f"version is {version!r}: give {', '.join(VERSIONS)}, or some of "
      f"{', '.join(ATTACKS)} joined by +"
    )
  return names


def label(version: str) -> str:
  """Name of the worst case over a version's attacks, for tables."""
  return "AutoAttack" if version == "standard" else f"AutoAttack-{version}"


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The state after an attack of a suite.

  Attributes:
    name: name of the attack, or "clean".
    correct: bool [N], images that are still classified correctly.
    finite: bool [N], whether the logits are finite, for the adversarial image
      if one was found, otherwise for the clean one.
    images: floats [N,H,W,C]: the adversarial image if one was found, else the
      clean one.
    forwards: forward passes of the attack's steps, summed over its images.
    backwards: backward passes.
    unconfirmed: number of images whose adversarial image is classified
      correctly by a second forward pass, or is not in the ball; they count as
      correct.
  """

  name: str
  correct: np.ndarray
  finite: np.ndarray
  images: np.ndarray
  forwards: int = 0
  backwards: int = 0
  unconfirmed: int = 0

  def found(self) -> dict[str, Any]:
    """The per-image results, for `rows.row`."""
    return {"correct": self.correct, "finite": self.finite}

  def row(self, suite: "Suite", number: int) -> Row:
    """The row of this stage; `number` is its position in the suite."""
    settings = {"stage": number, "attack": self.name, "version": suite.version}
    settings |= {"norm": suite.norm, "epsilon": suite.epsilon}
    values = {"forwards": self.forwards, "backwards": self.backwards}
    found = self.found() | {"values": values}
    return rows.row("autoattack_stage", settings, found)


@dataclasses.dataclass(frozen=True)
class Suite:
  """A version of AutoAttack at one epsilon, for one model.

  Attributes:
    model: on the devices.
    key: source of all randomness, together with the position and the attack.
    version: see `attacks_of`.
    norm: "l2" or "linf".
    epsilon: radius of the ball, for pixels in [0,1].
    batch_size: examples per batch, over all devices; does not change results.
    keep: whether to keep the adversarial images; otherwise, outcomes contain
      the clean ones.
    cache: stores the results of a few batches of images.
    precision: of the search, see `precision.py`.
  """

  model: Model
  key: jax.Array
  version: str
  norm: str
  epsilon: float
  batch_size: int
  keep: bool = False
  cache: Cache = lambda name, compute: compute()
  precision: str = precision.FULL

  def run(self, batch: Batch) -> Iterator[Outcome]:
    """Attacks images.

    Args:
      batch: `images` floats [N,H,W,C] in [0,1] and `labels` int32 [N].

    Yields:
      The outcome for the clean images, then one after each attack.

    Raises:
      ValueError: for labels that are not classes of the network, or an attack
        that needs more classes.
    """
    logits = _logits(self.model, batch, self.batch_size)
    labels = batch["labels"]
    self._check_classes(logits.shape[-1], labels)
    clean = _right(logits, labels)
    outcome = Outcome("clean", clean, _finite(logits), batch["images"])
    yield outcome
    batch = batch | {"positions": np.arange(len(labels), dtype=np.int32)}
    for name in attacks_of(self.version):
      outcome = self._attacked(name, batch, logits, outcome)
      yield outcome

  def _check_classes(self, count: int, labels: np.ndarray) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < count:
      raise ValueError(
        f"labels are {labels.min()} to {labels.max()}, but the network has "
        f"{count} classes: give 0 to {count - 1}"
      )
    for name in attacks_of(self.version):
      if count < ATTACKS[name].classes:
        raise ValueError(
          f"{name} needs at least {ATTACKS[name].classes} classes, but the "
          f"network has {count}: choose other attacks (version)"
        )

  def _attacked(
    self, name: str, batch: Batch, logits: np.ndarray, before: Outcome
  ) -> Outcome:
    """Runs an attack on the images that are still classified correctly."""
    left = np.flatnonzero(before.correct)
    correct, finite = before.correct.copy(), before.finite.copy()
    images = before.images.copy() if self.keep else before.images
    passes, unconfirmed = np.zeros(2, int), 0
    unit = UNIT * self.batch_size
    for start in range(0, len(left), unit):
      index = left[start : start + unit]
      digest = hashlib.sha256(index.tobytes()).hexdigest()[:16]
      kind = f"{name} {self.norm} {self.epsilon}{' images' * self.keep}"
      some = _rows(batch, index)
      found = self.cache(
        f"{kind} {digest}",
        functools.partial(self._unit, name, some, logits[index]),
      )
      hit = index[found["success"]]
      correct[hit], finite[hit] = False, found["finite"]
      if self.keep:
        images[hit] = found["images"]
      passes += found["passes"]
      unconfirmed += found["unconfirmed"]
    return Outcome(name, correct, finite, images, *passes.tolist(), unconfirmed)

  def _unit(
    self, name: str, batch: Batch, logits: np.ndarray
  ) -> dict[str, Any]:
    """Attacks some images; only verified successes count."""
    stage = ATTACKS[name]
    key = jax.random.fold_in(self.key, list(ATTACKS).index(name))
    attack = stage.make(norm=self.norm, epsilon=self.epsilon)
    batch = batch | {"targets": self._targets(stage, batch, logits)}
    size = min(self.batch_size, _rounded(len(logits)))
    left, steps = np.arange(len(logits)), 0
    success, finite = np.zeros(len(logits), bool), np.ones(len(logits), bool)
    images = batch["images"].copy()
    # An image whose success is not confirmed in full precision is attacked
    # again, in full precision.
    for chosen in dict.fromkeys((self.precision, precision.FULL)):
      search = finite_gradients(precision.Searched(self.model, chosen))
      found = pool.Pool(attack, search, _rows(batch, left), key, size).run()
      steps += found.image_steps
      left = tried = left[found.success]
      if not len(tried):
        break
      images[tried] = found.images[found.success]
      again = _logits(self.model, {"images": images[tried]}, size)
      sure = ~_right(again, batch["labels"][tried])
      sure &= self._inside(images[tried], batch["images"][tried])
      success[tried], finite[tried] = sure, _finite(again)
      left = tried[~sure]
      if not len(left):
        break
    return {
      "success": success,
      "finite": finite[success],
      "images": images[success if self.keep else slice(0)],
      "passes": np.array(stage.passes(logits.shape[-1])) * steps,
      "unconfirmed": len(left),
    }

  def _targets(
    self, stage: Stage, batch: Batch, logits: np.ndarray
  ) -> np.ndarray:
    """Target classes [N,T] in order, or the numbers of the restarts."""
    if not stage.targets:
      restarts = np.arange(stage.restarts, dtype=np.int32)
      return np.broadcast_to(restarts, (len(logits), stage.restarts))
    if stage.malt:
      order = _malt(self.model, batch, self.batch_size)
    else:
      order = targets.by_logit(jnp.asarray(logits), batch["labels"])
    return np.asarray(order, np.int32)[:, : stage.targets]

  def _inside(self, moved: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Whether images [N,...] are in the ball and [0,1], up to rounding."""
    delta = (np.float64(moved) - images).reshape(len(images), -1)
    order = 2 if self.norm == "l2" else np.inf
    sizes = np.linalg.norm(delta, order, axis=1)
    in_range = (moved >= 0).all((1, 2, 3)) & (moved <= 1).all((1, 2, 3))
    return in_range & (sizes <= self.epsilon * (1 + TOLERANCE))

  def warnings(self, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Signs that the results may be too high.

    Args:
      outcomes: from `run`.

    Yields:
      The warnings.
    """
    where = f"at epsilon {self.epsilon:.4g}"
    for before, after in itertools.pairwise(outcomes):
      gain = np.mean(before.correct) - np.mean(after.correct)
      if after.name == "square" and gain > GAIN and before.name != "clean":
        yield (
          f"Square, which uses no gradients, succeeds on {100 * gain:.1f} % of "
          f"the images after earlier attacks failed, {where}: gradients may be "
          "masked"
        )
      if after.unconfirmed:
        yield (
          f"{after.unconfirmed} adversarial images of {after.name}, {where}, "
          "are classified correctly by a second forward pass, or are outside "
          "the ball, and count as correct"
        )


def network_warnings(
  model: Model, batch: Batch, batch_size: int
) -> Iterator[str]:
  """Properties of a network that make attacks fail (auto-attack `checks.py`).

  Args:
    model: on the devices.
    batch: `images` floats [N,H,W,C] in [0,1], of which the first 200 are used,
      and `labels` int32 [N].
    batch_size: examples per batch, over all devices.

  Yields:
    The warnings.
  """
  some = _rows(batch, slice(CHECKED))
  size = min(batch_size, _rounded(len(some["labels"])))
  logits, norms = attack_checks.logits_and_gradients(model, some, size)
  # In another order, as noise or batch statistics may depend on the position.
  turned = _rows(some, slice(None, None, -1))
  again = attack_checks.logits_and_gradients(model, turned, size)[0][::-1]
  scale = np.linalg.norm(np.nan_to_num(logits), axis=-1, keepdims=True)
  same = np.isclose(logits / scale, again / scale, 0, CHANGE, equal_nan=True)
  if changed := int(np.sum(~np.all(same, axis=-1))):
    yield (
      f"the logits of {changed} of {len(logits)} images change when the images "
      "are classified again in another order: the network is not "
      "deterministic, or the logits of an image depend on the rest of the batch"
    )
  sums = np.sum(logits, axis=-1)
  if (logits >= 0).all() and (np.abs(sums - 1) < SOFTMAX).all():
    yield (
      "the network returns probabilities, whose gradients vanish: it must "
      "return logits, without softmax"
    )
  if flat := int(np.sum(~(norms >= attack_checks.TINY))):
    yield (
      f"the gradient of the cross-entropy of {flat} of {len(logits)} clean "
      "images is zero or not finite"
    )


def _rounded(count: int) -> int:
  """The count, rounded up to a multiple of the number of devices."""
  devices = jax.device_count()
  return -(-count // devices) * devices


def _rows(batch: Batch, index: Any) -> Batch:
  return {name: array[index] for name, array in batch.items()}


def _finite(logits: np.ndarray) -> np.ndarray:
  return np.isfinite(logits).all(-1)


def _right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  return np.array(losses.correct(jnp.asarray(logits), jnp.asarray(labels)))


@parallel.per_example
def _logits(
  model: Model, positions: jax.Array, batch: dict[str, jax.Array]
) -> jax.Array:
  del positions
  return model(batch["images"])


@parallel.per_example
def _malt(
  model: Model, positions: jax.Array, batch: dict[str, jax.Array]
) -> jax.Array:
  del positions
  return targets.by_distance(model, batch["images"], batch["labels"])
