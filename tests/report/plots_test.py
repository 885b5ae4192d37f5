"""Figures: lines equal results, words stand where a reader looks."""

import json

import numpy as np
import PIL.Image
import pytest
from scipy import stats

from ram_jax.report import plots
from ram_jax.runs import results as runs


def _lines(axes):
  return {line.get_label(): line for line in axes.get_lines()}


def test_adversarial_accuracy_draws_the_counts(make_run):
  rows = {"Standard": ((0.0, 190), (0.25, 80), (1.0, 2), (8.0, 0))}
  rows["AugMix"] = ((0.0, 180), (0.25, 100), (1.0, 9), (8.0, 1))
  shown = [make_run(label, rows=r, n=200) for label, r in rows.items()]
  figure = plots.draw_adversarial_accuracy(shown)
  (axes,) = figure.axes
  assert list(_lines(axes)) == ["Standard", "AugMix"]
  for (label, line), band in zip(
    _lines(axes).items(), axes.collections, strict=True
  ):
    np.testing.assert_array_equal(line.get_xdata(), [0.0, 0.25, 1.0, 8.0])
    values = [c / 2 for _, c in rows[label]]
    np.testing.assert_allclose(line.get_ydata(), values, rtol=1e-15)
    vertices = band.get_paths()[0].vertices
    for epsilon, correct in rows[label]:
      ends = vertices[vertices[:, 0] == epsilon, 1]
      want = stats.binomtest(correct, 200).proportion_ci(method="wilson")
      bounds = [100 * want.low, 100 * want.high]
      np.testing.assert_allclose([ends.min(), ends.max()], bounds, atol=1e-10)


def test_adversarial_accuracy_says_what_it_shows(make_run):
  shown = [make_run("A", rows=((0.0, 9), (0.5, 5), (2.0, 1)))]
  figure = plots.draw_adversarial_accuracy(shown)
  (axes,) = figure.axes
  assert axes.get_title() == "Accuracy under PGD-10 (L2)\nCIFAR-10, wrn_10_1"
  assert axes.get_xlabel() == r"$\epsilon$ (L2 norm, pixels in [0, 1])"
  assert "accuracy (%)" in axes.get_ylabel()
  ticks = [label.get_text() for label in axes.get_xticklabels()]
  assert ticks == ["0\n(clean)", "0.5", "2"]
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ["A"]


def test_doublings_are_equally_far_apart_down_to_zero(make_run):
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


def test_clean_accuracy_stands_at_zero_where_zero_was_not_attacked(make_run):
  clean = {"correct": 9, "total": 10}
  attacked = make_run("A", rows=((1.0, 30),), clean=clean)
  unattacked = make_run("B", adversarial=None)
  figure = plots.draw_adversarial_accuracy([attacked, unattacked])
  (line,) = figure.axes[0].get_lines()
  np.testing.assert_array_equal(line.get_xydata(), [[0, 90], [1, 30]])


def test_different_norms_and_no_attack_are_refused(make_run):
  row = {"epsilon": 1.0, "correct": 1, "total": 10}
  attack = {"name": "PGD-10", "norm": "linf"}
  linf = make_run("B", adversarial={"attack": attack, "by_epsilon": [row]})
  with pytest.raises(ValueError, match="'l2', 'linf'"):
    plots.draw_adversarial_accuracy([make_run("A"), linf])
  with pytest.raises(ValueError, match="attacked in one norm"):
    plots.draw_adversarial_accuracy([make_run("A", adversarial=None)])


def _log(run, key, values):
  rows = [
    {"step": i, "epoch": i / 10, key: float(v)} for i, v in enumerate(values)
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


def test_training_curves_without_metrics_are_refused(make_run):
  with pytest.raises(ValueError, match="metrics.jsonl is missing"):
    plots.draw_training_curves([make_run("A", logs=0)])


@pytest.mark.parametrize("channels", [1, 3])
def test_views_draw_the_pixels_in_order(channels):
  images = np.random.default_rng(0).random((2, 3, 4, 5, channels))
  rows = (("clean", images[0]), ("AugMix", images[1]))
  figure = plots.draw_views(rows)
  assert len(figure.axes) == 6
  for i, axes in enumerate(figure.axes):
    (shown,) = axes.images
    want = images[i // 3, i % 3]
    np.testing.assert_array_equal(np.squeeze(shown.get_array()), want.squeeze())
    assert shown.get_interpolation() == "nearest"
    assert shown.get_clim() == (0, 1)
  assert [a.get_ylabel() for a in figure.axes[::3]] == ["clean", "AugMix"]


@pytest.mark.parametrize(
  "rows, words",
  [
    ((), "no grid"),
    ((("a", np.zeros((2, 4, 4, 3))), ("b", np.zeros((1, 4, 4, 3)))), "1, 2"),
    ((("a", np.zeros((4, 4, 3))),), r"\(4, 4, 3\)"),
    ((("a", np.full((1, 4, 4, 3), 255)),), "row 'a'"),
    ((("a", np.full((1, 4, 4, 3), np.nan)),), "row 'a'"),
    ((("a", np.zeros((0, 4, 4, 3))),), "row 'a'"),
  ],
)
def test_views_refuse_what_is_no_grid_of_images(rows, words):
  with pytest.raises(ValueError, match=words):
    plots.draw_views(rows)


def test_files_are_png_of_sane_size(make_run, tmp_path):
  labels = [f"A method with quite a long label, number {i}" for i in range(4)]
  shown = [make_run(label) for label in labels]
  folder = tmp_path / "new" / "figures"
  images = np.random.default_rng(0).random((4, 32, 32, 3))
  paths = [
    plots.adversarial_accuracy(shown, folder / "a.png"),
    plots.training_curves(shown, folder / "b.png"),
    plots.views(folder / "c.png", [("clean", images), ("noise", images)]),
  ]
  assert paths == [folder / f"{name}.png" for name in "abc"]
  for path in paths:
    with PIL.Image.open(path) as image:
      assert image.format == "PNG"
      assert min(image.size) > 300 and max(image.size) < 2500


@pytest.mark.parametrize("draw", ["adversarial_accuracy", "training_curves"])
def test_no_words_overlap_with_four_long_labels(make_run, draw):
  labels = [f"A method with quite a long label, number {i}" for i in range(4)]
  shown = [make_run(label) for label in labels]
  figure = getattr(plots, f"draw_{draw}")(shown)
  figure.draw_without_rendering()
  (legend,) = figure.legends
  box = legend.get_window_extent()
  assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
  for axes in figure.axes:
    assert not box.overlaps(axes.get_tightbbox())
  texts = [text.get_window_extent() for text in legend.get_texts()]
  assert not any(a.overlaps(b) for i, a in enumerate(texts) for b in texts[:i])
