"""Every sign of a failing attack is detected; a sound attack has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.attacks.pgd import Attack
from ram_jax.evaluation import adversarial, attack_checks
from tests import found

pytestmark = pytest.mark.usefixtures("quick_compilation")
SIZE = 40
EPSILONS = (0.0, 0.25, 1.0, 8.0)
# Two classes by the brightness of 4x4 images, whose mean is M = brightness.
# A perturbation of L2 norm e moves the mean by at most e / sqrt(48).
LEVELS = np.linspace(30, 225, SIZE).astype(np.uint8)
IMAGES = np.broadcast_to(LEVELS[:, None, None, None], (SIZE, 4, 4, 3)).copy()
LABELS = (LEVELS > 127).astype(np.int32)


def brightness(images):
  return jnp.mean(images, axis=(1, 2, 3)) - 0.5


def logits(score):
  return jnp.stack([-score, score], axis=-1)


@jax.tree_util.Partial
def sound(images):
  return logits(4 * brightness(images))


@jax.tree_util.Partial
def saturated(images):
  """Correct, but so confident that gradients vanish."""
  return logits(1e4 * brightness(images))


@jax.tree_util.Partial
def quantized(images):
  """Rounds pixels to 16 levels, which blocks gradients."""
  return logits(4 * brightness(jnp.round(15 * images) / 15))


@jax.tree_util.Partial
def deaf(images):
  """Reads the label from the first pixel, without a gradient."""
  hidden = jax.lax.stop_gradient(images[:, 0, 0, 0] - 0.5)
  return logits(1e3 * hidden + 0 * brightness(images))


def run(model, epsilons=EPSILONS, images=IMAGES, labels=LABELS, **attack):
  fields = {"steps": 2, "start": "none", "unroll": True} | attack
  evaluator = adversarial.Evaluator(
    Attack(1.0, 1.0, **fields), epsilons, 2.5 / 7, 400, SIZE
  )
  return found.collect(evaluator, model, images, labels)[0]


def warnings(run):
  """Texts of the warnings, without their common prefix."""
  texts = found.notes(run, "warning")
  assert all(text.startswith("the attack may fail (PGD-") for text in texts)
  return [text.partition("): ")[2] for text in texts]


def test_a_sound_attack_shows_no_sign():
  shown = run(sound)
  assert warnings(shown) == []
  counts = [row.correct_count for row in found.rows(shown, "adversarial")]
  assert counts[0] == SIZE > counts[1] > counts[2] > counts[3] == 0
  noise = found.rows(shown, "attack_check", check="noise", norm="l2")
  assert [row.settings["epsilon"] for row in noise] == [0.25, 1.0, 8.0]
  assert all(
    n.correct_count > c for n, c in zip(noise, counts[1:], strict=True)
  )
  # Half of 40: the middle epsilon is nearest.
  longer = found.row(shown, "attack_check", attack="PGD-4", epsilon=1.0)
  assert longer.values == {"correct_before": counts[2]}
  gradients = found.row(shown, "attack_check", check="gradients")
  assert gradients.values == {"zero_gradients": 0, "changed_logits": 0}
  assert gradients.correct_count == gradients.total == SIZE


@pytest.mark.parametrize("model", [saturated, quantized, deaf])
def test_masked_gradients_are_detected(model):
  shown = run(model)
  text = " | ".join(warnings(shown))
  row = found.row(shown, "attack_check", check="gradients")
  count = row.values["zero_gradients"]
  assert count > SIZE / 2
  assert f"gradient of {count} of 40 clean images" in text
  # The attack stays where it started.
  assert "random noise at epsilon 8 leaves" in text
  assert "accuracy at epsilon 8 is" in text and "near 0" in text


@jax.tree_util.Partial
def tent(images):
  """Misclassifies beyond a peak that one step crosses and two return to."""
  beyond = brightness(images)
  steep, gentle = 40 * beyond + 1, 1 - 4 * beyond
  score = jnp.where(beyond < 0, steep, gentle)
  return logits(score)


def test_longer_attack_that_is_weaker_is_detected():
  # The mean starts 0.05 below the peak. A step of 0.36 moves it by 0.05, just
  # beyond the peak, and the next step moves it back.
  images = np.full((SIZE, 4, 4, 3), 118, np.uint8)
  labels = np.zeros(SIZE, np.int32)
  shown = run(tent, (1.0,), images, labels, steps=1)
  assert found.row(shown, "adversarial").correct_count == 0
  longer = found.row(shown, "attack_check", check="longer")
  assert longer.values == {"correct_before": 0}
  assert longer.correct_count == SIZE
  [text] = [text for text in warnings(shown) if "weaker" in text]
  assert text == (
    "PGD-2 is weaker than PGD-1 at epsilon 1: accuracies are 100.0 % and 0.0 %"
  )


def test_random_network_is_detected(monkeypatch):
  draws = iter(np.random.default_rng(0).normal(size=(2, SIZE, 2)))

  def program(model, batch, batch_size):
    drawn = next(draws)
    drawn[:30] = 0.25  # the others differ
    return drawn, np.ones(SIZE)

  monkeypatch.setattr(attack_checks, "logits_and_gradients", program)
  batch = {"images": IMAGES, "labels": np.zeros(SIZE)}
  row, note = attack_checks.probe_model(ATTACK, None, batch, 8)
  assert row.values == {"zero_gradients": 0, "changed_logits": 10}
  assert "10 of 40 images change" in note.text


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_images_with_non_finite_logits_are_misclassified(bad, monkeypatch):
  shown = np.tile([1.0, 0.0], (SIZE, 1))
  shown[:3, 0] = bad  # the label's logit, which argmax selects
  norms = np.ones(SIZE)
  monkeypatch.setattr(
    attack_checks, "logits_and_gradients", lambda *_: (shown, norms)
  )
  batch = {"images": IMAGES, "labels": np.zeros(SIZE)}
  (row,) = attack_checks.probe_model(ATTACK, None, batch, 8)
  assert row.correct_count == SIZE - 3


def bits(count, size=SIZE):
  return np.arange(size) < count


ATTACK = Attack(1.0, 1.0, steps=2)


def sweep(clean, by_epsilon, norm):
  attack = Attack(1.0, 1.0, steps=2, norm=norm)
  notes = list(attack_checks.sweep_warnings(attack, clean, by_epsilon))
  assert {note.level for note in notes} <= {"warning"}
  prefix = "the attack may fail (PGD-2): "
  return [note.text.removeprefix(prefix) for note in notes]


def test_rising_accuracy_is_detected():
  falling = {0.0: bits(30), 0.5: bits(20), 1.0: bits(10), 8.0: bits(2)}
  assert sweep(bits(30), falling, "l2") == []
  [text] = sweep(bits(30), falling | {1.0: bits(32)}, "l2")
  assert (
    text == "accuracy rises from 50.0 % (epsilon 0.5) to 80.0 % (epsilon 1)"
  )
  # Above clean accuracy, where each step from epsilon to epsilon is small.
  creeping = {e: bits(10 + 5 * i) for i, e in enumerate((0.5, 1.0, 2.0, 3.0))}
  [text] = sweep(bits(10), creeping, "l2")
  assert "(clean)" in text and "(epsilon 3)" in text


def test_tolerance_covers_only_chance():
  # 9 gained and none lost are three standard deviations of nine coin flips.
  assert sweep(bits(0), {1.0: bits(9)}, "l2") == []
  assert len(sweep(bits(0), {1.0: bits(10)}, "l2")) == 1
  assert attack_checks.rises(bits(12), bits(22)) is True
  assert attack_checks.rises(bits(22), bits(12)) is False
  [text] = sweep(bits(10), {0.0: bits(9)}, "l2")
  assert text == (
    "1 images are classified correctly without an attack but not at epsilon 0, "
    "or vice versa"
  )


@pytest.mark.parametrize(
  ("norm", "epsilon", "count", "seen"),
  [
    ("l2", 8.0, 3, True),
    ("l2", 8.0, 2, False),  # 5 %
    ("l2", 4.0, 40, False),
    ("linf", 0.5, 3, True),
    ("linf", 8 / 255, 40, False),
  ],
)
def test_accuracy_at_a_large_epsilon(norm, epsilon, count, seen):
  assert len(sweep(bits(40), {epsilon: bits(count)}, norm)) == seen


def test_fewer_images_and_none():
  attack = Attack(1.0, 1.0, steps=2, start="none", unroll=True)
  results = {}
  for count in (0, 10):
    built = adversarial.Evaluator(attack, (1.0,), 2.5 / 7, count, 8)
    results[count], _ = found.collect(built, sound, IMAGES, LABELS)
  assert len(results[0].rows) == 1
  assert {row.total for row in results[10].rows[1:]} == {10}
  before = results[10].rows[0].correct[:10].sum()
  longer = found.row(results[10], "attack_check", check="longer")
  assert longer.values["correct_before"] == before
