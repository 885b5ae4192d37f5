"""AutoAttack: the worst case over a suite of attacks.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble
of diverse parameter-free attacks", ICML 2020; code fra31/auto-attack,
`autoattack/autoattack.py`. Each attack is run on the images that are still
classified correctly, always from the clean image.
"""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import contracts, losses, parallel
from ram_jax.attacks import apgd, fab, square, targets
from ram_jax.attacks.iterative import RANKS
from ram_jax.attacks.norms import NORMS
from ram_jax.attacks.pgd import finite_gradients
from ram_jax.contracts import Cache, IterativeAttack, Model, Note, Row
from ram_jax.data import pipeline
from ram_jax.evaluation import adversarial_files, pool, rows
from ram_jax.runs import provenance
from ram_jax.runs.checkpoint import fingerprint

UNIT = 4  # number of batches whose results are cached together
# Square, which uses no gradients, should find at most this fraction of the
# images; softmax outputs sum to one within this (auto-attack checks.py).
GAIN, SOFTMAX = 0.002, 1e-5
CHECKED = 200  # number of images whose logits and gradients are checked
TOLERANCE = 1e-6  # of the ball's radius, relative


@dataclasses.dataclass(frozen=True)
class Stage:
  """One attack of a suite.

  Attributes:
    make: (norm, epsilon) -> the attack.
    targets: number of target classes; 0: untargeted.
    malt: whether the targets are the classes with the smallest margin relative
      to the margin's gradient, instead of the largest logits.
    restarts: number of runs of an untargeted attack, each on the images that
      are left.
    passes: forward and backward passes per step, for a number of classes.
  """

  make: Callable[..., IterativeAttack]
  targets: int = 0
  malt: bool = False
  restarts: int = 1
  passes: Callable[[int], tuple[int, int]] = lambda classes: (1, 1)


