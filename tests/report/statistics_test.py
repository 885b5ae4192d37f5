"""Intervals against scipy and numbers derived by hand."""

import pytest
from scipy import stats

from ram_jax.report import statistics


@pytest.mark.parametrize(
  "correct, total, low, high",
  [
    # p = 0: both halves are z^2 / 2n, so high = z^2 / (n + z^2) with
    # z^2 = 3.841458820694124: 3.841458820694124 / 13.841458820694124.
    (0, 10, 0.0, 0.27753279986288924),
    (10, 10, 0.7224672001371108, 1.0),
    # p = 1/2: 1/2 -+ z / (2 sqrt(n + z^2)) = 1/2 -+ 1.959963984540054 /
    # (2 * 10.190262946...).
    (50, 100, 0.40383153, 0.59616847),
  ],
)
def test_wilson_equals_hand_derived_values(correct, total, low, high):
  assert statistics.wilson(correct, total) == pytest.approx(
    (low, high), abs=1e-8
  )


def test_wilson_equals_scipy_and_stays_in_range():
  for total in (1, 7, 400, 10000):
    for correct in {0, 1, total // 3, total - 1, total}:
      ours = statistics.wilson(correct, total)
      theirs = stats.binomtest(correct, total).proportion_ci(method="wilson")
      assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
      assert 0 <= ours[0] <= correct / total <= ours[1] <= 1


@pytest.mark.parametrize("correct, total", [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(correct, total):
  with pytest.raises(ValueError, match=f"{correct} of {total}"):
    statistics.wilson(correct, total)


def test_student_equals_hand_derived_values():
  # Mean 0.6, s^2 = 2 * 0.01 / 2; t(2) = 4.302652729911275 (tables), so half is
  # 4.302652729911275 * 0.1 / sqrt(3) = 0.2484137713...
  found = statistics.student([0.5, 0.6, 0.7])
  want = (0.6, 0.6 - 0.24841377, 0.6 + 0.24841377, 3)
  assert (found.value, found.low, found.high, found.seeds) == pytest.approx(
    want, abs=1e-8
  )


def test_student_equals_scipy_and_stays_in_range():
  values = [0.31, 0.29, 0.35, 0.33]
  want = stats.ttest_1samp(values, 0).confidence_interval(0.95)
  found = statistics.student(values)
  assert (found.low, found.high) == pytest.approx(tuple(want), abs=1e-12)
  wide = statistics.student([0.0, 1.0], most=1.0)
  assert (wide.value, wide.low, wide.high) == (0.5, 0.0, 1.0)
  with pytest.raises(ValueError, match="1 seeds have no spread"):
    statistics.student([0.5])
