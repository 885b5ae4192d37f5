"""The results under docs/results are readable, and match their tables."""

import pathlib

import pytest

from ram_jax.report import tables
from ram_jax.runs import results as runs

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "results"
SUMMARIES = sorted(RESULTS.glob("*/summary.md"))


def test_there_are_results():
  assert SUMMARIES


@pytest.mark.parametrize("summary", SUMMARIES, ids=lambda p: p.parent.name)
def test_summary_is_generated_from_the_results(summary):
  folders = [p.parent for p in summary.parent.glob("*/results.json")]
  text = summary.read_text(encoding="utf-8")

  def place(run):
    return text.index(f"\n| {run.about['label']} "), run.about["seed"]

  table = tables.summary(sorted(map(runs.load, folders), key=place))
  assert table.markdown().strip() in text
