"""Figures by corruption: lines equal results, words stand where they should."""

import numpy as np
import pytest
from scipy import stats

from ram_jax.data import cifar_c
from ram_jax.report import corruption_plots as plots
from ram_jax.report import fourier_plots


def test_severity_draws_the_counts_with_clean_at_zero(make_full_run):
  names = [name for name in cifar_c.NAMES if name != "fog"]
  shown = [make_full_run("A"), make_full_run("B", names=names, shift=30)]
  figure = plots.draw_severity(shown, (*plots.EXAMPLES, "no_such"))
  titles = [axes.get_title() for axes in figure.axes]
  assert titles == ["gaussian noise", "glass blur", "fog", "jpeg compression"]
  first, _, fog, last = figure.axes
  ours, theirs = first.get_lines()
  np.testing.assert_array_equal(ours.get_xdata(), range(6))
  want = [95, 88, 86, 84, 82, 80]
  np.testing.assert_allclose(ours.get_ydata(), want, rtol=1e-15)
  np.testing.assert_allclose(theirs.get_ydata(), np.add(want, 3), rtol=1e-15)
  assert [line.get_label() for line in fog.get_lines()] == ["A"]
  # jpeg compression is the 14th: 900 - 140 - 100 of 1000 at severity 5, so all
  # panels begin at 60.
  assert last.get_lines()[0].get_ydata()[-1] == pytest.approx(66)
  assert {axes.get_ylim() for axes in figure.axes} == {(60, 101)}
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ["A", "B"]


def test_severity_bands_are_over_images_or_seeds(make_full_run):
  shown = [make_full_run("A", seed, shift=10 * seed) for seed in (1, 2, 3)]
  figure = plots.draw_severity([*shown, make_full_run("B")], ("fog",))
  (axes,) = figure.axes
  seeds, images = (x.get_paths()[0].vertices for x in axes.collections)
  # At severity 1 fog (9) has 790 + shift: 80, 81, 82 -+ 2.484138.
  ends = seeds[seeds[:, 0] == 1, 1]
  want = [81 - 2.484138, 81 + 2.484138]
  np.testing.assert_allclose([ends.min(), ends.max()], want, atol=1e-5)
  ends = images[images[:, 0] == 1, 1]
  want = stats.binomtest(790, 1000).proportion_ci(method="wilson")
  bounds = [100 * want.low, 100 * want.high]
  np.testing.assert_allclose([ends.min(), ends.max()], bounds, atol=1e-10)
  assert "95 % intervals shaded" in figure.get_suptitle()


def test_missing_severities_and_clean_leave_gaps(make_full_run):
  rows = [
    {"corruption": "fog", "severity": s, "correct": 5, "total": 10}
    for s in (2, 5)
  ]
  part = {"label": "some", "by_corruption": rows}
  run = make_full_run("A", corruption=part, clean=None)
  (axes,) = plots.draw_severity([run], ("fog",)).axes
  np.testing.assert_array_equal(axes.get_lines()[0].get_xdata(), [2, 5])
  with pytest.raises(ValueError, match="measured on snow: set config"):
    plots.draw_severity([run], ("snow",))


def test_heat_map_writes_values_and_differences(make_full_run):
  names = [name for name in cifar_c.NAMES if name != "snow"]
  shown = [make_full_run("A"), make_full_run("B", names=names, shift=-25)]
  axes, bar = plots.draw_heat_map(shown, shown[0]).axes
  texts = {t.get_position(): t.get_text() for t in axes.texts}
  rows = [label.get_text() for label in axes.get_yticklabels()]
  assert rows[3:5] == ["speckle noise", "defocus blur"] and len(rows) == 19
  assert [x.get_text() for x in axes.get_xticklabels()] == ["A", "B"]
  # Speckle noise is the 15th: 84 - 15.
  assert (texts[0, 3], texts[1, 3]) == ("69.0", "66.5 (-2.5)")
  assert (texts[0, rows.index("snow")], texts[1, rows.index("snow")]) == (
    "77.0",
    "-",
  )
  values = axes.images[0].get_array()
  assert values[3, 1] == pytest.approx(-2.5, abs=1e-12)
  assert axes.images[0].get_clim() == (-5, 5)  # noise does not glare
  assert bar.get_xlabel() == "difference to A (points)"
  alone, bar = plots.draw_heat_map(shown).axes
  assert alone.images[0].get_array()[3, 1] == pytest.approx(66.5, abs=1e-12)
  assert alone.images[0].get_clim() == (60, 90)
  with pytest.raises(ValueError, match="none of the runs"):
    plots.draw_heat_map([make_full_run("C", corruption=None)])


