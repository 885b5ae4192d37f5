"""Styles of runs across figures."""

import pytest

from ram_jax.report import look


def test_color_and_marker_follow_the_method_not_the_order(make_run):
  runs = [make_run(x) for x in ("Standard", "AugMix", "RobustAugMix", "Adv")]
  forward = {s.label: s for s in look.styles(runs)}
  backward = {s.label: s for s in look.styles(runs[::-1])}
  assert forward == backward and len(forward) == 4
  assert len({s.color for s in forward.values()}) == 4
  assert len({s.marker for s in forward.values()}) == 4


def test_seeds_share_the_color_and_differ_in_line(make_run):
  runs = [make_run("A"), make_run("B"), make_run("A", 1)]
  first, other, second = look.styles(runs)
  assert first.color == second.color != other.color
  assert first.line == other.line != second.line
  assert second.label == "A (seed 1)"


def test_no_run_is_refused():
  with pytest.raises(ValueError, match="at least one run"):
    look.styles([])
