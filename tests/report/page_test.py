"""The report's files."""

import pytest

from ram_jax.report import page, tables


def test_report_has_table_figures_and_origins(make_run, tmp_path):
  shown = [make_run("Standard"), make_run("AugMix"), make_run("AugMix", 1)]
  paths = page.write_report(shown, tmp_path / "deep" / "report")
  assert [path.name for path in paths] == [
    "summary.md",
    "adversarial_accuracy.png",
    "training_curves.png",
  ]
  assert all(path.stat().st_size > 0 for path in paths)
  text = paths[0].read_text(encoding="utf-8")
  assert tables.summary(shown).markdown() in text
  for path in paths[1:]:
    assert f"]({path.name})" in text
  row = "| AugMix (seed 1) | augmix-1 | 1 | 4 | 12 | - | 1 x cpu | - |"
  assert row in text


def test_report_leaves_out_figures_without_data(make_run, tmp_path):
  shown = [make_run("A", adversarial=None, logs=0, device=None)]
  paths = page.write_report(shown, tmp_path)
  assert [path.name for path in paths] == ["summary.md"]
  assert ".png" not in paths[0].read_text()


def test_report_of_nothing_is_refused(tmp_path):
  with pytest.raises(ValueError, match="at least one run"):
    page.write_report([], tmp_path)
