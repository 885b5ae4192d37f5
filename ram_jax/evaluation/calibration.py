"""Calibration of confidences over a whole test set."""

import math
from collections.abc import Mapping

import numpy as np

BIN_SIZE = 100  # images in an adaptive bin, as in PixMix's code
NAMES = ("rms", "ece", "nll", "brier")  # as in results.json
EQUAL_BINS = 15  # Guo et al., "On Calibration of Modern Neural Networks", 2017


def summary(predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
  """The four calibration metrics of results.json.

  Args:
    predictions: from `clean.per_example`, [N] each: `correct` (bool),
      `confidence` in [0,1], `nll` in nats, `brier` in [0,2].

  Returns:
    `rms` and `ece` in [0,1], `nll` and `brier` (means over the images), without
    values that are not finite, which JSON does not support.
  """
  pair = predictions["confidence"], predictions["correct"]
  found = {
    "rms": rms_error(*pair),
    "ece": expected_error(*pair),
    "nll": float(np.mean(predictions["nll"], dtype=np.float64)),
    "brier": float(np.mean(predictions["brier"], dtype=np.float64)),
  }
  return {name: x for name, x in found.items() if math.isfinite(x)}


def rms_error(confidence: np.ndarray, correct: np.ndarray) -> float:
  """Root mean square calibration error with adaptive bins.

  The metric in the AugMix and PixMix papers: images are sorted by confidence
  and divided into bins of 100, the last of which also contains the remainder;
  the error is sqrt(sum n_b/N (mean confidence - accuracy)^2). The sum is over
  all bins; PixMix's code (`calib_err` in its calibration_tools.py) omits the
  last one, which contains the most confident images (1 bin in 100 for 10,000
  test images).

  Args:
    confidence: largest probability, in [0,1], [N].
    correct: whether the predicted class is the label, bool [N].

  Returns:
    The error, in [0,1].
  """
  order = np.argsort(confidence, kind="stable")
  bins = np.arange(len(order)) // BIN_SIZE
  last = max(len(order) // BIN_SIZE - 1, 0)
  gaps, weights = _gaps(
    np.minimum(bins, last), confidence[order], correct[order]
  )
  return float(np.sqrt(np.sum(weights * gaps**2)))


def expected_error(confidence: np.ndarray, correct: np.ndarray) -> float:
  """Expected calibration error with 15 bins of equal width.

  sum n_b/N |mean confidence - accuracy| (Guo et al. 2017, equation 3). A bin
  includes its upper edge, but not its lower edge.

  Args:
    confidence: largest probability, in [0,1], [N].
    correct: whether the predicted class is the label, bool [N].

  Returns:
    The error, in [0,1].
  """
  edges = np.linspace(0, 1, EQUAL_BINS + 1)[1:-1]
  bins = np.digitize(confidence, edges, right=True)
  gaps, weights = _gaps(bins, confidence, correct)
  return float(np.sum(weights * np.abs(gaps)))


def _gaps(
  bins: np.ndarray, confidence: np.ndarray, correct: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Mean confidence minus accuracy, and fraction of images, of each bin."""
  sums = np.bincount(bins, confidence.astype(np.float64) - correct)
  counts = np.bincount(bins)
  return sums / np.maximum(counts, 1), counts / len(bins)
