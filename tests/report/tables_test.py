"""Numbers in tables compared with counts, and their notes."""

import dataclasses
import itertools

import pytest

from ram_jax.contracts import Note, Row
from ram_jax.corruptions import CORRUPTIONS, SETS
from ram_jax.report import groups as grouping
from ram_jax.report import pairs, tables


def adversarial(correct, name="PGD-10", norm="l2", n=100):
  settings = {"attack": name, "norm": norm, "epsilon": 1.0}
  return Row("adversarial", settings, n, correct)


def test_summary_shows_every_number(make_run, corruption):
  runs = [
    make_run("Standard", rows=((0.0, 50), (0.25, 10), (1.0, 0))),
    make_run("AugMix", rows=((0.0, 100), (1.0, 50)), found=corruption),
    make_run("Imported", rows=(), found=[Row("clean", {}, 100, 95)]),
  ]
  table = tables.summary(runs)
  assert table.header == (
    *("method", "clean", "15 corruptions"),
    *("PGD-10 L2: eps 0.25", "PGD-10 L2: eps 1"),
  )
  # Wilson intervals of 50, 10, 0, 100 and 95 in 100, from scipy.
  half, tenth, none = "50.0 (40.4-59.6)", "10.0 (5.5-17.4)", "0.0 (0.0-3.7)"
  assert table.rows == (
    ("Standard", half, "-", tenth, none),
    ("AugMix", "100.0 (96.3-100.0)", "62.5 [4 of 75 test sets]", "-", half),
    ("Imported", "95.0 (88.8-97.8)", "-", "-", "-"),
  )
  assert table.best == {(1, 1), (1, 4)}


def test_common_settings_are_in_the_title_and_others_are_columns(make_run):
  one = make_run("A")
  table = tables.summary([one, make_run("B")])
  assert table.title == (
    "ram_jax, 2 runs: wrn_10_1, CIFAR-10, 4 epochs, seed 0, 100 test images, "
    "1 x cpu."
  )
  other = make_run("B", run=one.about | {"label": "B", "model": "resnet18"})
  table = tables.summary([one, other])
  assert table.header[:3] == ("method", "network", "clean")
  assert [row[1] for row in table.rows] == ["wrn_10_1", "resnet18"]
  assert "wrn_10_1" not in table.title


def test_title_names_networks_and_data_once(make_run):
  about = make_run("A").about
  others = {"model": "resnet18"}, {"model": "resnet18", "data_label": "digits"}
  runs = [make_run(f"B{i}", run=about | x) for i, x in enumerate(({}, *others))]
  titles = [tables.title(grouping.groups(runs[:n])) for n in (1, 2, 3)]
  assert [x.removeprefix("Robustness of ") for x in titles] == [
    "wrn_10_1 on CIFAR-10",
    "resnet18 and wrn_10_1 on CIFAR-10",
    "resnet18 on CIFAR-10 and resnet18 on digits and wrn_10_1 on CIFAR-10",
  ]


def test_footnotes_say_how_and_for_whom(make_run):
  note, warning = Note("13 operations"), Note("dark images", "warning")
  runs = [make_run("Standard"), make_run("AugMix", found=[note, warning])]
  first, second, *rest = tables.summary(runs).footnotes
  assert first == "warning: AugMix: dark images"
  assert second == tables.INTERVALS
  assert rest == [
    "PGD-10 L2: relative step size 0.4; eps for pixel values in [0, 1]; on "
    "100 test images",
    "PGD-10, not AutoAttack",
    "AugMix: 13 operations",
  ]


def test_seeds_are_one_row(make_full_run):
  shown = [make_full_run("A", seed, shift=10 * seed) for seed in (1, 2, 3)]
  table = tables.summary([*shown, make_full_run("B")])
  # 96, 97, 98: t(2) s / sqrt(3) = 4.302653 / sqrt(3) = 2.484. The mean over 15
  # corruptions is 77 + shift / 10.
  assert [row[:3] for row in table.rows] == [
    ("A (3 seeds)", "97.0 (94.5-99.5)", "79.0 (76.5-81.5)"),
    ("B", "95.0 (93.5-96.2)", "77.0"),
  ]
  assert "seeds 1, 2, 3" in tables.summary(shown).title