_ce = functools.partial(apgd.Attack, objective="cross_entropy")
_untargeted_dlr = functools.partial(apgd.Attack, objective="dlr")
_dlr = functools.partial(apgd.Attack, objective="targeted_dlr")
_fab = functools.partial(fab.Attack, targeted=False)
ATTACKS: Mapping[str, Stage] = {
  "apgd-ce": Stage(_ce),
  "apgd-dlr": Stage(_untargeted_dlr),
  "apgd-margin": Stage(functools.partial(apgd.Attack, objective="margin")),
  "apgd-t": Stage(_dlr, RANKS),
  "apgd-malt": Stage(_dlr, 3, malt=True),
  "fab-t": Stage(fab.Attack, RANKS, passes=lambda classes: (2, 1)),
  "square": Stage(square.Attack, passes=lambda classes: (1, 0)),
  "apgd-ce-5": Stage(_ce, restarts=5),
  "apgd-dlr-5": Stage(_untargeted_dlr, restarts=5),
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
  names = VERSIONS.get(version, tuple(version.split("+")))
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
class Evaluator(contracts.Evaluator):
  """Accuracy under AutoAttack.

  Attributes:
    version: "standard", "fast", or names of attacks joined by "+".
    norm: "l2" or "linf".
    epsilons: radii of the ball, for pixels in [0,1]; empty: not evaluated.
    images: first N test images; 0 or None: all.
    batch_size: examples per batch, over all devices; does not change results.
    save_to: folder for the adversarial images; empty: they are not saved.
  """

  version: str
  norm: str
  epsilons: tuple[float, ...]
  images: int | None
  batch_size: int
  save_to: str = ""

  def __post_init__(self) -> None:
    attacks_of(self.version)
    for epsilon in self.epsilons:
      if not (isinstance(epsilon, int | float) and 0 < epsilon < np.inf):
        raise ValueError(
          f"epsilons are {self.epsilons}: give finite numbers above 0"
        )
    if self.norm not in NORMS:
      raise ValueError(f"norm is {self.norm!r}: give l2 or linf")
    if (self.images or 0) < 0:
      raise ValueError(
        f"images is {self.images}: give a number of images, or 0 for all"
      )
    if self.save_to and not self.epsilons:
      raise ValueError(
        "epsilons are empty, so there are no adversarial images to save: give "
        "some (--config.evaluators.autoattack.epsilons=0.5,)"
      )

  def check(self, images: np.ndarray, labels: np.ndarray) -> None:
    """Rejects a folder for adversarial images that contains anything else."""
    if self.save_to:
      made_with = self._made_with(images, labels, None)
      folder = pathlib.Path(self.save_to)
      adversarial_files.check(folder, made_with, ignored=("weights",))

  def results(
    self,
    model: Model,
    images: np.ndarray,
    labels: np.ndarray,
    key: jax.Array,
    cache: Cache,
  ) -> Iterator[Row | Note]:
    """Yields a row per stage, and one for the worst case, at each epsilon.

    Args:
      model: the classifier, on the devices.
      images: uint8 [N,H,W,C].
      labels: int32 [N].
      key: source of all randomness, with the position and the attack.
      cache: stores the results of a few batches of images.

    Yields:
      Rows and notes, as in `contracts.Evaluator`.
    """
    if not self.epsilons:
      return
    if self.save_to:
      made_with = self._made_with(images, labels, model)
      adversarial_files.check(pathlib.Path(self.save_to), made_with)
    if self.images and self.images < len(images):
      yield Note(f"AutoAttack: on the first {self.images} test images")
      images, labels = images[: self.images], labels[: self.images]
    # As `image.color.dequantise`, on the host.
    pixels = images.astype(np.float32) / np.float32(255)
    saved, keep = {}, bool(self.save_to)
    for epsilon in map(float, self.epsilons):
      suite = Suite(
        self.version, self.norm, epsilon, self.batch_size, keep, cache
      )
      outcomes = list(suite.run(model, pixels, labels, key))
      for number, outcome in enumerate(outcomes[1:], start=1):
        yield outcome.row(suite, number)
      settings = {"attack": label(self.version), "norm": self.norm}
      settings |= {"epsilon": epsilon}
      found = {"correct": outcomes[-1].correct}
      yield rows.row("autoattack", settings, found)
      for text in suite.warnings(model, pixels, labels, outcomes):
        yield Note(f"AutoAttack may fail: {text}", "warning")
      saved["clean"] = outcomes[0]
      saved[f"{self.version}_{self.norm}_{epsilon:g}"] = outcomes[-1]
    if self.save_to:
      arrays = {name: outcome.images for name, outcome in saved.items()}
      counts = {n: int(outcome.correct.sum()) for n, outcome in saved.items()}
      adversarial_files.write(
        pathlib.Path(self.save_to),
        made_with,
        {"labels": labels} | arrays,
        counts,
      )

  def _made_with(
    self, images: np.ndarray, labels: np.ndarray, model: Model | None
  ) -> dict[str, Any]:
    """Everything that the saved images depend on."""
    settings = {"version": self.version, "norm": self.norm}
    settings |= {"epsilons": list(self.epsilons), "images": self.images}
    return settings | {
      "versions": provenance.versions(),
      "data": pipeline.describe(images, labels),
      "weights": fingerprint(model) if model else None,
    }


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The state after an attack of a suite.

  Attributes:
    name: name of the attack, or "clean".
    correct: bool [N], images that are still classified correctly.
    images: floats [N,H,W,C]: the adversarial image if one was found, else the
      clean one.
    forwards: forward passes of the attack, summed over its images.
    backwards: backward passes.
  """

  name: str
  correct: np.ndarray
  images: np.ndarray
  forwards: int = 0
  backwards: int = 0

  def row(self, suite: "Suite", number: int) -> Row:
    """The row of this stage, the number-th of a suite."""
    settings = {"stage": number, "attack": self.name, "version": suite.version}
    settings |= {"norm": suite.norm, "epsilon": suite.epsilon}
    values = {"forwards": self.forwards, "backwards": self.backwards}
    found = {"correct": self.correct, "values": values}
    return rows.row("autoattack_stage", settings, found)


def _fresh(name: str, compute: Callable[[], Any]) -> Any:
  del name
  return compute()


@dataclasses.dataclass(frozen=True)
class Suite:
  """A version of AutoAttack at one epsilon.

  Attributes:
    version: see `Evaluator`.
    norm: "l2" or "linf".
    epsilon: radius of the ball, for pixels in [0,1].
    batch_size: examples per batch, over all devices; does not change results.
    keep: whether to keep the adversarial images; otherwise, outcomes have the
      clean ones.
    cache: stores the results of a few batches of images.
  """

  version: str
  norm: str
  epsilon: float
  batch_size: int
  keep: bool = False
  cache: Cache = _fresh

  def run(
    self, model: Model, images: np.ndarray, labels: np.ndarray, key: jax.Array
  ) -> Iterator[Outcome]:
    """Attacks images.

    Args:
      model: on the devices.
      images: floats [N,H,W,C] in [0,1].
      labels: int32 [N].
      key: source of all randomness, with the position and the attack.

    Yields:
      The outcome for the clean images, then after each attack.

    Raises:
      ValueError: for a targeted attack on a network with fewer than 4 classes.
    """
    batch = {"images": images, "labels": labels}
    logits = _logits(model, batch, self.batch_size)
    outcome = Outcome("clean", _right(logits, labels), images)
    yield outcome
    for name in attacks_of(self.version):
      stage = ATTACKS[name]
      if stage.targets and logits.shape[-1] < 4:
        raise ValueError(
          f"{name} needs 4 classes or more, and the network has "
          f"{logits.shape[-1]}: choose other attacks (version)"
        )
      outcome = self._attacked(name, model, batch, logits, key, outcome)
      yield outcome

  def _attacked(
    self,
    name: str,
    model: Model,
    batch: dict[str, np.ndarray],
    logits: np.ndarray,
    key: jax.Array,
    before: Outcome,
  ) -> Outcome:
    """Runs an attack on the images that are still classified correctly."""
    key = jax.random.fold_in(key, list(ATTACKS).index(name))
    left = np.flatnonzero(before.correct)
    correct, images = before.correct.copy(), before.images.copy()
    passes = np.zeros(2, int)
    unit = UNIT * self.batch_size
    for start in range(0, len(left), unit):
      index = left[start : start + unit]
      some = {part: array[index] for part, array in batch.items()}
      some["positions"] = index.astype(np.int32)
      digest = hashlib.sha256(index.tobytes()).hexdigest()[:16]
      found = self.cache(
        f"{name} {self.norm} {self.epsilon} {digest}",
        functools.partial(self._unit, name, model, some, logits[index], key),
      )
      hit = found["success"]
      correct[index[hit]] = False
      if self.keep:
        images[index[hit]] = found["images"]
      passes += found["passes"]
    return Outcome(name, correct, images, *passes.tolist())

  def _unit(
    self,
    name: str,
    model: Model,
    batch: dict[str, np.ndarray],
    logits: np.ndarray,
    key: jax.Array,
  ) -> dict[str, Any]:
    """Attacks some images; only verified successes count."""
    stage = ATTACKS[name]
    attack = stage.make(norm=self.norm, epsilon=self.epsilon)
    aims = self._targets(stage, model, batch, logits)
    finite = finite_gradients(model)
    size = min(self.batch_size, _rounded(len(logits)))
    found = pool.run(attack, finite, batch | {"targets": aims}, key, size)
    hit = np.flatnonzero(found.success)
    if len(hit):
      moved = {"images": found.images[hit], "labels": batch["labels"][hit]}
      wrong = ~_right(_logits(model, moved, size), moved["labels"])
      inside = self._inside(moved["images"], batch["images"][hit])
      hit = hit[wrong & inside]
    success = np.zeros(len(logits), bool)
    success[hit] = True
    passes = np.array(stage.passes(logits.shape[-1])) * found.image_steps
    kept = found.images[hit if self.keep else hit[:0]]
    return {"success": success, "images": kept, "passes": passes}

  def _targets(
    self,
    stage: Stage,
    model: Model,
    batch: dict[str, np.ndarray],
    logits: np.ndarray,
  ) -> np.ndarray:
    """Target classes [N,T] in order, or the numbers of the restarts."""
    if not stage.targets:
      restarts = np.arange(stage.restarts, dtype=np.int32)
      return np.broadcast_to(restarts, (len(logits), stage.restarts))
    if stage.malt:
      order = _malt(model, batch, self.batch_size)
    else:
      order = np.argsort(-logits, axis=-1, kind="stable")[:, 1:]
    return order[:, : stage.targets].astype(np.int32)

  def _inside(self, moved: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Whether images [N,...] are in the ball and [0,1], up to rounding."""
    delta = np.float64(moved) - images
    flat = delta.reshape(len(delta), -1)
    order = {"l2": 2, "linf": np.inf}[self.norm]
    sizes = np.linalg.norm(flat, order, axis=1)
    in_range = (moved >= 0).all((1, 2, 3)) & (moved <= 1).all((1, 2, 3))
    return in_range & (sizes <= self.epsilon * (1 + TOLERANCE))

  def warnings(
    self,
    model: Model,
    images: np.ndarray,
    labels: np.ndarray,
    outcomes: Sequence[Outcome],
  ) -> Iterator[str]:
    """Warnings that the result may be too high (auto-attack `checks.py`).

    Args:
      model: on the devices.
      images: floats [N,H,W,C] in [0,1].
      labels: int32 [N].
      outcomes: from `run`.

    Yields:
      The warnings.
    """
    some = {"images": images[:CHECKED], "labels": labels[:CHECKED]}
    size = min(self.batch_size, _rounded(len(some["labels"])))
    logits, again = (_logits(model, some, size) for _ in range(2))
    count = len(logits)
    if changed := int(np.sum(np.any(logits != again, axis=-1))):
      yield (
        f"the logits of {changed} of {count} images change when they are "
        "classified again: the network is not deterministic"
      )
    sums = np.sum(logits, axis=-1)
    if (logits >= 0).all() and (np.abs(sums - 1) < SOFTMAX).all():
      yield (
        "the network returns probabilities, whose gradients vanish: it must "
        "return logits, without softmax"
      )
    flat = int(np.sum(_flat(model, some, size)))
    if flat:
      yield (
        f"the gradient of the cross-entropy of {flat} of {count} clean images "
        "is zero or not finite"
      )
    for before, after in itertools.pairwise(outcomes):
      gain = np.mean(before.correct) - np.mean(after.correct)
      if after.name == "square" and gain > GAIN and before.name != "clean":
        yield (
          f"Square, which uses no gradients, finds {100 * gain:.1f} % that "
          "earlier attacks did not find: gradients may be masked"
        )


@dataclasses.dataclass(frozen=True)
class Result:
  """The results of `autoattack`.

  Attributes:
    clean: bool [N], whether the clean image is classified correctly.
    robust: bool [N], whether it is classified correctly under every attack.
    stages: bool [N] by attack, in order: still classified correctly after it.
    images: floats [N,H,W,C]: the adversarial image if one was found, else the
      clean one.
    warnings: reasons why the result may be too high.
  """

  clean: np.ndarray
  robust: np.ndarray
  stages: dict[str, np.ndarray]
  images: np.ndarray
  warnings: tuple[str, ...]


def autoattack(
  logits_fn: Callable[[jax.Array], jax.Array],
  images: np.ndarray,
  labels: np.ndarray,
  *,
  norm: str = "l2",
  epsilon: float = 0.5,
  version: str = "standard",
  batch_size: int = 128,
  seed: int = 0,
) -> Result:
  """Evaluates any function of images with AutoAttack, on all local devices.

  Args:
    logits_fn: images [B,H,W,C] in [0,1] -> logits [B,K]; differentiable, and
      deterministic per image. A pytree with `__call__` (or
      `jax.tree_util.Partial`) is passed to the compiled programs as an
      argument; the arrays that another function closes over are compiled in.
    images: floats [N,H,W,C] in [0,1].
    labels: integers [N].
    norm: "l2" or "linf".
    epsilon: radius of the ball, for pixels in [0,1].
    version: "standard", "fast", or names of attacks joined by "+".
    batch_size: images per batch, a multiple of the number of devices; does not
      change results.
    seed: seed of the attacks' random numbers.

  Returns:
    The results.

  Raises:
    ValueError: for invalid images, labels or options.
  """
  images, labels = np.asarray(images), np.asarray(labels)
  _check(images, labels)
  parallel.check_batch_size(batch_size, "batch_size")
  Evaluator(version, norm, (epsilon,), 0, batch_size)
  leaves = jax.tree.leaves(logits_fn)
  if len(leaves) == 1 and leaves[0] is logits_fn:  # a function, not a pytree
    logits_fn = jax.tree_util.Partial(logits_fn)
  model = parallel.replicate(logits_fn)
  suite = Suite(version, norm, epsilon, batch_size, keep=True)
  labels = labels.astype(np.int32)
  # Matrix products of reduced precision would change the attacks' decisions.
  with jax.default_matmul_precision("highest"):
    key = jax.random.key(seed)
    clean, *after = suite.run(model, images, labels, key)
    warned = suite.warnings(model, images, labels, [clean, *after])
  return Result(
    clean.correct,
    after[-1].correct,
    {outcome.name: outcome.correct for outcome in after},
    after[-1].images,
    tuple(warned),
  )


def _check(images: np.ndarray, labels: np.ndarray) -> None:
  """Rejects images and labels that `autoattack` does not accept."""
  if images.ndim != 4 or not np.issubdtype(images.dtype, np.floating):
    raise ValueError(
      f"images are {images.dtype} {images.shape}: give floats [N,H,W,C] in "
      "[0,1], such as uint8 pixels / 255"
    )
  if not (images.size and images.min() >= 0 and images.max() <= 1):
    raise ValueError(
      "images are empty or not in [0,1]: give pixels before any normalization, "
      "which belongs in logits_fn"
    )
  whole = np.issubdtype(labels.dtype, np.integer)
  if labels.shape != images.shape[:1] or not whole:
    raise ValueError(
      f"labels are {labels.dtype} {labels.shape} for {len(images)} images: "
      "give one integer per image"
    )


def _rounded(count: int) -> int:
  """The next multiple of the number of devices."""
  devices = jax.device_count()
  return -(-count // devices) * devices


def _right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  return np.array(losses.correct(jnp.asarray(logits), jnp.asarray(labels)))


@parallel.per_example
def _logits(
  model: Model, positions: jax.Array, batch: dict[str, jax.Array]
) -> jax.Array:
  del positions
  return model(batch["images"])


@parallel.per_example
def _flat(
  model: Model, positions: jax.Array, batch: dict[str, jax.Array]
) -> jax.Array:
  """Whether the gradient of the cross-entropy is zero or not finite."""
  del positions

  def loss(images: jax.Array) -> jax.Array:
    return jnp.sum(losses.cross_entropy(model(images), batch["labels"]))

  size = jnp.max(jnp.abs(jax.grad(loss)(batch["images"])), axis=(1, 2, 3))
  return ~((size > 0) & jnp.isfinite(size))


@parallel.per_example
def _malt(
  model: Model, positions: jax.Array, batch: dict[str, jax.Array]
) -> jax.Array:
  del positions
  return targets.by_distance(model, batch["images"], batch["labels"])
