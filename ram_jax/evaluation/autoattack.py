"""AutoAttack: the worst case over a suite of attacks (see `suite`)."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import checks, contracts, parallel
from ram_jax.attacks.norms import NORMS
from ram_jax.contracts import Batch, Cache, Model, Note, Row
from ram_jax.data import manifest, pipeline
from ram_jax.evaluation import precision as precision_lib
from ram_jax.evaluation import rows, suite
from ram_jax.runs import folder as run_folder
from ram_jax.runs import metrics, provenance
from ram_jax.runs.checkpoint import fingerprint

SCHEMA = 1  # version of the format of manifest.json


@dataclasses.dataclass(frozen=True)
class Evaluator(contracts.Evaluator):
  """Accuracy under AutoAttack.

  Attributes:
    version: "standard", "fast", "plus", or some of `suite.ATTACKS` joined by
      "+".
    norm: "l2" or "linf".
    epsilons: radii of the ball, for pixels in [0,1]; empty: not evaluated.
    images: first N test images; 0 or None: all.
    batch_size: examples per batch, over all devices; does not change results.
    save_to: folder for the adversarial images; empty: they are not saved.
    precision: precision of the attacks' search, see `precision.py`.
  """

  version: str
  norm: str
  epsilons: tuple[float, ...]
  images: int | None
  batch_size: int
  save_to: str = ""
  precision: str = precision_lib.FULL

  def __post_init__(self) -> None:
    suite.attacks_of(self.version)
    above_0 = "finite numbers above 0", lambda v: all(0 < e < np.inf for e in v)
    checks.check(
      vars(self) | {"images": self.images or 0},
      epsilons=above_0,
      norm=checks.one_of(*NORMS),
      images=checks.integer(0),
    )

  def check(self, batch: Batch) -> None:
    """Rejects an unusable folder for the adversarial images."""
    del batch
    if self.save_to and not self.epsilons:
      raise ValueError(
        "epsilons is empty, so there are no adversarial images to save: give "
        "epsilons (--config.evaluators.autoattack.epsilons=0.5,)"
      )
    if self.save_to:
      _check_folder(pathlib.Path(self.save_to))

  def results(
    self, model: Model, batch: Batch, key: jax.Array, cache: Cache
  ) -> Iterator[Row | Note]:
    """Yields a row per stage, and one for the worst case, at each epsilon.

    Args:
      model: the classifier, on the devices.
      batch: `images` uint8 [N,H,W,C] and `labels` int32 [N].
      key: source of all randomness, together with the position and the attack.
      cache: stores the results of a few batches of images at a time.

    Yields:
      Rows and notes, as in `contracts.Evaluator`.
    """
    if not self.epsilons:
      return
    if self.images and self.images < len(batch["labels"]):
      yield Note(f"AutoAttack: on the first {self.images} test images")
      batch = {name: part[: self.images] for name, part in batch.items()}
    # Same as `image.color.dequantize`, on the host.
    pixels = batch | {"images": batch["images"] / np.float32(255)}
    keep, saved = bool(self.save_to), {}
    warned = list(suite.network_warnings(model, pixels, self.batch_size))
    for epsilon in map(float, self.epsilons):
      ball = self.version, self.norm, epsilon
      execution = self.batch_size, keep, cache, self.precision
      attacks = suite.Suite(model, key, *ball, *execution)
      outcomes = list(attacks.run(pixels))
      for number, outcome in enumerate(outcomes[1:], start=1):
        yield outcome.row(attacks, number)
      settings = {"attack": suite.label(self.version), "norm": self.norm}
      settings |= {"epsilon": epsilon}
      yield rows.row("autoattack", settings, outcomes[-1].found())
      warned += attacks.warnings(outcomes)
      saved["clean"] = outcomes[0]
      saved[f"{self.version}_{self.norm}_{epsilon}"] = outcomes[-1]
    for text in warned:
      yield Note(f"AutoAttack may be unreliable: {text}", "warning")
    if self.save_to:
      made_with = {
        "version": self.version,
        "norm": self.norm,
        "epsilons": list(map(float, self.epsilons)),
        "data": pipeline.describe(**batch),
        "weights": fingerprint(model),
        "versions": provenance.versions(),
      }
      arrays = {name: outcome.images for name, outcome in saved.items()}
      arrays |= {"clean": pixels["images"], "labels": batch["labels"]}
      counts = {n: int(outcome.correct.sum()) for n, outcome in saved.items()}
      folder = pathlib.Path(self.save_to)
      _write(folder, made_with, arrays, counts)


@dataclasses.dataclass(frozen=True)
class Result:
  """The results of `autoattack`.

  Attributes:
    clean: bool [N], whether the clean image is classified correctly.
    finite: bool [N], whether the logits of `images` are finite; if not, the
      image counts as misclassified.
    robust: bool [N], whether the image is classified correctly under every
      attack.
    stages: bool [N] by attack, in order: still classified correctly after it.
    images: floats [N,H,W,C]: the adversarial image if one was found, else the
      clean one.
    warnings: reasons why the result may be too high.
  """

  clean: np.ndarray
  finite: np.ndarray
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
  precision: str | None = None,
) -> Result:
  """Evaluates any image classifier with AutoAttack, on all local devices.

  Under `jax.distributed`, every process must call it.

  Args:
    logits_fn: images [B,H,W,C] in [0,1] -> logits [B,K]; differentiable, and
      deterministic per image. A pytree with `__call__` (or
      `jax.tree_util.Partial`) is passed to the compiled programs as an
      argument; arrays that any other function closes over are compiled in, so
      each call compiles its programs again.
    images: floats [N,H,W,C] in [0,1].
    labels: integers [N].
    norm: "l2" or "linf".
    epsilon: radius of the ball, for pixels in [0,1].
    version: "standard", "fast", "plus", or some of `suite.ATTACKS` joined by
      "+".
    batch_size: images per batch, a multiple of the number of devices; does not
      change results.
    seed: seed of the attacks' random numbers.
    precision: precision of the attacks' search: "float32", "tensorfloat32"
      (GPUs only) or "bfloat16_3x" (TPUs only). None: TensorFloat32 on GPUs,
      else float32. Every adversarial image is confirmed in full float32.

  Returns:
    The results.

  Raises:
    ValueError: for invalid images, labels or options.
  """
  images, labels = np.asarray(images), np.asarray(labels)
  _check(images, labels)
  if norm == "linf" and epsilon >= 1:
    raise ValueError(
      f"epsilon is {epsilon}, but pixels are in [0,1]: give, for example, 8/255"
    )
  parallel.check_batch_size(batch_size, "batch_size")
  precision = precision_lib.resolve(precision, "precision")
  Evaluator(version, norm, (epsilon,), 0, batch_size)
  leaves = jax.tree.leaves(logits_fn)
  if len(leaves) == 1 and leaves[0] is logits_fn:  # a function, not a pytree
    # A new function, so that no program with earlier values of its closure, or
    # of a bound method's object, is reused.
    given = logits_fn
    logits_fn = jax.tree_util.Partial(lambda images: given(images))
  shape = (2, *images.shape[1:])
  found = jax.eval_shape(
    logits_fn, jax.ShapeDtypeStruct(shape, jnp.result_type(float))
  )
  if getattr(found, "ndim", 0) != 2 or len(found) != 2:
    raise ValueError(
      f"logits_fn maps images {list(shape)} to {found}: it must return logits "
      "[2, K]"
    )
  model = parallel.replicate(logits_fn)
  ball, key = (version, norm, epsilon), jax.random.key(seed)
  attacks = suite.Suite(
    model, key, *ball, batch_size, keep=True, precision=precision
  )
  # Use the type that JAX computes with, or the ball's center would be rounded.
  images = images.astype(jnp.result_type(float))
  batch = {"images": images, "labels": labels.astype(np.int32)}
  # Only the attacks' search may use a lower precision; see `precision.py`.
  with jax.default_matmul_precision("highest"):
    clean, *after = attacks.run(batch)
    warned = [*suite.network_warnings(model, batch, batch_size)]
  if images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
    warned.append(
      f"images are {list(images.shape)}, probably [N,C,H,W]: Square needs "
      "[N,H,W,C]"
    )
  return Result(
    clean.correct,
    after[-1].finite,
    after[-1].correct,
    {outcome.name: outcome.correct for outcome in after},
    after[-1].images,
    (*warned, *attacks.warnings([clean, *after])),
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


def _check_folder(folder: pathlib.Path) -> None:
  """Rejects a folder that is not empty or cannot be written to."""
  run_folder.check_writable(folder, "--save_adversarial")
  if folder.is_symlink() or folder.is_mount():
    raise ValueError(
      f"--save_adversarial={folder} is a link or a mount point: give a new "
      "folder inside it"
    )
  if folder.is_dir() and any(folder.iterdir()):
    raise ValueError(
      f"--save_adversarial={folder} is not empty: choose a new folder"
    )


def _write(
  folder: pathlib.Path,
  made_with: dict[str, Any],
  arrays: dict[str, np.ndarray],
  correct: dict[str, int],
) -> None:
  """Writes arrays and a manifest with their checksums, all or nothing.

  Args:
    folder: missing or empty.
    made_with: the attack, the data, the weights and versions.
    arrays: arrays by name, each written to NAME.npy.
    correct: for some of the arrays, how many images are classified correctly.
  """
  if not parallel.is_first_process():
    return
  part = folder.with_name(f"{folder.name}.part")
  shutil.rmtree(part, ignore_errors=True)  # left by an interrupted evaluation
  part.mkdir(parents=True)
  files = {}
  for name, array in arrays.items():
    path = part / f"{name}.npy"
    np.save(path, array)
    files[path.name] = {
      "sha256": manifest.digest(path).removeprefix("sha256:"),
      "dtype": str(array.dtype),
      "shape": list(array.shape),
    }
    if name in correct:
      files[path.name]["correct_count"] = correct[name]
  tree = {"schema": SCHEMA, "made_with": made_with, "files": files}
  run_folder.write_json(tree, part / manifest.NAME)
  if folder.exists():
    folder.rmdir()  # empty
  part.rename(folder)
  metrics.announce(f"adversarial images are in {folder}")
