"""Intervals, what is paired, what is said beside it, and the files."""

import json

import pytest

from ram_jax.report import comparison, matching, references
from ram_jax.report.entries import Entry, Reference, corrupted


# Table II of Newcombe 1998, method 10, in its four decimals.
@pytest.mark.parametrize(
  "ours, theirs, low, high",
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
def test_interval_equals_newcombes(ours, theirs, low, high):
  (a, m), (b, n) = ours, theirs
  digits = 5e-5 if m < 100 else 1e-11
  found = matching.difference_interval(a / m, m, b / n, n)
  assert found == pytest.approx((low, high), abs=digits)
  mirrored = matching.difference_interval(b / n, n, a / m, m)
  assert mirrored == pytest.approx((-found[1], -found[0]), abs=1e-15)


def reference(*entries, **fields):
  return Reference("theirs", "a file", entries, "wrn_10_1", **fields)


def attacked(epsilon, accuracy, attack="PGD-10", norm="l2", total=100):
  return Entry("adversarial", accuracy, total, epsilon, attack, norm)


def rows(table):
  return {row[0]: row[1:] for row in table.rows}


def note(table, start):
  (found,) = [line for line in table.footnotes if line.startswith(start)]
  return found


def test_only_like_is_compared_with_like(make_run):
  run = make_run("A", rows=((0.0, 95), (8 / 255, 40), (1.0, 30)))
  theirs = reference(
    Entry("clean", 0.70, 100),
    attacked(0.031373, 0.40),
    attacked(1.0, 0.29, "AutoAttack"),
    attacked(1.0, 0.35, "PGD-20"),
    attacked(1.0, 0.20, norm="linf"),
    attacked(2.0, 0.10),
    images_assumed=False,
  )
  table = comparison.table(run, theirs)
  # Intervals by statsmodels, of 95 and 70 in 100 and so on.
  assert rows(table) == {
    "clean": ("95.00", "70.00", "+25.00", "+14.8 to +35.0", "*"),
    "L2 eps 0.03137 (PGD-10)": (
      *("40.00", "40.00", "+0.00", "-13.3 to +13.3", ""),
    ),
    "L2 eps 1 (AutoAttack)": (
      *("30.00", "29.00", "+1.00", "-11.5 to +13.5", "a"),
    ),
    "L2 eps 1 (PGD-20)": ("30.00", "35.00", "-5.00", "-17.7 to +7.9", "a"),
  }
  assert "ours was attacked by PGD-10" in note(table, "a: ")
  assert note(table, "test images") == (
    "test images: 100 in ours, 100 in theirs"
  )
  only = note(table, "only in theirs: ")
  assert only.endswith(": Linf eps 1 (PGD-10); L2 eps 2 (PGD-10)")
  assert not any(line.startswith("only in ours") for line in table.footnotes)


def test_corruptions_are_averaged_over_what_both_have(make_run, corruption):
  run = make_run("A", corruption=corruption)
  theirs = reference(
    *(corrupted("snow", 2, 0.5), corrupted("fog", 2, 0.6)),
    *(corrupted("fog", 1, 0.8), corrupted("frost", 1, 0.1)),
  )
  found = matching.match(run, theirs)
  # Ours: fog .9 .7, snow .4; theirs: fog .8 .6, snow .5.
  mean, fog, snow = found.rows
  assert mean.ours.accuracy == pytest.approx(2.0 / 3, abs=1e-15)
  assert mean.theirs.accuracy == pytest.approx(1.9 / 3, abs=1e-15)
  assert fog.difference == pytest.approx(0.1, abs=1e-15)
  assert snow.difference == pytest.approx(-0.1, abs=1e-15)
  # Two cells of the same 10 images are 10 trials and not 20.
  interval = matching.difference_interval(0.8, 10, 0.7, 10_000)
  assert (fog.low, fog.high) == pytest.approx(interval, abs=1e-12)
  assert [row.ours.label for row in found.cells] == [
    *("fog, severity 1", "fog, severity 2", "snow, severity 2"),
  ]
  table = comparison.table(run, theirs)
  assert list(rows(table)) == ["corruption mean", "fog", "snow"]
  assert "count" in note(table, "corruptions: ")
  assert "(ours) corrupted images: CIFAR-10-C" in table.footnotes
  assert note(table, "only in ours").endswith("(PGD-10); snow (severity 1)")
  assert note(table, "only in theirs").endswith(": frost (severity 1)")


def test_a_mean_is_compared_where_all_its_parts_are_measured(
  make_run, corruption
):
  run = make_run("A", corruption=corruption)
  over = {"corruptions": ("fog", "snow"), "severities": (1, 2)}
  given = Entry("corruption", 0.6, **over)
  table = comparison.table(run, reference(given, rounding=0.0005))
  (row,) = table.rows
  assert row[:4] == ("corruption mean", "62.50", "60.00", "+2.50")
  low, high = matching.difference_interval(0.625, 10, 0.6, 10_000)
  low, high = 100 * low - 0.05, 100 * high + 0.05
  assert row[4] == f"{low:+.1f} to {high:+.1f}"
  assert "rounded to 0.1 points" in note(table, "theirs is rounded")
  more = Entry("corruption", 0.6, **over | {"severities": (1, 2, 3)})
  with pytest.raises(ValueError, match="no measure in common: the run has"):
    comparison.table(run, reference(more))


def test_footnotes_tell_what_else_differs(make_run):
  run = make_run("A", notes=["first 100 images only"])
  theirs = Reference(
    *("theirs", "a file", (Entry("clean", 0.33333),), "RN-50", "CIFAR-100"),
    notes=("with extra data",),
  )
  lines = comparison.table(run, theirs).footnotes
  for line in (
    "ours: A (a-0), wrn_10_1, CIFAR-10",
    "theirs: theirs, RN-50, CIFAR-100; a file",
    "test images: 100 in ours, 10000 in theirs (assumed: their "
    "source gives accuracies alone)",
    "the networks differ: wrn_10_1 in ours, RN-50 in theirs",
    "the data differ: CIFAR-10 in ours, CIFAR-100 in theirs",
    "(ours) first 100 images only",
    "(theirs) with extra data",
    "only in ours: L2 eps 1 (PGD-10)",
  ):
    assert line in lines
  # A third of 10,000 images is no whole number of them.
  assert any("no fractions of 10000 images" in line for line in lines)
  same = comparison.table(run, references.read(str(run.folder))).footnotes
  assert not any("differ:" in line or "assumed" in line for line in same)


def test_files_hold_the_table_and_its_numbers(make_run, corruption, tmp_path):
  run = make_run("A", corruption=corruption)
  table, paths = comparison.compare(run.folder, "augmix_wrn_40_2")
  assert paths == [
    run.folder / "comparison-augmix_wrn_40_2.md",
    run.folder / "comparison-augmix_wrn_40_2.json",
  ]
  assert not list(run.folder.glob("*.part"))
  assert table.markdown() in paths[0].read_text(encoding="utf-8")
  tree = json.loads(paths[1].read_text(encoding="utf-8"))
  assert tree["theirs"]["name"] == "augmix_wrn_40_2"
  assert tree["notes"] == list(table.footnotes)
  assert len(tree["rows"]) == len(table.rows) == 4
  assert len(tree["cells"]) == 4 and len(tree["only_theirs"]) == 71
  clean = tree["rows"][0]
  assert clean["ours"] == {"measure": "clean", "accuracy": 0.95, "total": 100}
  assert clean["difference"] == pytest.approx(-0.0008, abs=1e-12)
  assert clean["low"] < -0.01 < 0.01 < clean["high"] and not clean["outside"]
  odd = tmp_path / "a b:c"
  odd.mkdir()
  (odd / "eval_metrics.json").write_text('{"clean_accuracy": 0.5}')
  _, paths = comparison.compare(run.folder, str(odd), tmp_path / "deep" / "out")
  assert paths[0] == tmp_path / "deep" / "out" / "comparison-a_b_c.md"


def test_a_run_equals_itself(make_run, corruption):
  run = make_run("A", corruption=corruption)
  table = comparison.table(run, references.read(str(run.folder)))
  assert len(table.rows) == 5
  assert all(row[3] == "+0.00" and row[5] == "" for row in table.rows)
  with pytest.raises(ValueError, match="no measure in common: .* has clean"):
    other = make_run("B", adversarial=None)
    comparison.table(other, reference(attacked(1.0, 0.5)))


@pytest.mark.parametrize("name", sorted(references.published()))
def test_every_published_reference_is_comparable(make_run, corruption, name):
  rows = ((0.0, 95), (0.25, 80), (0.5, 70), (1.0, 40), (2.0, 9))
  table = comparison.table(
    make_run("A", rows=rows, corruption=corruption), references.read(name)
  )
  longest = max(map(len, table.text(width=80).splitlines()))
  assert table.rows and longest <= 80