def test_fourier_maps_are_means_over_seeds(make_full_run):
  wrong = np.full((8, 8), 40).tolist()
  other = {"norm": 4.0, "total": 100, "wrong": wrong}
  # The rule: 20 (|y - 4| + |x - 4|) of 200; and 40 of 100 everywhere.
  shown = [make_full_run("A"), make_full_run("A", 1, fourier=other)]
  figure = fourier_plots.draw_fourier([*shown, make_full_run("B")])
  mean, single, _ = figure.axes
  assert mean.get_title() == "A (2 seeds)"
  assert mean.images[0].get_array()[4, 4] == pytest.approx(20, abs=1e-12)
  assert single.images[0].get_array()[0, 2] == pytest.approx(60, abs=1e-12)
  clims = {axes.images[0].get_clim() for axes in (mean, single)}
  assert clims == {(0, 80)}
  far = make_full_run("C", fourier=other | {"norm": 1.0})
  with pytest.raises(ValueError, match=r"norms \[1.0, 4.0\]"):
    fourier_plots.draw_fourier([shown[0], far])


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
@pytest.mark.parametrize("shape", [(2, 5, 4, 6, 3), (3, 2, 32, 32, 1)])
def test_contact_sheet_shows_every_pixel_in_its_place(shape, kind):
  images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
  given = images if kind == np.uint8 else images / 255
  names = [f"name_{i}" for i in range(shape[0])]
  (axes,) = plots.draw_contact_sheet(given, names).axes
  sheet = np.asarray(axes.images[0].get_array())
  sheet = sheet.reshape(*sheet.shape[:2], -1)
  rows, columns = axes.get_yticks(), axes.get_xticks()
  assert (len(rows), len(columns)) == shape[:2]
  for k, y in enumerate(rows):
    for s, x in enumerate(columns):
      top, left = round(y - (shape[2] - 1) / 2), round(x - (shape[3] - 1) / 2)
      cell = sheet[top : top + shape[2], left : left + shape[3]]
      np.testing.assert_array_equal(cell, images[k, s] / 255)
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert labels == [f"name {i}" for i in range(shape[0])]


@pytest.mark.parametrize(
  "images, count",
  [
    (np.zeros((1, 5, 4, 4)), 1),
    (np.zeros((1, 5, 4, 4, 3)), 2),
    (np.full((1, 5, 4, 4, 3), 255.0), 1),
    (np.zeros((0, 5, 4, 4, 3)), 0),
  ],
)
def test_contact_sheet_refuses_what_is_none(images, count):
  with pytest.raises(ValueError, match="K names"):
    plots.draw_contact_sheet(images, ["a"] * count)


def test_no_words_overlap_with_seven_long_labels(make_full_run):
  labels = [f"A method with quite a long label, number {i}" for i in range(7)]
  shown = [make_full_run(label) for label in labels]
  figure = plots.draw_severity(shown, ("fog",))
  figure.draw_without_rendering()
  (legend,) = figure.legends
  box = legend.get_window_extent()
  assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
  assert not box.overlaps(figure.axes[0].get_tightbbox())
  figure = plots.draw_heat_map(shown)
  figure.draw_without_rendering()
  axes = figure.axes[0]
  boxes = [x.get_window_extent() for x in axes.get_xticklabels()]
  boxes += [x.get_window_extent() for x in axes.get_yticklabels()]
  assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
  assert all(b.x0 >= 0 and b.y1 <= figure.bbox.y1 for b in boxes)


def test_names_of_a_contact_sheet_are_not_cut_off():
  names = list(cifar_c.NAMES)
  images = np.zeros((len(names), 5, 32, 32, 3))
  figure = plots.draw_contact_sheet(images, names)
  figure.draw_without_rendering()
  for label in figure.axes[0].get_yticklabels():
    assert label.get_window_extent().x0 >= 0, label.get_text()
