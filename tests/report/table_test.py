"""The same cells as Markdown and in terminals of any width."""

import pytest

from ram_jax.report.table import Table

TABLE = Table(
  ("run", "clean", "L2 eps 1"),
  (("A [x] | y", "50.0 (40.4-59.6)", "-"), ("B", "1.0 (0.8-1.2)", "2.0")),
  ("a note", "another"),
)


def test_markdown_has_rows_rule_and_footnotes():
  assert TABLE.markdown() == (
    "| run | clean | L2 eps 1 |\n"
    "| --- | --- | --- |\n"
    "| A [x] \\| y | 50.0 (40.4-59.6) | - |\n"
    "| B | 1.0 (0.8-1.2) | 2.0 |\n"
    "\n- a note\n- another\n"
  )
  assert Table(("a",), (("b",),)).markdown() == "| a |\n| --- |\n| b |\n"


def _first_cells(text):
  return [line.split()[0] for line in text.splitlines() if line.strip()]


def test_wide_terminal_has_one_line_per_run():
  text = TABLE.text(width=80)
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  assert lines[2].split() == ["A", "[x]", "|", "y", "50.0", "(40.4-59.6)", "-"]
  assert lines[-2:] == ["a note", "another"]


def test_narrower_terminals_break_cells_then_transpose():
  broken = TABLE.text(width=36)
  assert _first_cells(broken)[:3] == ["L2", "eps", "run"]
  assert "50.0 (40.4" not in broken and "(40.4-59.6)" in broken
  assert "A [x] | y" in broken
  # Two runs of 11 columns each do not fit beside the names, one does.
  assert _first_cells(TABLE.text(width=26)).count("run") == 2
  named = Table(("run", "clean"), (("Standard (seed 0)", "50.0 (4-5)"),) * 3)
  assert "(seed 0)" in named.text(width=40)
  wide = Table(("run", *"abcdefgh"), (("name", *["50.0"] * 8),) * 2)
  assert _first_cells(wide.text(width=40))[::2][:3] == ["run", "a", "c"]


@pytest.mark.parametrize("width", [26, 32, 36, 80, 200])
def test_no_number_is_lost_and_no_line_is_too_long(width):
  text = TABLE.text(width)
  for figure in ("50.0", "(40.4-59.6)", "1.0", "(0.8-1.2)", "2.0"):
    assert figure in text
  assert max(map(len, text.splitlines())) <= width