def test_different_attacks_have_separate_columns(make_run):
  one = make_run("A", found=[adversarial(30, "PGD-100")])
  other = make_run("B", rows=(), found=[adversarial(10, norm="linf")])
  table = tables.summary([one, other])
  assert table.header[2:] == (
    "PGD-10 L2: eps 1",
    "PGD-100 L2: eps 1",
    "PGD-10 Linf: eps 255/255",
  )
  assert [cell[:4] for cell in table.rows[0][2:]] == ["40.0", "30.0", "-"]
  assert [cell[:4] for cell in table.rows[1][2:]] == ["-", "-", "10.0"]


def test_sources_of_corrupted_images_are_not_mixed(make_full_run):
  rows = [
    Row("corruption", row.settings | {"images": "made here"}, 10, 5)
    for row in make_full_run("A").rows
    if row.evaluator == "corruption"
  ]
  one, other = make_full_run("A"), make_full_run("B", names=(), found=rows)
  table = tables.summary([one, other])
  assert table.header[2:4] == (
    "15 corruptions: CIFAR-10-C",
    "15 corruptions: made here",
  )
  assert [row[2:4] for row in table.rows] == [("77.0", "-"), ("-", "50.0")]
  means = tables.corruptions([one, other], one)[
    "Categories of corruptions and mCE"
  ]
  assert means.header[2:] == ("A, CIFAR-10-C", "B, made here")
  assert means.rows[0][2:] == ("77.0", "50.0")  # no difference between them
  assert means.rows[-1][2:] == ("100.0", "-")


def test_different_test_images_cause_a_warning(make_full_run):
  one = make_full_run("A")
  data = {"test": {"size": 1000, "fingerprint": "sha256:0123456789abcdef"}}
  table = tables.summary([one, make_full_run("B", data=data)])
  assert table.header[1] == "test set"
  assert table.footnotes[0] == (
    "warning: the runs were evaluated on different test images: do not compare "
    "them"
  )
  few = make_full_run("C", names=("fog",))
  few = dataclasses.replace(
    few, rows=(dataclasses.replace(few.rows[-1], total=400), *few.rows[:-1])
  )
  notes = tables.summary([one, few]).footnotes
  assert notes[0].startswith("warning: fourier: evaluated on different numbers")


def test_epsilons_without_accuracy_are_hidden_and_listed(make_run):
  rows = ((0.0, 95), (0.5, 30), (1.0, 1), (2.0, 0))
  shown = [make_run("A", rows=rows), make_run("B", rows=rows)]
  table = tables.summary(shown)
  assert table.header[2:] == ("PGD-10 L2: eps 0.5",)
  assert table.footnotes[-1] == (
    "not shown, because no run is above 1 %: PGD-10 L2, eps 1; PGD-10 L2, eps 2"
  )
  assert len(tables.every_epsilon(shown).header) == 5
  assert tables.every_epsilon([make_run("C")]) is None


def test_summary_without_runs_is_rejected():
  with pytest.raises(ValueError, match="give at least one"):
    tables.summary([])


