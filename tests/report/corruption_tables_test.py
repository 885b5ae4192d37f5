"""Means and errors over corruptions against numbers derived by hand."""

import pytest

from ram_jax.data import cifar_c
from ram_jax.report import corruption_numbers as numbers
from ram_jax.report import corruption_tables


def test_means_are_those_of_the_rule(make_full_run):
  base = make_full_run("Standard")
  names = [name for name in cifar_c.NAMES if name not in ("frost", "spatter")]
  better = make_full_run("Better", names=names, shift=50)
  table = corruption_tables.means([base, better], base)
  assert table.header[4:] == (
    *("noise", "blur", "weather", "digital"),
    *("mCE", "relative mCE"),
  )
  # 84 - i, with i in the mean: 7 over 15, 16.5 over 4, 9 over 19; noise 0, 1,
  # 2, 15; blur 3 to 6, 16; weather 7 to 10, 17; digital 11 to 14, 18.
  assert table.rows[0] == (
    *("Standard", "77.0", "67.5", "75.0"),
    *("79.5", "77.2", "73.8", "70.4", "23.0", "100.0"),
  )
  # Without frost (8) the 15 have 97 / 14 = 6.93, without spatter (17) the 4
  # have 49 / 3 = 16.33, and all have 146 / 17 = 8.59; weather 26 / 3 = 8.67;
  # and everything is 5 points more.
  row = table.rows[1]
  assert row[:8] == (
    *("Better", "82.1 [14 of 15]", "72.7 [3 of 4]", "80.4 [17 of 19]"),
    *("84.5", "82.2", "80.3 [3 of 5]", "75.4"),
  )
  assert row[8] == "17.9 [14 of 15]"
  # (11 + i) / (16 + i), the mean over i = 0 to 14 without 8.
  ratios = [(11 + i) / (16 + i) for i in range(15) if i != 8]
  assert row[9] == f"{100 * sum(ratios) / 14:.1f} [14 of 15]"
  assert any("that of Standard" in note for note in table.footnotes)
  assert "relative mCE" not in corruption_tables.means([base]).header


def test_relative_error_of_what_both_have(make_full_run):
  def results(counts):
    rows = [
      {"corruption": name, "severity": s, "correct": c, "total": 10}
      for (name, s), c in counts.items()
    ]
    return {"corruption": {"by_corruption": rows}}

  ours = results({("fog", 1): 8, ("fog", 2): 4, ("snow", 1): 5})
  one = results({("fog", 1): 6, ("fog", 2): 6, ("fog", 3): 0, ("frost", 1): 1})
  two = results({("fog", 1): 9, ("fog", 2): 3, ("snow", 1): 10})
  error = numbers.relative_error
  # Errors .2 + .6 over (.4 + .4): 1; over (.1 + .7): 1; the mean of both: 1.
  assert error(ours, [one], ("fog",)) == pytest.approx(1.0, abs=1e-12)
  assert error(one, [ours], ("fog", "snow")) == pytest.approx(1.0, abs=1e-12)
  three = results({("fog", 1): 8, ("fog", 2): 9})
  # .8 over the mean of .8 and .3.
  found = error(ours, [one, three], ("fog",))
  assert found == pytest.approx(0.8 / 0.55, abs=1e-12)
  assert error(ours, [two], ("snow",)) is None  # no error to compare with
  assert error(ours, [one], ("brightness",)) is None


def test_each_corruption_and_severity(make_full_run):
  names = ("fog", "gaussian_noise", "my_own")
  one = make_full_run("A", names=names[:2])
  rows = [{"corruption": "my_own", "severity": 9, "correct": 1, "total": 4}]
  part = {"label": "mine", "by_corruption": rows}
  other = make_full_run("B", corruption=part)
  table = corruption_tables.by_corruption([one, other])
  assert table.header == ("corruption", "category", "A", "B")
  assert table.rows == (
    ("gaussian noise", "noise", "84.0", "-"),
    ("fog", "weather", "75.0", "-"),
    ("my own", "other", "-", "25.0"),
  )
  table = corruption_tables.by_severity([one, other])
  assert [row[:2] for row in table.rows] == [
    *(("gaussian noise", str(s)) for s in range(1, 6)),
    *(("fog", str(s)) for s in range(1, 6)),
    ("my own", "9"),
  ]
  # scipy: binomtest(880, 1000) and binomtest(1, 4), Wilson.
  assert table.rows[0][2] == "88.0 (85.8-89.9)"
  assert table.rows[-1][2:] == ("-", "25.0 (4.6-69.9)")


def test_calibration_clean_and_over_the_15(make_full_run):
  runs = [make_full_run("A", seed) for seed in (0, 1)]
  table = corruption_tables.calibration([*runs, make_full_run("B")])
  assert table.header[1:5] == (
    "RMS clean",
    "ECE clean",
    "NLL clean",
    "Brier clean",
  )
  # s / 50, s / 100 and s / 2 at the severities 1 to 5, whose mean is 3.
  assert table.rows[1] == (
    *("B", "0.050", "0.040", "0.500", "0.200"),
    *("0.060", "0.030", "1.500", "1.000"),
  )
  assert table.rows[0][:2] == ("A (2 seeds)", "0.050 (0.050-0.050)")
  # One that was not finite and was left out: no mean of the others.
  some = make_full_run("D")
  del some.results["corruption"]["by_corruption"][0]["calibration"]["nll"]
  table = corruption_tables.calibration([some, make_full_run("E")])
  assert table.rows[0][5:] == ("0.060", "0.030", "-", "1.000")
  bare = make_full_run("C", clean={"correct": 1, "total": 2}, corruption=None)
  assert corruption_tables.calibration([bare]) is None


def test_a_measure_that_some_seeds_lack_says_so(make_full_run):
  runs = [make_full_run("A"), make_full_run("A", 1, corruption=None)]
  (row,) = corruption_tables.means(runs).rows
  assert row[:2] == ("A (2 seeds)", "77.0 (1 of 2 seeds)")
