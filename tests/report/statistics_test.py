"""Intervals and tests against SciPy, published numbers, and by hand."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from ram_jax.report import statistics

# Heights of Zea Mays, crossed minus self-fertilized, in eighths of an inch:
# Darwin's pairs in Fisher, The Design of Experiments, 1935, section 17.
DARWIN = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)


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
      found = statistics.wilson(correct, total)
      want = stats.binomtest(correct, total).proportion_ci(method="wilson")
      assert found == pytest.approx((want.low, want.high), abs=1e-12)
      assert 0 <= found[0] <= correct / total <= found[1] <= 1


def test_student_equals_hand_derived_values():
  # Mean 0.6, s^2 = 2 * 0.01 / 2; t(2) = 4.302652729911275 (tables), so half is
  # 4.302652729911275 * 0.1 / sqrt(3) = 0.2484137713...
  found = statistics.over_seeds([0.5, 0.6, 0.7])
  want = (0.6, 0.6 - 0.24841377, 0.6 + 0.24841377, 3)
  assert (found.value, found.low, found.high, found.seeds) == pytest.approx(
    want, abs=1e-8
  )


def test_student_equals_scipy_and_stays_in_range():
  values = [0.31, 0.29, 0.35, 0.33]
  want = stats.ttest_1samp(values, 0).confidence_interval(0.95)
  found = statistics.over_seeds(values)
  assert (found.low, found.high) == pytest.approx(tuple(want), abs=1e-12)
  wide = statistics.over_seeds([0.0, 1.0], most=1.0)
  assert (wide.value, wide.low, wide.high) == (0.5, 0.0, 1.0)
  assert statistics.over_seeds([0.5]) == statistics.Estimate(0.5)
  assert statistics.over_seeds([]) is None


# Table II of Newcombe 1998, method 10, in its four decimals.
@pytest.mark.parametrize(
  "first, second, low, high",
  [
    ((56, 70), (48, 80), 0.0524, 0.3339),
    ((9, 10), (3, 10), 0.1705, 0.8090),
    ((6, 7), (2, 7), 0.0582, 0.8062),
    ((5, 56), (0, 29), -0.0381, 0.1926),
    ((0, 10), (0, 20), -0.1611, 0.2775),
    ((0, 10), (0, 10), -0.2775, 0.2775),
    ((10, 10), (0, 20), 0.6791, 1.0),
    ((10, 10), (0, 10), 0.6075, 1.0),
    # statsmodels 0.14, confint_proportions_2indep(method="newcomb").
    ((897, 2000), (8162, 10000), -0.39062792344, -0.34450569149),
  ],
)
def test_newcombe_equals_published_intervals(first, second, low, high):
  (a, m), (b, n) = first, second
  digits = 5e-5 if m < 100 else 1e-11
  found = statistics.newcombe(a / m, m, b / n, n)
  assert found == pytest.approx((low, high), abs=digits)
  mirrored = statistics.newcombe(b / n, n, a / m, m)
  assert mirrored == pytest.approx((-found[1], -found[0]), abs=1e-15)


def pairs(both, first, second, neither):
  """Two bool arrays with the given cells of a 2x2 table."""
  cells = (both, first, second, neither)
  return (
    {"a": np.repeat([True, True, False, False], cells)},
    {"a": np.repeat([True, False, True, False], cells)},
  )


@pytest.mark.parametrize(
  "discordant", [(3, 1), (0, 5), (10, 2), (25, 40), (7, 7), (500, 590)]
)
def test_one_row_is_mcnemars_exact_test(discordant):
  found = statistics.paired(*pairs(900, *discordant, 33), {"a": 1})
  expected = stats.binomtest(discordant[0], sum(discordant)).pvalue
  assert found.p == pytest.approx(expected, abs=1e-12)


def test_p_by_hand():
  # 10 against 2: (C(12,0) + C(12,1) + C(12,2)) / 2^12 on either side.
  assert statistics.paired(*pairs(4, 10, 2, 5), {"a": 1}).p == pytest.approx(
    2 * (1 + 12 + 66) / 4096, abs=1e-14
  )
  assert statistics.paired(*pairs(4, 0, 0, 5), {"a": 1}).p == 1
  assert (
    statistics.paired(*pairs(0, 99, 0, 0), {"a": 1}).p == statistics.P_FLOOR
  )


def test_sign_flips_reproduce_fishers_example():
  # Section 21: of 2^15 patterns 863 have a sum of 314 or more.
  assert sum(DARWIN) == 314
  found = statistics.sign_flip_p(np.array(DARWIN))
  assert found == pytest.approx(2 * 863 / 2**15, abs=1e-14)


def test_several_rows_equal_all_patterns_of_signs():
  rng = np.random.default_rng(0)
  first, second = (
    {name: rng.random(12) < p for name in "abc"} for p in (0.7, 0.4)
  )
  weights = {"a": 3, "b": 3, "c": -2}
  sums = sum(
    w * (first[name].astype(int) - second[name]) for name, w in weights.items()
  )
  flipped = np.array(list(itertools.product((1, -1), repeat=12))) @ sums
  found = statistics.paired(first, second, weights)
  expected = np.mean(np.abs(flipped) >= abs(sums.sum()))
  assert 0.01 < expected < 0.9
  assert found.p == pytest.approx(expected, abs=1e-13)
  assert found.value == pytest.approx(sums.mean() / 6)


def test_many_images_and_rows_approach_the_normal():
  rng = np.random.default_rng(1)
  sums = rng.integers(-40, 42, 10_000)
  z = sums.sum() / math.sqrt((sums**2).sum())
  expected = 2 * stats.norm.sf(abs(z))
  assert statistics.sign_flip_p(sums) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
  ("cells", "expected"),
  [
    # b and c of n, m = n + 2: (b - c) / m and
    # sqrt(b + c + 1 - (b - c)^2 / m) / m.
    ((60, 40, 20, 40), (20 / 162, math.sqrt(61 - 400 / 162) / 162)),
    ((50, 0, 0, 50), (0, 1 / 102)),
  ],
)
def test_interval_of_one_row_is_agresti_and_mins(cells, expected):
  found = statistics.paired(*pairs(*cells), {"a": 1})
  center, deviation = expected
  half = stats.norm.ppf(0.975) * deviation
  assert (found.low, found.high) == pytest.approx(
    (center - half, center + half)
  )
  assert found.value == (cells[1] - cells[2]) / sum(cells)


def test_images_are_the_samples():
  """A repeated row adds no information; independent rows do."""
  first, second = pairs(60, 40, 20, 40)
  once = statistics.paired(first, second, {"a": 1})
  copies = [{name: side["a"] for name in "abcde"} for side in (first, second)]
  again = statistics.paired(*copies, dict.fromkeys("abcde", 1))
  assert dataclasses.asdict(again) == pytest.approx(dataclasses.asdict(once))


def test_interval_covers_and_equals_that_of_a_bootstrap():
  rng = np.random.default_rng(2)
  hard = rng.random((1, 500))
  first, second = (
    {str(s): row for s, row in enumerate(rng.random((5, 500)) * hard < p)}
    for p in (0.4, 0.35)
  )
  found = statistics.paired(first, second, dict.fromkeys(first, 1))
  sums = sum(first[s].astype(float) - second[s] for s in first) / 5
  means = rng.choice(sums, (4000, 500)).mean(1)
  expected = np.quantile(means, (0.025, 0.975))
  # The quantiles of 4000 draws are accurate to 3 % of the width.
  assert (found.low, found.high) == pytest.approx(expected, abs=3e-3)


def test_numbers_of_images_must_agree():
  first, _ = pairs(1, 1, 1, 1)
  with pytest.raises(ValueError, match="rows of 4, 8 images cannot be paired"):
    statistics.paired(first, pairs(2, 2, 2, 2)[0], {"a": 1})


def test_holm_by_hand():
  # Sorted .01 .02 .03 .5, times 4 3 2 1, then made nondecreasing.
  found = statistics.holm([0.03, 0.01, 0.5, 0.02])
  assert found == pytest.approx([0.06, 0.04, 0.5, 0.06])
  assert statistics.holm([0.8, 0.9]) == [1, 1] and statistics.holm([]) == []
  # The correction is for two tests.
  assert statistics.holm([0.03, None, 0.01]) == [0.03, None, 0.02]


@pytest.mark.parametrize(
  ("values", "want"),
  [
    ([0.03, 0.2], []),  # 0.06 after the correction
    ([0.04, None, 0.01], [0, 2]),
    ([None], []),
  ],
)
def test_significant_differences_after_correction(values, want):
  found = [None, *(statistics.Estimate(0.1, p=p) for p in values)]
  assert statistics.significant(found) == [1 + i for i in want]


def test_difference_over_shared_seeds_equals_scipys_paired_test():
  first, second = {0: 0.5, 1: 0.62, 2: 0.7, 5: 0.1}, {2: 0.66, 1: 0.6, 0: 0.49}
  found = statistics.seed_difference(first, second)
  seeds = (0, 1, 2)
  want = stats.ttest_rel([first[s] for s in seeds], [second[s] for s in seeds])
  ends = want.confidence_interval(0.95)
  assert found.value == pytest.approx(0.07 / 3)
  assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
  assert found.p == pytest.approx(want.pvalue) and found.seeds == 3


def test_difference_over_other_seeds_equals_scipys_welch_test():
  first, second = {0: 0.5, 1: 0.62, 2: 0.7}, {3: 0.4, 4: 0.45, 2: 0.41, 6: 0.5}
  found = statistics.seed_difference(first, second)
  samples = list(first.values()), list(second.values())
  want = stats.ttest_ind(*samples, equal_var=False)
  ends = want.confidence_interval(0.95)
  assert found.value == pytest.approx(np.subtract(*map(np.mean, samples)))
  assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
  assert found.p == pytest.approx(want.pvalue) and found.seeds == 3


def test_difference_without_enough_seeds_has_no_interval():
  found = statistics.seed_difference({0: 0.5}, {0: 0.3, 1: 0.4})
  assert (found.value, found.low, found.p) == (pytest.approx(0.15), None, None)
  equal = statistics.seed_difference({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5})
  assert (equal.low, equal.high, equal.p) == (None, None, 1.0)
