"""Styles of runs across figures."""

from ram_jax.report import groups as grouping
from ram_jax.report import plots, style


def styles(*runs):
  groups = grouping.groups(runs)
  shown = grouping.series(groups, grouping.frame(groups).query("epsilon == 0"))
  return style.styles(groups, shown)


def test_color_and_marker_follow_the_method_not_the_order(make_run):
  runs = [make_run(x) for x in ("Standard", "AugMix", "RobustAugMix", "Adv")]
  forward = {s["label"]: s for s in styles(*runs)}
  backward = {s["label"]: s for s in styles(*runs[::-1])}
  assert forward == backward and len(forward) == 4
  assert len({s["color"] for s in forward.values()}) == 4
  assert len({s["marker"] for s in forward.values()}) == 4


def test_seeds_share_the_color_and_differ_in_line(make_run):
  first, other, second = styles(make_run("A"), make_run("B"), make_run("A", 1))
  assert first["color"] == second["color"] != other["color"]
  assert first["linestyle"] == other["linestyle"] != second["linestyle"]
  assert second["label"] == "A (seed 1)"


def test_series_of_a_method_never_look_alike(make_run):
  shown = styles(*(make_run("A", seed) for seed in range(9)))
  assert len({(s["linestyle"], s["marker"]) for s in shown}) == 9


def test_labels_are_shown_letter_by_letter(make_run):
  runs = [make_run("_a costs $5 and $x_"), make_run("B")]
  figure = plots.draw_training_curves(runs)
  figure.draw_without_rendering()  # a broken formula would stop it
  texts = [text.get_text() for text in figure.legends[0].get_texts()]
  assert texts == [r" _a costs \$5 and \$x_", "B"]
