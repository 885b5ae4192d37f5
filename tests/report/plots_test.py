"""Figures: lines equal the results, and text is readable."""

import json

import numpy as np
import PIL.Image
import pytest
from scipy import stats

from ram_jax.contracts import Row
from ram_jax.corruptions import CORRUPTIONS
from ram_jax.evaluation import fourier
from ram_jax.report import groups as grouping
from ram_jax.report import plots
from ram_jax.runs import results as runs

LONG = "A method with quite a long label, number"


def _lines(axes):
  return {line.get_label(): line for line in axes.get_lines()}


def _ends(axes, place):
  """Ends of the bands at an x coordinate, in the order of the lines."""
  for band in axes.collections:
    vertices = band.get_paths()[0].vertices
    ends = vertices[vertices[:, 0] == place, 1]
    yield ends.min(), ends.max()


def test_adversarial_accuracy_draws_the_counts(make_run):
  rows = {"Standard": ((0.0, 190), (0.25, 80), (1.0, 2), (8.0, 0))}
  rows["AugMix"] = ((0.0, 180), (0.25, 100), (1.0, 9), (8.0, 1))
  shown = [make_run(label, rows=r, n=200) for label, r in rows.items()]
  (axes,) = plots.draw_adversarial_accuracy(shown).axes
  assert list(_lines(axes)) == ["Standard", "AugMix"]
  for label, line in _lines(axes).items():
    np.testing.assert_array_equal(line.get_xdata(), [0.0, 0.25, 1.0, 8.0])
    values = [c / 2 for _, c in rows[label]]
    np.testing.assert_allclose(line.get_ydata(), values, rtol=1e-15)
  for i, (epsilon, _) in enumerate(rows["AugMix"]):
    for ends, row in zip(_ends(axes, epsilon), rows.values(), strict=True):
      want = stats.binomtest(row[i][1], 200).proportion_ci(method="wilson")
      bounds = [100 * want.low, 100 * want.high]
      np.testing.assert_allclose(ends, bounds, atol=1e-10)


def test_adversarial_accuracy_says_what_it_shows(make_run):
  shown = [make_run("A", rows=((0.0, 9), (0.5, 5), (2.0, 1)))]
  figure = plots.draw_adversarial_accuracy(shown)
  (axes,) = figure.axes
  assert axes.get_title() == "Accuracy under PGD-10 L2"
  assert r"$\ell_2$" in axes.get_xlabel()
  assert axes.get_ylabel() == "accuracy (%)"
  ticks = [label.get_text() for label in axes.get_xticklabels()]
  assert ticks == ["clean", "0.5", "2"]
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ["A"]


def test_epsilon_axis_is_logarithmic_and_includes_zero(make_run):
  rows = ((0.0, 9), (0.25, 8), (0.5, 7), (1.0, 6), (2.0, 5), (4.0, 1))
  (axes,) = plots.draw_adversarial_accuracy([make_run("A", rows=rows)]).axes
  places = axes.transData.transform([(e, 0) for e, _ in rows])[:, 0]
  steps = np.diff(places)
  np.testing.assert_allclose(steps, steps[0], rtol=1e-9)


def test_names_of_crowded_epsilons_are_thinned(make_run):
  rows = tuple((i / 2, 50 - i) for i in range(17))
  (axes,) = plots.draw_adversarial_accuracy([make_run("A", rows=rows)]).axes
  names = [label.get_text() for label in axes.get_xticklabels()]
  assert len(names) == 17 and 5 <= sum(map(bool, names)) <= 12


def _attack(name, norm, epsilon, correct):
  settings = {"attack": name, "norm": norm, "epsilon": epsilon}
  return Row("adversarial", settings, 100, correct)


def test_clean_accuracy_is_at_zero_if_epsilon_0_was_not_evaluated(make_run):
  found = [Row("clean", {}, 100, 90), _attack("PGD-10", "l2", 1.0, 30)]
  shown = [make_run("A", rows=(), found=found)]
  shown.append(make_run("B", rows=(), found=found[:1]))
  (axes,) = plots.draw_adversarial_accuracy(shown).axes
  (line,) = axes.get_lines()
  np.testing.assert_array_equal(line.get_xydata(), [[0, 90], [1, 30]])


