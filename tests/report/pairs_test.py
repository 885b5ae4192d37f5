"""Differences between configurations with several seeds."""

import pytest
from scipy import stats

from ram_jax.report import pairs


def test_differences_over_seeds_are_paired(make_full_run):
  shifts = {
    "Standard": (-20, -10, 0),
    "AugMix": (10, 30, 41),
    "Adversarial": (-10, 20, 50),
  }
  shown = [
    make_full_run(label, seed, shift)
    for label, by_seed in shifts.items()
    for seed, shift in enumerate(by_seed)
  ]
  table = pairs.over_seeds(shown, shown[0])
  row = dict(zip(table.header, table.rows[0], strict=True))
  assert row["method"].startswith("AugMix")
  low, high = stats.ttest_1samp([3.0, 4.0, 4.1], 0).confidence_interval(0.95)
  want = f"+3.7 ({low:+.1f} to {high:+.1f})"
  columns = ["clean", "15 corruptions", "fog", "contrast"]
  assert [row[name] for name in columns] == [want] * 4
  # All attacks have equal results.
  assert row["PGD-10 L2: eps 1"] == "+0.0"
  assert "difference from Standard" in table.footnotes[0]
  # p = 0.009 and 0.122; after Holm's correction 0.018 and 0.122.
  places = {(0, table.header.index(name)) for name in columns}
  assert table.best == places
  assert table.footnotes[-1].endswith(f"4 of {2 * (len(table.header) - 1)}")


def test_single_seeds_and_other_corruptions_have_no_interval(make_full_run):
  shown = [make_full_run("Standard", seed) for seed in range(2)]
  one = make_full_run("AugMix", names=("fog",))
  assert pairs.over_seeds([shown[0], one], shown[0]) is None
  shown += [make_full_run("AugMix", seed, names=("fog",)) for seed in range(2)]
  table = pairs.over_seeds(shown, shown[0])
  row = dict(zip(table.header, table.rows[0], strict=True))
  assert row["15 corruptions"] == row["contrast"] == "-"
  # Seeds with equal differences give no interval.
  assert row["fog"] == row["clean"] == "+0.0"


def without(name):
  return tuple(x for x in pairs.NAMES if x != name)


@pytest.mark.parametrize(
  "mine, others, column, expected",
  [
    (("fog",), ("brightness",), "15 corruptions [1 of 15]", "-"),
    (without("contrast"), without("snow"), "15 corruptions [14 of 15]", "-"),
    (
      without("snow"),
      without("snow"),
      "15 corruptions [14 of 15]",
      "+0.1",
    ),
  ],
)
def test_means_over_other_corruptions_are_not_compared(
  mine, others, column, expected, make_full_run
):
  shown = [make_full_run("Standard", s, names=mine) for s in range(2)]
  shown += [make_full_run("AugMix", s, 1, names=others) for s in range(2)]
  table = pairs.over_seeds(shown, shown[0])
  assert table.rows[0][table.header.index(column)] == expected


@pytest.mark.parametrize("kind", ["clean", "corruption"])
def test_metrics_have_names(kind, make_full_run):
  run = make_full_run("Standard")
  frame = pairs.grouping.frame(pairs.grouping.groups([run]))
  found = {}
  for _, part in pairs._metrics(frame, 0):
    found.setdefault(part["evaluator"].iloc[0], part)
  assert len(found[kind]) == {"clean": 1, "corruption": 75}[kind]
