"""Calibration against numbers derived by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.evaluation import calibration, clean


def test_adaptive_bins_by_hand():
  # 250 images, out of order. The first bin contains the 100 images at 0.3 (50
  # correct), the second the 100 at 0.5 (20 correct) and the remaining 50 at 0.9
  # (45 correct). Gaps: 0.3 - 0.5; (50 + 45 - 20 - 45) / 150 = 0.2.
  confidence = np.repeat([0.9, 0.3, 0.5], [50, 100, 100])
  correct = np.concatenate(
    [np.arange(50) < 45, np.arange(100) < 50, np.arange(100) < 20]
  )
  assert calibration.rms_error(confidence, correct) == pytest.approx(
    np.sqrt(0.4 * 0.2**2 + 0.6 * 0.2**2), abs=1e-12
  )
  # Below 200 images there is one bin: |mean confidence - accuracy|.
  assert calibration.rms_error(
    confidence[:150], correct[:150]
  ) == pytest.approx(abs(75 - 95) / 150, abs=1e-12)


def test_equal_bins_by_hand():
  # 0.1 and 0.2 are in bins 2 and 3 of 15, 0.95 and 1.0 in the last.
  confidence = np.array([0.1, 0.2, 0.95, 1.0], np.float32)
  correct = np.array([False, True, True, False])
  wanted = (0.1 + 0.8 + abs(1.95 - 1)) / 4
  error = calibration.expected_error(confidence, correct)
  assert error == pytest.approx(wanted, abs=1e-7)
  # A bin includes its upper edge: 1/15 and 0.01 share a bin, where their gaps
  # partly cancel.
  confidence = np.array([1 / 15, 0.01])
  error = calibration.expected_error(confidence, np.array([True, False]))
  assert error == pytest.approx((1 - 1 / 15 - 0.01) / 2, abs=1e-12)


@pytest.mark.parametrize("right", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 99, 100, 1000])
def test_confident_and_always_right_or_wrong(size, right):
  ones = np.ones(size)
  for error in (calibration.rms_error, calibration.expected_error):
    assert error(ones, ones == right) == 1 - right


def test_per_example_metrics_by_hand(batch_size=4):
  # Probabilities 0.7, 0.2, 0.1, whose logarithms are the logits.
  probabilities = np.array([0.7, 0.2, 0.1])

  @jax.tree_util.Partial
  def model(images):
    return jnp.tile(jnp.log(probabilities), (len(images), 1))

  images = np.zeros((3, 2, 2, 3), np.uint8)
  batch = {"images": images, "labels": np.arange(3, dtype=np.int32)}
  found = clean.per_example(model, batch, batch_size)
  assert found["correct"].tolist() == [True, False, False]
  wanted = {
    "confidence": [0.7] * 3,
    "nll": -np.log(probabilities),
    # 1 - 2 p_y + sum p^2, and sum p^2 = 0.54
    "brier": [0.14, 1.14, 1.34],
  }
  for name, values in wanted.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
  summary = calibration.summary(found)
  assert summary["nll"] == pytest.approx(-np.log(0.014) / 3, rel=1e-6)
  assert summary["brier"] == pytest.approx(2.62 / 3, rel=1e-6)
  for name in ("rms", "ece"):  # one bin: 0.7 - 1/3
    assert summary[name] == pytest.approx(11 / 30, rel=1e-6)