def test_means_and_differences_by_hand(make_full_run):
  base = make_full_run("Standard")
  names = [name for name in CORRUPTIONS if name not in ("frost", "spatter")]
  better = make_full_run("Better", names=names, shift=50)
  table = tables.corruptions([base, better], base)[
    "Categories of corruptions and mCE"
  ]
  # 84 - i, with i in the mean: 7 over 15, 16.5 over 4, 9 over 19; noise 0, 1,
  # 2, 15; blur 3 to 6, 16; weather 7 to 10, 17; digital 11 to 14, 18. Without
  # frost (8) the 15 have 97 / 14 = 6.93, without spatter (17) the 4 have
  # 49 / 3 = 16.33, and all have 146 / 17 = 8.59; weather 26 / 3 = 8.67; and
  # everything is 5 points more. (11 + i) / (16 + i) is a corruption's ratio of
  # errors, and its mean over i = 0 to 14 without 8 is the relative error.
  ratios = [(11 + i) / (16 + i) for i in range(15) if i != 8]
  assert {row[0]: row[2:] for row in table.rows} == {
    "benchmark": ("77.0", "82.1 [14 of 15]"),
    "extra": ("67.5", "72.7 [3 of 4]"),
    "all": ("75.0", "80.4 [17 of 19]"),
    "noise": ("79.5", "84.5 (+5.0)"),
    "blur": ("77.2", "82.2 (+5.0)"),
    "weather": ("73.8", "80.3 [3 of 5]"),
    "digital": ("70.4", "75.4 (+5.0)"),
    "mCE": ("23.0", "17.9 [14 of 15]"),
    "normalized mCE": ("100.0", f"{100 * sum(ratios) / 14:.1f} [14 of 15]"),
  }
  assert (3, 3) in table.best and (0, 3) not in table.best
  assert "mCE" in str(
    tables.corruptions([base])
  ) and "normalized mCE" not in str(tables.corruptions([base]))


def relative(make_run, run, *base):
  """Relative error of a run's {(corruption, severity): correct of 10}."""

  def shown(label, counts, seed=0):
    rows = [
      Row("corruption", {"corruption": c, "severity": s, "images": "x"}, 10, k)
      for (c, s), k in counts.items()
    ]
    return make_run(label, seed, rows=(), found=rows, config={"seed": seed})

  groups = grouping.groups(
    [shown("A", run), *(shown("B", x, i) for i, x in enumerate(base))]
  )
  rows = grouping.frame(groups)
  first, second = (rows[rows["group"] == i] for i in range(2))
  return tables._relative(first, second).split(" ")[0]


def test_relative_error_over_shared_corruptions(make_run):
  run = {("fog", 1): 8, ("fog", 2): 4, ("snow", 1): 5}
  one = {("fog", 1): 6, ("fog", 2): 6, ("fog", 3): 0, ("frost", 1): 1}
  # Errors .2 + .6 over (.4 + .4): 1.
  assert relative(make_run, run, one) == "100.0"
  # .8 over the mean of .8 and .3.
  two = {("fog", 1): 8, ("fog", 2): 9}
  assert relative(make_run, run, one, two) == f"{100 * 0.8 / 0.55:.1f}"
  # No error to compare with, and nothing in common.
  assert relative(make_run, {("snow", 1): 5}, {("snow", 1): 10}) == "-"
  assert relative(make_run, run, {("brightness", 1): 5}) == "-"


def test_each_corruption_and_severity(make_full_run):
  one = make_full_run("A", names=("fog", "gaussian_noise"))
  settings = {"corruption": "my_own", "severity": 9, "images": "CIFAR-10-C"}
  own = Row("corruption", settings, 4, 1)
  other = make_full_run("B", names=(), found=[own])
  found = tables.corruptions([one, other])
  table = found["Each corruption"]
  assert table.header == ("corruption", "category", "A", "B")
  assert table.rows == (
    ("gaussian noise", "noise", "84.0", "-"),
    ("fog", "weather", "75.0", "-"),
    ("my own", "other", "-", "-"),  # of a severity that is none of the five
  )
  table = found["Each corruption and severity"]
  assert [row[:2] for row in table.rows] == [
    *(("gaussian noise", str(s)) for s in range(1, 6)),
    *(("fog", str(s)) for s in range(1, 6)),
    ("my own", "9"),
  ]
  # scipy: binomtest(880, 1000) and binomtest(1, 4), Wilson.
  assert table.rows[0][2] == "88.0 (85.8-89.9)"
  assert table.rows[-1][2:] == ("-", "25.0 (4.6-69.9)")
  assert tables.corruptions([make_full_run("C", names=())]) == {}


