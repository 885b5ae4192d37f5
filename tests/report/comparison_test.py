"""Intervals, what is paired, what is said beside it, and the files."""

import errno
import json
import pathlib

import pytest

from ram_jax.report import comparison, matching, references
from ram_jax.report.entries import Entry, Reference, corrupted
from tests.main_test import run


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
    corrupted("snow", 2, 0.5, 10_000),
    corrupted("fog", 2, 0.6, 10_000),
    corrupted("fog", 1, 0.8, 10_000),
    corrupted("frost", 1, 0.1, 10_000),
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
  given = Entry("corruption", 0.6, 10_000, **over)
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
    "theirs",
    "a file",
    (Entry("clean", 0.33333, 10_000),),
    "RN-50",
    "CIFAR-100",
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
  theirs = references.read("augmix_wrn_40_2")
  table = comparison.table(run, theirs)
  paths = comparison.write(run, theirs, run.folder)
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
  theirs = references.read(str(odd))
  paths = comparison.write(run, theirs, tmp_path / "deep" / "out")
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


def test_comparisons_of_one_name_are_kept_apart(make_run, tmp_path):
  folder = make_run("A").folder
  model = {"clean_acc": "95.08", "additional_data": False}
  model |= {"architecture": "R", "dataset": "cifar10"}
  paths = [tmp_path / board / "Standard.json" for board in ("L2", "Linf", "c")]
  author = tmp_path / "Standard"
  for path in (*paths, author / "eval_metrics.json"):
    path.parent.mkdir()
    path.write_text(json.dumps(model))
  (author / "eval_metrics.json").write_text('{"clean_accuracy": 0.5}')
  (author / "pgd_per_epsilon.csv").write_text("epsilon,accuracy\n1,0.5\n")
  references_ = [*paths, author, *author.iterdir()]
  written = []
  for reference_ in references_:
    command = ("--mode=compare", f"--workdir={folder}")
    for _ in range(2):  # the second replaces the first
      code, out, err = run(*command, f"--reference={reference_}")
      assert code == 0, err
      written.append(out.split()[-2:])
    assert written.pop() == written[-1]
    for name in written[-1]:
      assert str(reference_) in pathlib.Path(name).read_text()
  assert len({name for names in written for name in names}) == 12
  assert len(list(folder.glob("comparison-*"))) == 12
  # A damaged one is left alone.
  pathlib.Path(written[0][1]).write_text("{")
  out = run(*command, f"--reference={paths[0]}")[1]
  assert out.split()[-1].endswith("comparison-Standard-7.json")


def test_no_number_is_minus_zero(make_run, tmp_path):
  (tmp_path / "eval_metrics.json").write_text('{"clean_accuracy": 0.49}')
  # The interval is -0.0003 to +0.0237.
  counts = {"correct": 10_034, "total": 20_000}
  low, _ = matching.difference_interval(0.5017, 20_000, 0.49, 10_000)
  assert -0.0005 < low < 0
  folder = make_run("A", clean=counts, adversarial=None).folder
  command = ("--mode=compare", f"--workdir={folder}")
  code, out, err = run(*command, f"--reference={tmp_path}")
  assert code == 0, err
  assert "+0.0 to +2.4" in out and "-0.0" not in out


PERMISSION = "change its permissions, or name another place or a copy"


@pytest.mark.parametrize(
  "mode, number, advice",
  [
    ("compare", errno.EACCES, PERMISSION),
    ("compare", errno.EROFS, PERMISSION),
    (
      "compare",
      errno.ENOSPC,
      "free some space or repair the disk, and the same comma",
    ),
    ("report", errno.EACCES, PERMISSION),
  ],
)
def test_table_is_shown_where_nothing_can_be_written(
  make_run, monkeypatch, tmp_path, mode, number, advice
):
  folder = make_run("A").folder

  def forbidden(path, *args, **kwargs):
    raise OSError(number, "no", str(path))

  monkeypatch.setattr(pathlib.Path, "write_text", forbidden)
  command = {
    "compare": (f"--workdir={folder}", "--reference=madry_l2_eps1"),
    "report": (f"--runs={folder}", f"--workdir={tmp_path / 'out'}"),
  }
  code, out, err = run(f"--mode={mode}", *command[mode])
  assert code == 2 and "95.0" in out and "Written" not in out
  assert err.startswith("error: [Errno") and f": {advice}" in err
  assert err.count("\n") == 1


def test_label_of_several_lines_is_one_row(make_run, tmp_path):
  label = "A\n| B | \\| <i> \r\x1b[31m\ud800 C"
  folder = make_run(label, data=None).folder
  results = json.loads((folder / "results.json").read_text())
  results["run"]["data_label"] = "D\n\n# E"
  results["notes"] = ["one\ntwo"]
  (folder / "results.json").write_text(json.dumps(results))
  out_folder = tmp_path / "out"
  code, out, err = run(
    "--mode=report", f"--runs={folder}", f"--workdir={out_folder}"
  )
  assert code == 0, err
  assert "\x1b" not in out and "- one two" not in out and "one two" in out
  text = (out_folder / "summary.md").read_text()
  shown = r"| A \| B \| \\\| \<i> [31m C |"
  (row,) = [line for line in text.splitlines() if "95.0" in line]
  assert row.startswith(shown) and "| D # E |" in row
  assert "\n# E" not in text and "\n- one two\n" in text
  page = (out_folder / "report.html").read_text()
  assert "A | B | \\| &lt;i&gt; [31m C" in page and "\x1b" not in page
  command = ("--mode=compare", f"--workdir={folder}")
  code, out, err = run(*command, "--reference=madry_l2_eps1")
  assert code == 0, err
  text = pathlib.Path(out.split()[-2]).read_text()
  assert text.startswith(f"# {shown[2:-2]} beside madry_l2_eps1\n\n")
