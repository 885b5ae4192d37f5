"""The results under docs/results are readable, and match their tables."""

import pathlib

import pytest

from ram_jax.report import claims, tables
from ram_jax.runs import results as runs

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "results"
SUMMARIES = sorted(RESULTS.glob("*/summary.md"))


def test_there_are_results():
  assert SUMMARIES


@pytest.mark.parametrize("summary", SUMMARIES, ids=lambda p: p.parent.name)
def test_summary_is_generated_from_the_results(summary):
  folders = [p.parent for p in summary.parent.glob("*/results.json")]
  found = map(runs.load, sorted(folders))
  shown = {(run.about["label"], run.about["seed"]): run for run in found}
  text = summary.read_text(encoding="utf-8")
  order = sorted(shown, key=lambda run: (text.index(f"\n| {run[0]} "), run[1]))
  runs_shown = [shown[run] for run in order]
  assert tables.summary(runs_shown).markdown().strip() in text
  # Several seeds are compared by their accuracies, so the predictions, which
  # are not in the repository, are not needed.
  found = claims.evaluate(runs_shown).table()
  lines = found.markdown().splitlines()[: 2 + len(found.rows)]
  assert "\n".join(lines) in text