def test_cifar10_1_is_not_clean_accuracy(make_full_run):
  settings = {"test_set": "CIFAR-10.1 v6"}
  runs = [
    make_full_run(
      name, seed, found=[Row("cifar10_1", settings, 2000, 1000 + 100 * i)]
    )
    for i, (name, seed) in enumerate(itertools.product("AB", (0, 1)))
  ]
  table = tables.summary(runs)
  assert table.header[1:3] == ("clean", "CIFAR-10.1 v6")
  assert [row[2].split()[0] for row in table.rows] == ["52.5", "62.5"]
  note = "CIFAR-10.1 v6: other images of the same classes; on 2,000 test images"
  assert note in table.footnotes
  compared = pairs.over_seeds(runs, runs[0])
  column = compared.header.index("CIFAR-10.1 v6")
  assert compared.rows[0][column].startswith("+10.0")


def test_c_bar_is_a_set_of_its_own(make_full_run):
  def rows(shift):
    for i, (name, s) in enumerate(
      itertools.product(SETS["cifar_c_bar"], "135")
    ):
      settings = {"corruption": name, "severity": int(s), "images": "C-bar"}
      yield Row("c_bar", settings, 1000, 500 + 10 * (i // 3) + shift)

  one, other = (
    make_full_run(x, found=rows(s)) for x, s in (("A", 0), ("B", 50))
  )
  plain = [make_full_run(x) for x in "CD"]
  table = tables.summary([one, other])
  assert table.header[2:4] == ("15 corruptions", "10 corruptions of C-bar")
  mean = "[30 of 50 test sets]"
  assert [row[2:4] for row in table.rows] == [
    ("77.0", f"54.5 {mean}"),
    ("77.0", f"59.5 {mean}"),
  ]
  found = tables.corruptions([one, other], one)
  table = found.pop("CIFAR-10-C-bar")
  assert table.header == ("mean over", "corruptions", "A", "B")
  assert table.rows[1][:2] == ("checkerboard cutout", "1")
  assert table.rows[-1] == ("mean", "10", f"54.5 {mean}", f"59.5 (+5.0) {mean}")
  others = tables.corruptions(plain, plain[0])
  assert [t.rows for t in found.values()] == [t.rows for t in others.values()]


def test_calibration_clean_and_over_the_15(make_full_run):
  runs = [make_full_run("A", seed) for seed in (0, 1)]
  table = tables.calibration([*runs, make_full_run("B")])
  assert table.header[1:6] == (
    *("clean: RMS", "clean: ECE", "clean: NLL", "clean: Brier"),
    "15 corruptions: RMS",
  )
  # s / 50, s / 100 and s / 2 at the severities 1 to 5, whose mean is 3.
  assert table.rows[1] == (
    *("B", "0.050", "0.040", "0.500", "0.200"),
    *("0.060", "0.030", "1.500", "1.000"),
  )
  assert table.rows[0][:2] == ("A (2 seeds)", "0.050")
  # One that was not finite and was left out: no mean of the others.
  rows = list(runs[0].rows)
  place = next(i for i, r in enumerate(rows) if r.evaluator == "corruption")
  values = {k: v for k, v in rows[place].values.items() if k != "nll"}
  rows[place] = dataclasses.replace(rows[place], values=values)
  some = dataclasses.replace(runs[0], rows=tuple(rows))
  table = tables.calibration([some, make_full_run("E")])
  assert table.rows[0][5:] == ("0.060", "0.030", "-", "1.000")


def test_no_calibration(make_run):
  assert tables.calibration([make_run("C")]) is None


def test_number_that_some_seeds_lack_is_marked(make_full_run):
  runs = [make_full_run("A"), make_full_run("A", 1, names=())]
  (row,) = tables.summary(runs).rows
  assert row[:3:2] == ("A", "77.0 (1 of 2 seeds)")


def test_floors_compare_with_required(make_run, corruption):
  rows = ((0.0, 92), (8 / 255, 75), (8.0, 3))
  found = [*corruption, adversarial(3, "PGD-100"), adversarial(5)]
  run = make_run("A", rows=rows, found=found)
  table = tables.floors(
    run,
    [
      ("clean", None, "at least", 0.92),
      ("adversarial", 0.0313725, "at least", 0.76),
      ("adversarial", 8, "at most", 0.03),
      ("adversarial", 8, "at most", 0.02),
      ("adversarial", 4.0, "at most", 1.0),
      ("corruption", None, "at most", 0.6),
    ],
  )
  assert table.rows == (
    ("clean", "at least 92.00", "92.00", "met"),
    ("adversarial, eps 0.03137", "at least 76.00", "75.00", "NOT MET"),
    ("adversarial, eps 8", "at most 3.00", "3.00", "met"),
    ("adversarial, eps 8", "at most 2.00", "3.00", "NOT MET"),
    ("adversarial, eps 4", "at most 100.00", "not evaluated", "NOT MET"),
    (
      "mean of 15 corruptions [4 of 75 test sets]",
      "at most 60.00",
      "62.50",
      "NOT MET",
    ),
  )
  rows = tables.floors(run, [("adversarial", 1.0, "at most", 0.04)]).rows
  assert [row[3] for row in rows] == ["met", "NOT MET"]  # of each attack


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
def test_malformed_requirement_is_rejected(make_run, row):
  with pytest.raises(ValueError, match="is not .metric, epsilon, bound"):
    tables.floors(make_run("A"), [row])


def test_differing_fields_and_all_fields(make_full_run):
  runs = [make_full_run(x, seed) for x in "AB" for seed in (0, 1)]
  table = tables.fields(runs, differing=True)
  assert table.rows == (("method.name", "A", "B"),)
  assert table.header == ("field", "A", "B")
  rows = {row[0]: row[1:] for row in tables.fields(runs).rows}
  assert rows["config.seed"] == ("0 / 1", "0 / 1")
  assert rows["data.test.size"] == ("1000", "1000")
  assert tables.fields(runs[:2], differing=True) is None


def test_means_over_seeds_are_over_shared_corruptions(make_full_run):
  less = tuple(name for name in CORRUPTIONS if name != "jpeg_compression")
  shown = [make_full_run("Standard", seed) for seed in range(3)]
  shown += [make_full_run("AugMix", seed) for seed in range(2)]
  shown.append(make_full_run("AugMix", 2, names=less))
  table = tables.summary(shown)
  column = table.header.index("15 corruptions")
  first, second = (row[column] for row in table.rows)
  assert first == "77.0"
  # 15 x 77.0 = 14 x 77.5 + 70.0
  assert second == "77.5 [14 of 15]"
  found = tables.corruptions(shown, shown[0])
  cell = found["Categories of corruptions and mCE"].rows[0][-1]
  assert cell == second  # no difference from the baseline


def test_different_training_images_cause_a_warning(make_full_run):
  def made(seed, train):
    data = {"train": {"fingerprint": train}, "test": {"fingerprint": "a"}}
    return make_full_run("A", seed, data=data)

  text = "warning: the runs were trained on different images"
  assert text in tables.summary([made(0, "b"), made(1, "c")]).footnotes
  assert text not in tables.summary([made(2, "b"), made(3, "b")]).footnotes


def test_sweep_shows_means_over_the_benchmark_and_over_attacks(make_full_run):
  run = make_full_run("A", rows=((0.0, 950), (0.5, 400), (1.0, 200)))
  (row,) = tables.sweep([("a", "finished", run, 60.0)], None).rows
  assert row == ("a", "finished", "95.0", "77.0", "30.0", "1.0")