def test_norms_have_panels_and_attacks_have_lines(make_run):
  found = [_attack("PGD-100", "l2", 1.0, 30), _attack("PGD-10", "linf", 0.5, 9)]
  figure = plots.draw_adversarial_accuracy([make_run("A", found=found)])
  first, second = figure.axes
  assert list(_lines(first)) == ["A, PGD-10 L2", "A, PGD-100 L2"]
  points = _lines(first)["A, PGD-100 L2"].get_xydata()
  np.testing.assert_array_equal(points, [[0, 95], [1, 30]])
  assert second.get_title() == "Accuracy under PGD-10 Linf"
  np.testing.assert_array_equal(
    second.get_lines()[0].get_xydata(), [[0, 95], [0.5, 9]]
  )


def test_no_data_gives_no_figure(make_run):
  bare = [make_run("A", rows=(), logs=0)]
  assert plots.draw_adversarial_accuracy(bare) is None
  assert plots.draw_severity(bare, plots.EXAMPLES) is None
  assert plots.draw_fourier(bare) is None
  assert plots.draw_training_curves(bare) is None


def test_severity_draws_the_counts_with_clean_at_zero(make_full_run):
  names = [name for name in CORRUPTIONS if name != "fog"]
  shown = [make_full_run("A"), make_full_run("B", names=names, shift=30)]
  figure = plots.draw_severity(shown, (*plots.EXAMPLES, "no_such"))
  titles = [axes.get_title() for axes in figure.axes]
  assert titles == ["gaussian noise", "glass blur", "fog", "jpeg compression"]
  first, _, fog, last = figure.axes
  one, other = first.get_lines()
  np.testing.assert_array_equal(one.get_xdata(), range(6))
  want = [95, 88, 86, 84, 82, 80]
  np.testing.assert_allclose(one.get_ydata(), want, rtol=1e-15)
  np.testing.assert_allclose(other.get_ydata(), np.add(want, 3), rtol=1e-15)
  assert [line.get_label() for line in fog.get_lines()] == ["A"]
  # jpeg compression is the 14th: 900 - 140 - 100 of 1000 at severity 5, so all
  # panels begin at 60.
  assert last.get_lines()[0].get_ydata()[-1] == pytest.approx(66)
  assert {axes.get_ylim() for axes in figure.axes} == {(60, 100)}
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ["A", "B"]


def test_severity_bands_are_over_images_or_seeds(make_full_run):
  shown = [make_full_run("A", seed, shift=10 * seed) for seed in (1, 2, 3)]
  (axes,) = plots.draw_severity([*shown, make_full_run("B")], ("fog",)).axes
  seeds, images = _ends(axes, 1)
  # At severity 1 fog (9) has 790 + shift: 80, 81, 82 -+ 2.484138.
  np.testing.assert_allclose(seeds, [81 - 2.484138, 81 + 2.484138], atol=1e-5)
  want = stats.binomtest(790, 1000).proportion_ci(method="wilson")
  bounds = [100 * want.low, 100 * want.high]
  np.testing.assert_allclose(images, bounds, atol=1e-10)


