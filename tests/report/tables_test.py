"""Intervals, the summary's figures and footnotes, required values."""

import pytest
from scipy import stats

from ram_jax.report import tables


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
  assert tables.wilson(correct, total) == pytest.approx((low, high), abs=1e-8)


def test_wilson_equals_scipy_and_stays_in_range():
  for total in (1, 7, 400, 10000):
    for correct in {0, 1, total // 3, total - 1, total}:
      ours = tables.wilson(correct, total)
      theirs = stats.binomtest(correct, total).proportion_ci(method="wilson")
      assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
      assert 0 <= ours[0] <= correct / total <= ours[1] <= 1


@pytest.mark.parametrize("correct, total", [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(correct, total):
  with pytest.raises(ValueError, match=f"{correct} of {total}"):
    tables.wilson(correct, total)


def test_summary_shows_every_measure(make_run, corruption):
  runs = [
    make_run("Standard", rows=((0.0, 50), (0.25, 10), (1.0, 0))),
    make_run("AugMix", rows=((0.0, 100), (1.0, 50)), corruption=corruption),
    make_run("Imported", adversarial=None, notes=None),
  ]
  table = tables.summary(runs)
  assert table.header == (
    *("run", "model", "data", "clean", "L2 eps 0.25", "L2 eps 1"),
    "corruption mean",
  )
  # Wilson intervals of 50, 10, 0, 100 and 95 in 100, from scipy.
  setting = ("wrn_10_1", "CIFAR-10")
  half, tenth, none = "50.0 (40.4-59.6)", "10.0 (5.5-17.4)", "0.0 (0.0-3.7)"
  assert table.rows == (
    ("Standard", *setting, half, tenth, none, "-"),
    ("AugMix", *setting, "100.0 (96.3-100.0)", "-", half, "62.5"),
    ("Imported", *setting, "95.0 (88.8-97.8)", "-", "-", "-"),
  )


def test_footnotes_say_how_and_for_whom(make_run, corruption):
  notes = ["PGD-10, not AutoAttack", "operations overlap the corruptions"]
  runs = [
    make_run("Standard"),
    make_run("AugMix", notes=notes, corruption=corruption),
  ]
  first, *rest = tables.summary(runs).footnotes
  assert "95 % Wilson" in first
  assert rest == [
    "clean: 100 test images",
    "eps: L2 norm of the perturbation of pixels in [0, 1], found by PGD-10 "
    "(step size 0.4 epsilon) on 100 test images",
    "PGD-10, not AutoAttack",
    "(AugMix) corruption mean: CIFAR-10-C, 2 corruptions, severities 1, 2; no "
    "interval, as the same images recur in each",
    "(AugMix) operations overlap the corruptions",
  ]


def test_epsilon_zero_is_shown_only_where_it_is_not_clean(make_run):
  subset = make_run("Subset", clean={"correct": 900, "total": 1000})
  assert "L2 eps 0" in tables.summary([subset]).header
  assert "L2 eps 0" not in tables.summary([make_run("Whole")]).header


def test_norms_have_columns_of_their_own(make_run):
  attack = {"name": "PGD-10", "norm": "linf"}
  row = {"epsilon": 1.0, "correct": 1, "total": 10}
  other = {"attack": attack, "by_epsilon": [row]}
  table = tables.summary([make_run("A"), make_run("B", adversarial=other)])
  assert table.header[4:] == ("L2 eps 1", "Linf eps 1")
  assert [row[4][:4] for row in table.rows] == ["40.0", "-"]
  assert [row[5][:4] for row in table.rows] == ["-", "10.0"]


def test_summary_of_nothing_is_refused():
  with pytest.raises(ValueError, match="name at least one"):
    tables.summary([])


def test_floors_put_measured_beside_required(make_run, corruption):
  rows = ((0.0, 92), (8 / 255, 75), (8.0, 3))
  results = make_run("A", rows=rows, corruption=corruption).results
  checks = tables.floors(
    results,
    [
      ("clean", None, "at least", 0.92),
      ("adversarial", 0.0313725, "at least", 0.76),
      ("adversarial", 8, "at most", 0.03),
      ("adversarial", 8, "at most", 0.02),
      ("adversarial", 4.0, "at most", 1.0),
      ("corruption", None, "at most", 0.6),
    ],
  )
  assert [c.measured for c in checks] == [0.92, 0.75, 0.03, 0.03, None, 0.625]
  assert [c.met for c in checks] == [True, False, True, False, False, False]
  shown = tables.floors_table(checks).rows
  assert shown[0] == ("clean", "at least 92.00", "92.00", "met")
  assert shown[1][0] == "adversarial, eps 0.03137" and shown[1][3] == "NOT MET"
  assert shown[4][2:] == ("not measured", "NOT MET")
  assert shown[5][:3] == ("corruption mean", "at most 60.00", "62.50")


@pytest.mark.parametrize(
  "row",
  [
    ("cleen", None, "at least", 0.5),
    ("clean", 1.0, "at least", 0.5),
    ("adversarial", None, "at least", 0.5),
    ("clean", None, "above", 0.5),
    ("clean", None, "at least", 92),
  ],
)
def test_requirement_of_another_form_is_refused(make_run, row):
  with pytest.raises(ValueError, match="is not .measure, epsilon, bound"):
    tables.floors(make_run("A").results, [row])
