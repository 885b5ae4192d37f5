"""The summary's figures and footnotes, required values."""

import pytest

from ram_jax.report import tables


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
    ("AugMix", *setting, "100.0 (96.3-100.0)", "-", half, "62.5 [2 of 15]"),
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
    "(AugMix) corruption mean: CIFAR-10-C, 2 corruptions of the benchmark's "
    "15, severities 1, 2; of one run no interval, as the same images recur in "
    "each",
    "(AugMix) operations overlap the corruptions",
  ]


def test_seeds_are_one_row_and_the_footnote_says_which_interval(make_full_run):
  shown = [make_full_run("A", seed, shift=10 * seed) for seed in (1, 2, 3)]
  table = tables.summary([*shown, make_full_run("B")])
  assert table.header[-1] == "15 corruptions"
  # 96, 97, 98: t(2) s / sqrt(3) = 4.302653 / sqrt(3) = 2.484. The mean over 15
  # corruptions is 77 + shift / 10.
  first, second = table.rows
  assert first[0] == "A (3 seeds)" and second[0] == "B"
  assert (first[3], first[-1]) == ("97.0 (94.5-99.5)", "79.0 (76.5-81.5)")
  assert (second[3], second[-1]) == ("95.0 (93.5-96.2)", "77.0")
  assert table.footnotes[0].startswith("Accuracy in %. Rows of several seeds")
  (note,) = [x for x in table.footnotes if x.startswith("15 corruptions")]
  assert "CIFAR-10-C (made here), the benchmark's, severities 1, 2, 3" in note
  assert any("generated" in x for x in table.footnotes)
  assert (
    tables.summary(shown)
    .footnotes[0]
    .startswith("Accuracy in %: mean over seeds, with Student's")
  )


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
