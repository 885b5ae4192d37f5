"""Comparisons: matched rows, footnotes and files."""

import errno
import json
import pathlib
import re

import pytest

from ram_jax.contracts import Note, Row
from ram_jax.corruptions import BENCHMARK
from ram_jax.report import compare, references, statistics
from ram_jax.report.references import Reference
from ram_jax.runs import metrics
from tests.main_test import run


def reference(*rows, **fields):
  return Reference("other", "a file", references.frame(rows), "M", **fields)


def clean(accuracy, total=100):
  return {"evaluator": "clean", "accuracy": accuracy, "total": total}


def attacked(epsilon, accuracy, attack="PGD-10", norm="l2", total=100):
  settings = {"epsilon": epsilon, "attack": attack, "norm": norm}
  numbers = {"accuracy": accuracy, "total": total}
  return {"evaluator": "adversarial"} | settings | numbers


def corrupted(corruption, severity, accuracy, total=10_000):
  settings = {"corruption": corruption, "severity": severity}
  numbers = {"accuracy": accuracy, "total": total}
  return {"evaluator": "corruption"} | settings | numbers


def rows(table):
  return {row[0]: row[1:] for row in table.rows}


def compared(run, other):
  return compare.table(compare.match(run, other))


def note(table, start):
  (found,) = [line for line in table.footnotes if line.startswith(start)]
  return found


def test_only_comparable_rows_are_compared(make_run):
  run = make_run("A", rows=((0.0, 95), (8 / 255, 40), (1.0, 30)))
  other = reference(
    clean(0.70),
    attacked(0.031373, 0.40),
    attacked(1.0, 0.29, "AutoAttack"),
    attacked(1.0, 0.35, "PGD-20"),
    attacked(1.0, 0.20, norm="linf"),
    attacked(2.0, 0.10),
    images_assumed=False,
  )
  table = compared(run, other)
  # Intervals by statsmodels, of 95 and 70 in 100 and so on.
  assert rows(table) == {
    "clean": ("95.00", "70.00", "+25.00", "+14.8 to +35.0", "*"),
    "L2 eps 0.03137 (PGD-10)": (
      *("40.00", "40.00", "+0.00", "-13.3 to +13.3", ""),
    ),
    "L2 eps 1 (PGD-10 / AutoAttack)": (
      *("30.00", "29.00", "+1.00", "-11.5 to +13.5", "a"),
    ),
    "L2 eps 1 (PGD-10 / PGD-20)": (
      *("30.00", "35.00", "-5.00", "-17.7 to +7.9", "a"),
    ),
  }
  assert table.rows[0][0] == "clean"
  assert "run / reference" in note(table, "a: ")
  assert note(table, "test images") == (
    "test images: 100 in the run, 100 in the reference"
  )
  only = note(table, "only in the reference: ")
  assert only.endswith(": Linf eps 1 (PGD-10); L2 eps 2 (PGD-10)")
  assert not any(line.startswith("only in the run") for line in table.footnotes)


def test_corruptions_are_averaged_over_what_both_have(make_run, corruption):
  run = make_run("A", found=corruption)
  other = reference(
    corrupted("snow", 2, 0.5),
    corrupted("fog", 2, 0.6),
    corrupted("fog", 1, 0.8),
    corrupted("frost", 1, 0.1),
  )
  found = compare.match(run, other)
  # The run: fog .9 .7, snow .4; the reference: fog .8 .6, snow .5.
  mean, fog, snow = found.rows
  assert mean["run"]["accuracy"] == pytest.approx(2.0 / 3, abs=1e-15)
  assert mean["reference"]["accuracy"] == pytest.approx(1.9 / 3, abs=1e-15)
  assert fog["difference"] == pytest.approx(0.1, abs=1e-15)
  assert snow["difference"] == pytest.approx(-0.1, abs=1e-15)
  # Two cells of the same 10 images are 10 trials and not 20.
  interval = statistics.newcombe(0.8, 10, 0.7, 10_000)
  assert (fog["low"], fog["high"]) == pytest.approx(interval, abs=1e-12)
  assert [(row["corruption"], row["severity"]) for row in found.cells] == [
    *(("fog", 1), ("fog", 2), ("snow", 2)),
  ]
  table = compared(run, other)
  assert list(rows(table)) == ["mean of 2 corruptions", "fog", "snow"]
  assert "count" in note(table, "corruptions: ")
  assert "(run) corrupted images: CIFAR-10-C" in table.footnotes
  assert note(table, "only in the run").endswith("(PGD-10); snow (severity 1)")
  only = note(table, "only in the reference")
  assert only.endswith(": frost (severity 1)")


def test_results_of_other_evaluators_are_named(make_run):
  found = [
    Row("cifar10_1", {"test_set": "CIFAR-10.1 v6"}, 100, 80),
    Row("attack_check", {"check": "noise"}, 100, 80),
  ]
  run = make_run("A", found=found)
  table = compared(run, reference(clean(0.9, 100)))
  text = "(run) results that are not compared: cifar10_1"
  assert text in table.footnotes