def test_missing_severities_and_clean_leave_gaps(make_run):
  rows = [
    Row(
      "corruption", {"corruption": "fog", "severity": s, "images": "x"}, 10, 5
    )
    for s in (2, 5)
  ]
  run = make_run("A", rows=(), found=rows)
  (axes,) = plots.draw_severity([run], ("fog",)).axes
  np.testing.assert_array_equal(axes.get_lines()[0].get_xdata(), [2, 5])


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 7), (32, 32), (28, 28)])
def test_fourier_map_has_both_halves(make_run, size):
  rows = [
    Row("fourier", {"wave_norm": 4.0, "y": y, "x": x}, 200, abs(3 * y + x))
    for y, x in fourier.half_plane(*size)
  ]
  axes, _ = plots.draw_fourier([make_run("A", found=rows)]).axes
  found = axes.images[0].get_array()
  assert found.shape == size
  for y in range(-(size[0] // 2), size[0] - size[0] // 2):
    for x in range(-(size[1] // 2), size[1] - size[1] // 2):
      got = found[y + size[0] // 2, x + size[1] // 2]
      opposite = [
        (-f + n // 2) % n - n // 2 for f, n in zip((y, x), size, strict=True)
      ]
      counts = [abs(3 * y + x), abs(3 * opposite[0] + opposite[1])]
      assert any(got == pytest.approx(100 - c / 2) for c in counts)


def test_fourier_maps_are_means_over_seeds(make_full_run):
  # The rule: 20 (|y| + |x|) of 200 wrong; and 40 of 100 everywhere.
  other = [
    Row("fourier", {"wave_norm": 4.0, "y": y, "x": x}, 100, 60)
    for y, x in fourier.half_plane(8, 8)
  ]
  one, two = make_full_run("A"), make_full_run("A", 1)
  keep = tuple(row for row in two.rows if row.evaluator != "fourier")
  two = runs.Run(two.folder, two.head, (*keep, *other), (), [])
  figure = plots.draw_fourier([one, two, make_full_run("B")])
  mean, single, _ = figure.axes
  assert mean.get_title() == "A (2 seeds)"
  assert mean.images[0].get_array()[4, 4] == pytest.approx(20, abs=1e-12)
  assert single.images[0].get_array()[0, 2] == pytest.approx(60, abs=1e-12)
  clims = {axes.images[0].get_clim() for axes in (mean, single)}
  assert clims == {(0, 80)}


def test_waves_of_different_norms_have_separate_panels(make_full_run):
  far = [
    Row("fourier", {"wave_norm": 1.0, "y": 0, "x": x}, 9, 9) for x in (-1, 0)
  ]
  far.append(Row("fourier", {"wave_norm": 1.0, "y": -1, "x": -1}, 9, 9))
  figure = plots.draw_fourier([make_full_run("A", found=far)])
  first, second, _ = figure.axes
  assert "wave norm 4.0" in first.get_title().replace("\n", " ")
  assert "wave norm 1.0" in second.get_title().replace("\n", " ")


def test_incomplete_frequencies_are_rejected(make_run):
  rows = [
    Row("fourier", {"wave_norm": 4.0, "y": 0, "x": x}, 9, 9)
    for x in (-(10**12), 0)
  ]
  with pytest.raises(ValueError, match="are not one half of the plane"):
    plots.draw_fourier([make_run("A", found=rows)])


def _log(run, key, values):
  rows = [
    {"step": i, "epoch": i / 10, key: float(v), "timing": {"seconds": 1.0}}
    for i, v in enumerate(values)
  ]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (run.folder / "metrics.jsonl").write_text(text)
  return runs.load(run.folder)


def test_training_curves_draw_the_metrics(make_run):
  robust = _log(make_run("Robust"), "adversarial_accuracy", [0.1, 0.3])
  shown = [make_run("A"), robust, make_run("No metrics", logs=0)]
  figure = plots.draw_training_curves(shown)
  loss, accuracy, adversarial = figure.axes
  assert "loss" in loss.get_title() and "accuracy" in accuracy.get_title()
  assert "adversarial" in adversarial.get_title()
  assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
  data = _lines(loss)["A"].get_xydata()
  np.testing.assert_array_equal(data, [[0, 2], [0.5, 1], [1, 0]])
  data = _lines(accuracy)["A"].get_xydata()
  np.testing.assert_allclose(data, [[0, 0], [0.5, 10], [1, 20]], atol=1e-12)
  assert list(_lines(adversarial)) == ["Robust"]
  texts = [text.get_text() for text in figure.legends[0].get_texts()]
  assert texts == ["A", "Robust"]
  assert len(plots.draw_training_curves(shown[:1]).axes) == 2


def test_long_curves_are_averaged(make_run):
  run = _log(make_run("A"), "loss", np.arange(250.0))
  (axes,) = plots.draw_training_curves([run]).axes
  x, y = axes.get_lines()[0].get_data()
  # 250 values in groups of 3: 83 whole ones and the last value alone.
  means = [*(1 + 3 * np.arange(83)), 249]
  np.testing.assert_allclose(y, means, rtol=1e-14)
  np.testing.assert_allclose(x, np.divide(means, 10), rtol=1e-14)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_drawn_in_order(channels):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, 3, 4, 5, channels)).astype(np.uint8)
  figure = plots.draw_images((("clean", images[0]), ("x_y", images[1])), "abc")
  (axes,) = figure.axes
  (shown,) = axes.images
  sheet = np.asarray(shown.get_array())
  sheet = sheet.reshape(*sheet.shape[:2], -1)
  assert shown.get_interpolation() == "nearest"
  assert shown.get_clim() == (0, 255)
  rows, columns = axes.get_yticks(), axes.get_xticks()
  assert (len(rows), len(columns)) == (2, 3)
  for i, y in enumerate(rows):
    for j, x in enumerate(columns):
      top, left = round(y - 1.5), round(x - 2)
      cell = sheet[top : top + 4, left : left + 5]
      np.testing.assert_array_equal(cell, images[i, j])
  assert [x.get_text() for x in axes.get_yticklabels()] == ["clean", "x y"]


def test_files_are_png_of_reasonable_size(make_full_run, tmp_path):
  shown = [make_full_run(f"{LONG} {i}") for i in range(4)]
  images = np.zeros((4, 32, 32, 3), np.uint8)
  figures = [
    plots.draw_adversarial_accuracy(shown),
    plots.draw_severity(shown, plots.EXAMPLES),
    plots.draw_fourier(shown),
    plots.draw_training_curves(shown),
    plots.draw_images([("clean", images), ("noise", images)]),
  ]
  for i, figure in enumerate(figures):
    path = plots.save(figure, tmp_path / f"{i}.png")
    with PIL.Image.open(path) as image:
      assert image.format == "PNG"
      assert min(image.size) > 200 and max(image.size) < 2500


@pytest.mark.parametrize("count", [2, 4, 7])
def test_no_words_overlap_with_long_labels(make_full_run, count):
  shown = [make_full_run(f"{LONG} {i}") for i in range(count)]
  for figure in (
    plots.draw_adversarial_accuracy(shown),
    plots.draw_severity(shown, ("fog",)),
    plots.draw_training_curves(shown),
  ):
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
    for axes in figure.axes:
      assert not box.overlaps(axes.get_tightbbox())
    texts = [text.get_window_extent() for text in legend.get_texts()]
    assert not any(
      a.overlaps(b) for i, a in enumerate(texts) for b in texts[:i]
    )


VIEWS = ("clean", "AugMix", "adversarial, ε = 1", "perturbation × 10")


@pytest.mark.parametrize("names", [tuple(CORRUPTIONS), VIEWS])
def test_names_of_images_are_not_cut_off(names):
  images = np.zeros((8, 32, 32, 3), np.uint8)
  columns = "12345" if len(names) > len(VIEWS) else ()
  figure = plots.draw_images([(name, images) for name in names], columns)
  figure.draw_without_rendering()
  for label in figure.axes[0].get_yticklabels():
    assert label.get_window_extent().x0 >= 0, label.get_text()


def styles(*runs):
  groups = grouping.groups(runs)
  rows = grouping.frame(groups).query("epsilon == 0")
  return list(plots.styles(groups, grouping.series(rows)).values())


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
  assert second["label"] == "A (a-1)"


def test_series_of_a_method_never_look_alike(make_run):
  shown = styles(*(make_run("A", seed) for seed in range(9)))
  assert len({(s["linestyle"], s["marker"]) for s in shown}) == 9


def test_labels_are_shown_literally(make_run):
  runs = [make_run("_a costs $5 and $x_"), make_run("B")]
  figure = plots.draw_training_curves(runs)
  figure.draw_without_rendering()  # a broken formula would stop it
  texts = [text.get_text() for text in figure.legends[0].get_texts()]
  assert texts == [r" _a costs \$5 and \$x_", "B"]


def test_trade_off_has_a_point_per_configuration(make_full_run):
  def made(label, seed=0, shift=0, config="a"):
    attack = {"attack": "PGD-10", "norm": "l2", "relative_step_size": 0.4}
    row = Row("adversarial", attack | {"epsilon": 0.5}, 1000, 400 + shift)
    run = make_full_run(label, seed, shift, found=[row])
    run.head["config"]["method"]["weight"] = config
    return run

  shown = [made("Standard"), *(made("Robust", s, 10 * s) for s in range(3))]
  shown.append(make_full_run("Incomplete", names=("fog",)))
  figure = plots.draw_trade_off(shown)
  (axes,) = figure.axes
  assert axes.get_title() == "PGD-10 L2, epsilon 0.5"
  points = _lines(axes)
  # The mean over the benchmark's 15 corruptions; attacked: 40.0, 41.0, 42.0.
  np.testing.assert_allclose(points["Standard"].get_xydata(), [[77.0, 40.0]])
  (robust,) = (x for name, x in points.items() if name.startswith("Robust"))
  np.testing.assert_allclose(robust.get_xydata(), [[78.0, 41.0]])
  want = stats.t.interval(0.95, 2, 41.0, 1 / 3**0.5)
  ends = [c.get_segments()[0] for c in axes.collections]
  assert any(np.allclose(x, [[78.0, want[0]], [78.0, want[1]]]) for x in ends)
  # Means over fewer corruptions are not comparable.
  assert not any(name.startswith("Incomplete") for name in points)
  assert axes.get_xlabel() == "mean accuracy on 15 corruptions (%)"
  label = "published, AutoAttack"
  published = [x for x in axes.get_lines() if x.get_label() == label]
  found = [tuple(x.get_xydata()[0]) for x in published]
  # Gowal et al. on both leaderboards of RobustBench.
  assert any(np.allclose(x, (84.90, 74.50), atol=0.01) for x in found)
  texts = [text.get_text() for text in axes.texts]
  assert len(texts) == len(found) and "WRN-70-16" in texts


def test_trade_off_separates_sources_of_corrupted_images(make_run):
  def made(label, source, count):
    rows = [
      Row("corruption", settings | {"images": source}, 1000, count)
      for settings in (
        {"corruption": name, "severity": s}
        for name in plots.BENCHMARK
        for s in plots.SEVERITIES
      )
    ]
    return make_run(label, n=1000, rows=((0.0, 950), (0.5, 400)), found=rows)

  shown = [made("Standard", "files", 700), made("AugMix", "generated", 800)]
  first, second = plots.draw_trade_off(shown).axes
  for axes, source, label, mean in (
    (first, "files", "Standard", 70.0),
    (second, "generated", "AugMix", 80.0),
  ):
    text = f"mean accuracy on 15 corruptions: {source} (%)"
    assert axes.get_xlabel() == text
    np.testing.assert_allclose(_lines(axes)[label].get_xydata(), [[mean, 40.0]])


def test_attack_on_fewer_images_does_not_start_at_the_clean_accuracy(make_run):
  settings = {"attack": "AutoAttack", "norm": "l2"}
  found = [
    Row("autoattack", settings | {"epsilon": epsilon}, 100, count)
    for epsilon, count in ((0.01, 97), (0.5, 60))
  ]
  run = make_run("A", n=1000, rows=((0.0, 950), (0.5, 500)), found=found)
  (axes,) = plots.draw_adversarial_accuracy([run]).axes
  points = [line.get_xydata().tolist() for line in axes.get_lines()]
  assert [[0.01, 97.0], [0.5, 60.0]] in points
  assert [[0.0, 95.0], [0.5, 50.0]] in points


def test_many_settings_of_a_method_have_different_markers(make_full_run):
  runs = []
  for i in range(2 * len(plots.MARKERS)):
    config = {"name": f"x{i}", "method": {"weight": i}}
    run = make_full_run(f"A{i}", config=config)
    about = run.about | {"label": "A"}
    runs.append(make_full_run(f"A{i}", config=config, run=about))
  (axes,) = plots.draw_trade_off(runs).axes
  points = _lines(axes).values()
  looks = {(x.get_marker(), x.get_markerfacecolor()) for x in points}
  assert len(looks) == len(runs)


def test_trade_off_uses_the_usual_radius_and_needs_both(
  make_full_run, make_run
):
  assert plots.draw_trade_off([make_run("Standard")]) is None
  run = make_full_run("Standard", rows=((0.0, 95), (0.25, 50), (1.0, 40)))
  (axes,) = plots.draw_trade_off([run]).axes
  assert axes.get_title() == "PGD-10 L2, epsilon 0.25"
