"""Signs that an attack fails, which makes the accuracy under it meaningless.

Follows Athalye, Carlini and Wagner, "Obfuscated Gradients Give a False Sense of
Security", ICML 2018, section 3.1, and AutoAttack's `autoattack/checks.py`.

Whether PGD succeeds on an image is partly random, because it starts at a random
point and ends in a local optimum. An increase in accuracy that should not occur
is therefore only reported if the number of images gained exceeds the number
lost by more than three standard deviations of the difference between heads and
tails in n fair coin flips, where n is the number of images that differ. Checks
without randomness have no tolerance.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ram_jax import losses, parallel
from ram_jax.attacks.norms import l2_norm
from ram_jax.attacks.pgd import Attack
from ram_jax.contracts import Batch, Model, Note, Row
from ram_jax.evaluation import rows

DEVIATIONS = 3
# By norm, the epsilon at and above which accuracies should be near 0. In L2, it
# is the paper's largest; in Linf, it can turn all images into the same gray.
LARGE = {"l2": 8.0, "linf": 0.5}
NEAR_ZERO = 0.05  # maximum accuracy at these epsilons
TINY = 1e-12  # L2 norm below which a gradient counts as zero
Correct = np.ndarray  # bool [N]


def sweep_warnings(
  attack: Attack, clean: Correct, by_epsilon: Mapping[float, Correct]
) -> Iterator[Note]:
  """Checks that accuracies decrease with epsilon, from clean accuracy to 0.

  Args:
    attack: the attack.
    clean: which of the images are classified correctly without an attack.
    by_epsilon: which of them are classified correctly under attack.

  Yields:
    A warning for each sign that the attack fails.
  """
  found = {"clean": clean}
  found |= {f"epsilon {e:.4g}": row for e, row in sorted(by_epsilon.items())}
  # All pairs, because small increases can add up; the largest is reported.
  pairs = itertools.combinations(found.items(), 2)
  risen = [pair for pair in pairs if rises(pair[0][1], pair[1][1])]
  if risen:
    (weak, before), (strong, after) = max(
      risen, key=lambda pair: pair[1][1].sum() - pair[0][1].sum()
    )
    yield _warning(
      attack,
      f"accuracy rises from {_percent(before)} ({weak}) to {_percent(after)} "
      f"({strong})",
    )
  unmoved = by_epsilon.get(0.0, clean)
  if different := int(np.sum(unmoved != clean)):
    yield _warning(
      attack,
      f"{different} images are classified correctly without an attack but not "
      "at epsilon 0, or vice versa",
    )
  largest = max(by_epsilon)
  large = LARGE.get(attack.norm, np.inf)
  if largest >= large and np.mean(by_epsilon[largest]) > NEAR_ZERO:
    yield _warning(
      attack,
      f"accuracy at epsilon {largest:.4g} is "
      f"{_percent(by_epsilon[largest])}, but should be near 0",
    )


def probe(
  attack: Attack,
  by_epsilon: Mapping[float, Correct],
  clean: Correct,
  attacked: Callable[[Attack, float], dict[str, np.ndarray]],
) -> Iterator[Row | Note]:
  """Compares the attack with noise and with a longer attack on some images.

  Args:
    attack: the attack.
    by_epsilon: which of the images are classified correctly under attack.
    clean: which of them are classified correctly without an attack.
    attacked: (attack, epsilon) -> `correct` and `finite` (logits) of these
      images, bool [n].

  Yields:
    Rows of `attack_check`, and a warning for each sign that the attack fails.
  """
  # Noise on the ball's surface, which is farthest from the image.
  noise = attack.replace(steps=0, restarts=1, start="sphere")
  moved = [epsilon for epsilon in sorted(by_epsilon) if epsilon > 0]
  for epsilon in moved:
    found = attacked(noise, epsilon)
    settings = {"check": "noise", "norm": attack.norm, "epsilon": epsilon}
    yield rows.row("attack_check", settings, found, stored=False)
    random, after = found["correct"], by_epsilon[epsilon]
    none_gained = epsilon == moved[-1] and random.sum() <= after.sum() > 0
    if rises(random, after) or none_gained:
      yield _warning(
        attack,
        f"random noise at epsilon {epsilon:.4g} leaves {_percent(random)} of "
        f"the images correct, but {attack.label} leaves {_percent(after)}",
      )
  if not moved:
    return
  # More steps make the most difference where about half of the clean accuracy
  # is left.
  half = clean.sum() / 2
  epsilon = min(moved, key=lambda e: abs(by_epsilon[e].sum() - half))
  longer, once = attack.replace(steps=2 * attack.steps), by_epsilon[epsilon]
  found = attacked(longer, epsilon)
  found["values"] = {"correct_before": int(once.sum())}
  settings = {"check": "longer", "attack": longer.label, "norm": attack.norm}
  settings |= {"epsilon": epsilon}
  yield rows.row("attack_check", settings, found, stored=False)
  if rises(once, found["correct"]):
    yield _warning(
      attack,
      f"{longer.label} is weaker than {attack.label} at epsilon "
      f"{epsilon:.4g}: accuracies are {_percent(found['correct'])} and "
      f"{_percent(once)}",
    )


def probe_model(
  attack: Attack,
  model: Model,
  batch: Batch,
  batch_size: int,
) -> Iterator[Row | Note]:
  """Checks that clean images have usable gradients and reproducible logits.

  Args:
    attack: the attack.
    model: the classifier, on the devices.
    batch: `images` uint8 [n,H,W,C] and `labels` int32 [n].
    batch_size: examples per batch, over all devices.

  Yields:
    See `probe`.
  """
  # Same as `image.color.dequantize`, on the host.
  floats = batch | {"images": batch["images"] / np.float32(255)}
  (logits, norms), (again, _) = (
    logits_and_gradients(model, floats, batch_size) for _ in range(2)
  )
  flat = int(np.sum(~(norms >= TINY)))  # NaN counts as zero, too
  same = (logits == again) | (np.isnan(logits) & np.isnan(again))
  changed = int(np.sum(~np.all(same, axis=-1)))
  finite = np.isfinite(logits).all(axis=-1)
  correct = finite & (np.argmax(logits, axis=-1) == batch["labels"])
  values = {"zero_gradients": flat, "changed_logits": changed}
  found = {"correct": correct, "values": values}
  yield rows.row("attack_check", {"check": "gradients"}, found, stored=False)
  if flat:
    yield _warning(
      attack,
      f"the gradient of {flat} of {len(norms)} clean images is zero (L2 norm "
      f"below {TINY:g}) or not finite, so gradients cannot guide the attack",
    )
  if changed:
    yield _warning(
      attack,
      f"the logits of {changed} of {len(norms)} images change in a second "
      "forward pass: the network is not deterministic",
    )


def rises(before: Correct, after: Correct) -> bool:
  """Whether significantly more images are classified correctly than before.

  Args:
    before: which images are classified correctly under the weaker attack.
    after: which images are classified correctly under the stronger attack.
  """
  gained, lost = np.sum(after & ~before), np.sum(before & ~after)
  return bool(gained - lost > DEVIATIONS * np.sqrt(gained + lost))


def _warning(attack: Attack, text: str) -> Note:
  return Note(f"the attack may fail ({attack.label}): {text}", "warning")


def _percent(correct: Correct) -> str:
  return f"{100 * np.mean(correct):.1f} %"


@parallel.per_example
def logits_and_gradients(
  model: Model, positions: jax.Array, batch: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """Computes logits, and the norms of the cross-entropy's gradients.

  Args:
    model: the classifier.
    positions: unused.
    batch: `images` floats [b,H,W,C] and `labels` int32 [b].

  Returns:
    Logits [b,K], and the L2 norms [b] of the gradients with respect to the
    pixels. The norm is NaN if an entry is not finite. If all are finite, it may
    be infinite, which is not a problem: the attack rescales gradients first.
  """
  del positions

  def loss(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = model(images)
    return jnp.sum(losses.cross_entropy(logits, batch["labels"])), logits

  gradient, logits = jax.grad(loss, has_aux=True)(batch["images"])
  usable = jnp.isfinite(gradient).all(axis=(1, 2, 3))
  return logits, jnp.where(usable, l2_norm(gradient).ravel(), jnp.nan)