def test_mean_is_compared_only_if_all_its_parts_were_evaluated(make_full_run):
  given = {"evaluator": "corruption", "corruption": "mean of 15 corruptions"}
  given = reference(given | {"accuracy": 0.6, "total": 10_000}, rounding=0.0005)
  # More than the 15 are there; their mean is 84 less 7 points.
  table = compared(make_full_run("A"), given)
  (row,) = table.rows
  assert row[:4] == ("mean of 15 corruptions", "77.00", "60.00", "+17.00")
  low, high = statistics.newcombe(0.77, 1000, 0.6, 10_000)
  low, high = 100 * low - 0.05, 100 * high + 0.05
  assert row[4] == f"{low:+.1f} to {high:+.1f}"
  assert "rounded to 0.1 percentage points" in note(
    table, "the reference's accuracies are rounded"
  )
  less = make_full_run("B", names=BENCHMARK[:-1])
  with pytest.raises(ValueError, match="no metric in common: the run has"):
    compared(less, given)


def test_any_attack_with_an_epsilon_is_compared(make_run):
  settings = {"attack": "AutoAttack", "norm": "l2", "epsilon": 1.0}
  check = settings | {"attack": "one step"}
  found = [
    Row("autoattack", settings, 100, 25),
    Row("attack_check", check, 9, 1),
  ]
  run = make_run("A", found=found)
  table = compared(run, reference(attacked(1.0, 0.3, "AutoAttack")))
  assert [(row[0], row[1], row[5]) for row in table.rows] == [
    ("L2 eps 1 (PGD-10 / AutoAttack)", "40.00", "a"),
    ("L2 eps 1 (AutoAttack)", "25.00", ""),
  ]
  assert note(table, "only in the run") == "only in the run: clean"


def test_two_sets_of_corrupted_images_are_not_mixed(make_run, corruption):
  other = dict(corruption[0].settings) | {"images": "others"}
  run = make_run("A", found=[*corruption, Row("corruption", other, 10, 1)])
  with pytest.raises(ValueError, match="fog, severity 1 is given twice"):
    compared(run, references.read("augmix_wrn_40_2"))


def test_footnotes_say_what_else_differs(make_run):
  run = make_run("A", found=[Note("first 100 images only")])
  other = Reference(
    "other",
    "a file",
    references.frame([clean(0.33333, 10_000)]),
    "RN-50",
    "CIFAR-100",
    notes=("with extra data",),
  )
  lines = compared(run, other).footnotes
  for line in (
    "run: A (a-0), wrn_10_1, CIFAR-10",
    "reference: other, RN-50, CIFAR-100; a file",
    "test images: 100 in the run, 10000 in the reference (assumed, because its "
    "source only gives accuracies)",
    "the networks differ: wrn_10_1 in the run, RN-50 in the reference",
    "the data differ: CIFAR-10 in the run, CIFAR-100 in the reference",
    "(run) first 100 images only",
    "(reference) with extra data",
    "only in the run: L2 eps 1 (PGD-10)",
  ):
    assert line in lines
  # A third of 10,000 images is no whole number of them.
  assert any("not multiples of 1/10000" in line for line in lines)
  same = compared(run, references.read(str(run.folder))).footnotes
  assert not any("differ:" in line or "assumed" in line for line in same)


def test_files_contain_the_table_and_its_numbers(
  make_run, corruption, tmp_path
):
  run = make_run("A", found=corruption)
  other = references.read("augmix_wrn_40_2")
  table = compared(run, other)
  paths = compare.write(compare.match(run, other), run.folder)
  assert paths == [
    run.folder / "comparison-augmix_wrn_40_2.md",
    run.folder / "comparison-augmix_wrn_40_2.json",
  ]
  assert not list(run.folder.glob("*.part"))
  assert table.markdown() in paths[0].read_text(encoding="utf-8")
  tree = json.loads(paths[1].read_text(encoding="utf-8"))
  assert tree["schema"] == 2
  assert tree["reference"]["name"] == "augmix_wrn_40_2"
  assert tree["notes"] == list(table.footnotes)
  assert len(tree["rows"]) == len(table.rows) == 4
  assert len(tree["cells"]) == 4 and len(tree["only_reference"]) == 71
  first = tree["rows"][0]
  assert first["run"] == {"accuracy": 0.95, "total": 100}
  assert first["evaluator"] == "clean"
  assert first["difference"] == pytest.approx(-0.0008, abs=1e-12)
  assert first["low"] < -0.01 < 0.01 < first["high"] and not first["outside"]
  odd = tmp_path / "a b:c"
  odd.mkdir()
  (odd / "eval_metrics.json").write_text('{"clean_accuracy": 0.5}')
  other = references.read(str(odd))
  paths = compare.write(compare.match(run, other), tmp_path / "deep" / "out")
  assert paths[0].parent == tmp_path / "deep" / "out"
  assert re.fullmatch(r"comparison-a_b_c-[0-9a-f]{8}\.md", paths[0].name)


