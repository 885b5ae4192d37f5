"""Styles of runs across figures."""

from ram_jax.report import look, plots, seeds


def test_color_and_marker_follow_the_method_not_the_order(make_run):
  runs = [make_run(x) for x in ("Standard", "AugMix", "RobustAugMix", "Adv")]
  forward = {s.label: s for s in look.styles(seeds.groups(runs))}
  backward = {s.label: s for s in look.styles(seeds.groups(runs[::-1]))}
  assert forward == backward and len(forward) == 4
  assert len({s.color for s in forward.values()}) == 4
  assert len({s.marker for s in forward.values()}) == 4


def test_seeds_share_the_color_and_differ_in_line(make_run):
  runs = [make_run("A"), make_run("B"), make_run("A", 1)]
  first, other, second = look.styles(seeds.groups(runs))
  assert first.color == second.color != other.color
  assert first.line == other.line != second.line
  assert second.label == "A (seed 1)"


def test_labels_are_shown_letter_by_letter(make_run):
  runs = [make_run("_a costs $5 and $x_"), make_run("B")]
  figure = plots.draw_training_curves(runs)
  figure.draw_without_rendering()  # a broken formula would stop it
  texts = [text.get_text() for text in figure.legends[0].get_texts()]
  assert texts == [r" _a costs \$5 and \$x_", "B"]
