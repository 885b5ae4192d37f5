"""Edges, distances and histograms equal OpenCV's."""

import pathlib

import jax
import numpy as np

from ram_jax.corruptions import edges

# Made with OpenCV 5.0 from eight images of 28x45: drops of several sizes, one
# without an edge, one of rectangles. Canny(50, 150); distanceTransform(DIST_L2,
# 5) to the edges, at most 20; equalizeHist of its whole pixels.
ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = np.load(ROOT / "corruptions" / "golden" / "edges.npz")


def each(function, name):
  images = GOLDEN[name]
  images = images if images.dtype == bool else images.astype(np.int32)
  return np.asarray(jax.jit(jax.vmap(function))(images))


def test_canny_equals_opencv():
  found = each(lambda image: edges.canny(image, 50, 150), "drops")
  np.testing.assert_array_equal(found, GOLDEN["edges"])
  assert 0.05 < found.mean() < 0.5


def test_distance_equals_opencv(x64):
  found = each(lambda image: edges.distance(image, 20), "edges") / edges.PARTS
  # It adds up steps in float32.
  np.testing.assert_allclose(found, GOLDEN["distances"], rtol=1e-6)
  assert len(np.unique(found)) > 100


def test_equalize_equals_opencv():
  found = each(lambda image: edges.equalize(image, 21), "whole")
  np.testing.assert_array_equal(found, GOLDEN["equalized"])


def test_correlate_reflects_borders():
  kernel = ((0, 1, 0), (0, 0, 0), (0, 0, 2))  # above, and below on the right
  image = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.int32)
  # Reflected without the border itself: rows 4 | 1 4 7 | 4, columns alike.
  found = jax.jit(lambda image: edges.correlate(image, kernel))(image)
  assert found.tolist() == [[14, 17, 16], [17, 20, 19], [14, 17, 16]]
