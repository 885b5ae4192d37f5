"""The results under docs/results are readable, and their tables are theirs."""

import pathlib

import pytest

from ram_jax.report import tables
from ram_jax.runs import results as runs

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "results"
SUMMARIES = sorted(RESULTS.glob("*/summary.md"))


def test_there_are_results():
  assert SUMMARIES


@pytest.mark.parametrize("summary", SUMMARIES, ids=lambda p: p.parent.name)
def test_summary_is_made_from_the_results(summary):
  folders = [p.parent for p in summary.parent.glob("*/results.json")]
  shown = {run.label: run for run in map(runs.load, folders)}
  text = summary.read_text(encoding="utf-8")
  rows = [line for line in text.splitlines() if line.startswith("| ")]
  for label, run in shown.items():
    header, _, row, *_ = tables.summary([run]).markdown().splitlines()
    assert header in rows
    assert row in rows, label