def test_a_run_equals_itself(make_run, corruption):
  run = make_run("A", found=corruption)
  table = compared(run, references.read(str(run.folder)))
  assert len(table.rows) == 5
  assert all(row[3] == "+0.00" and row[5] == "" for row in table.rows)
  with pytest.raises(ValueError, match="no metric in common: .* has clean"):
    other = make_run("B", rows=((0.0, 95),))
    compared(other, reference(attacked(1.0, 0.5)))


@pytest.mark.parametrize("name", sorted(references.published()))
def test_every_published_reference_is_comparable(make_run, corruption, name):
  rows = ((0.0, 95), (0.25, 80), (0.5, 70), (1.0, 40), (2.0, 9))
  table = compared(
    make_run("A", rows=rows, found=corruption), references.read(name)
  )
  longest = max(map(len, table.text(width=80).splitlines()))
  assert table.rows and longest <= 80


def test_references_with_the_same_name_have_separate_files(make_run, tmp_path):
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
  # A damaged one is replaced, and the others are left alone.
  others = [pathlib.Path(x).read_bytes() for _, x in written[1:]]
  pathlib.Path(written[0][1]).write_text("{")
  out = run(*command, f"--reference={paths[0]}")[1]
  assert out.split()[-2:] == written[0]
  assert str(paths[0]) in pathlib.Path(written[0][1]).read_text()
  assert others == [pathlib.Path(x).read_bytes() for _, x in written[1:]]


def test_no_number_is_minus_zero(make_run, tmp_path):
  (tmp_path / "eval_metrics.json").write_text('{"clean_accuracy": 0.49}')
  # The interval is -0.0003 to +0.0237.
  low, _ = statistics.newcombe(0.5017, 20_000, 0.49, 10_000)
  assert -0.0005 < low < 0
  folder = make_run("A", rows=((0.0, 10_034),), n=20_000).folder
  command = ("--mode=compare", f"--workdir={folder}")
  code, out, err = run(*command, f"--reference={tmp_path}")
  assert code == 0, err
  assert "+0.0 to +2.4" in out and "-0.0" not in out


PERMISSION = "change its permissions, or use another path or a copy"


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
def test_table_is_shown_in_a_read_only_folder(
  make_run, monkeypatch, tmp_path, mode, number, advice
):
  folder = make_run("A").folder

  def forbidden(path, *args, **kwargs):
    raise OSError(number, "no", str(path))

  monkeypatch.setattr(pathlib.Path, "write_text", forbidden)
  monkeypatch.setattr(metrics, "replace", forbidden)
  command = {
    "compare": (f"--workdir={folder}", "--reference=madry_l2_eps1"),
    "report": (f"--runs={folder}", f"--workdir={tmp_path / 'out'}"),
  }
  code, out, err = run(f"--mode={mode}", *command[mode])
  assert code == 2 and "95.0" in out and "Written" not in out
  assert err.startswith("error: [Errno") and f": {advice}" in err
  assert err.count("\n") == 1


@pytest.fixture
def hostile(make_run):
  """A run whose label and data contain line breaks and escape sequences."""
  folder = make_run("A").folder
  tree = json.loads((folder / "results.json").read_text())
  tree["run"]["label"] = "A\n| B | \\| <i> \r\x1b[31m\ud800 C"
  tree["run"]["data_label"] = "D\n\n# E"
  tree["notes"] = [{"text": "one\ntwo", "level": "info"}]
  (folder / "results.json").write_text(json.dumps(tree))
  return folder


ONE_ROW = r"| A \| B \| \\\| \<i> [31m C |"


def test_multiline_label_is_one_row_of_a_report(hostile, tmp_path):
  out_folder = tmp_path / "out"
  code, out, err = run(
    "--mode=report", f"--runs={hostile}", f"--workdir={out_folder}"
  )
  assert code == 0, err
  assert "\x1b" not in out and "- one two" not in out and "one two" in out
  text = (out_folder / "summary.md").read_text()
  (row,) = [line for line in text.splitlines() if "95.0" in line]
  assert row.startswith(ONE_ROW) and ", D # E, " in text
  assert "\n# E" not in text and "\n- one two\n" in text
  page = (out_folder / "report.html").read_text()
  assert "A | B | \\| &lt;i&gt; [31m C" in page and "\x1b" not in page


def test_multiline_label_is_one_row_of_a_comparison(hostile):
  command = ("--mode=compare", f"--workdir={hostile}")
  code, out, err = run(*command, "--reference=madry_l2_eps1")
  assert code == 0, err
  text = pathlib.Path(out.split()[-2]).read_text()
  assert text.startswith(f"# {ONE_ROW[2:-2]} compared with madry_l2_eps1\n\n")
  assert "(run) one two" in text and "\x1b" not in out
