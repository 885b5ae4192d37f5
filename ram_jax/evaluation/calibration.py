"""How far confidences are from accuracies, over a whole test set."""

import math
from collections.abc import Mapping

import numpy as np

BIN_SIZE = 100  # images in an adaptive bin, as in PixMix's code
NAMES = ("rms", "ece", "nll", "brier")  # of results.json
EQUAL_BINS = 15  # Guo et al., "On Calibration of Modern Neural Networks", 2017


def summary(measured: Mapping[str, np.ndarray]) -> dict[str, float]:
  """The four numbers of results.json's `calibration`.

  Args:
    measured: [N] each: `correct` (bool), `confidence` in [0,1], `nll` in nats,
      `brier` in [0,2], as from `clean.per_example`.

  Returns:
    `rms` and `ece` in [0,1], `nll` and `brier` (means over the images);
    without what is not finite, as JSON has no such number.
  """
  pair = measured["confidence"], measured["correct"]
  found = {
    "rms": rms_error(*pair),
    "ece": expected_error(*pair),
    "nll": float(np.mean(measured["nll"], dtype=np.float64)),
    "brier": float(np.mean(measured["brier"], dtype=np.float64)),
  }
  return {name: x for name, x in found.items() if math.isfinite(x)}


def rms_error(confidence: np.ndarray, correct: np.ndarray) -> float:
  """Root mean square calibration error with adaptive bins.

  The measure of AugMix's and PixMix's papers: images sorted by confidence, in
  bins of 100 of which the last takes the rest, sqrt(sum n_b/N (mean confidence
  - accuracy)^2). Over all bins: PixMix's code (`calib_err` in its
  calibration_tools.py) leaves out the last, that of the most confident images,
  one bin of a hundred for a test set of 10,000.

  Args:
    confidence: largest probability, in [0,1], [N].
    correct: whether that class is the label's, bool [N].

  Returns:
    The error, in [0,1].
  """
  order = np.argsort(confidence, kind="stable")
  bins = np.arange(len(order)) // BIN_SIZE
  last = max(len(order) // BIN_SIZE - 1, 0)
  gaps, shares = _gaps(
    np.minimum(bins, last), confidence[order], correct[order]
  )
  return float(np.sqrt(np.sum(shares * gaps**2)))


def expected_error(confidence: np.ndarray, correct: np.ndarray) -> float:
  """Expected calibration error with 15 bins of equal width.

  sum n_b/N |mean confidence - accuracy| (Guo et al. 2017, equation 3); a bin
  holds its upper edge and not its lower one.

  Args:
    confidence: largest probability, in [0,1], [N].
    correct: whether that class is the label's, bool [N].

  Returns:
    The error, in [0,1].
  """
  edges = np.linspace(0, 1, EQUAL_BINS + 1)[1:-1]
  bins = np.digitize(confidence, edges, right=True)
  gaps, shares = _gaps(bins, confidence, correct)
  return float(np.sum(shares * np.abs(gaps)))


def _gaps(
  bins: np.ndarray, confidence: np.ndarray, correct: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Mean confidence minus accuracy of each bin, and its share of the images."""
  sums = np.bincount(bins, confidence.astype(np.float64) - correct)
  counts = np.bincount(bins)
  return sums / np.maximum(counts, 1), counts / len(bins)
