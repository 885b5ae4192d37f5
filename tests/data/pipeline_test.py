import dataclasses
import re

import numpy as np
import pytest

from ram_jax.data import pipeline, sanity

IMAGES = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
LABELS = np.array([0, 1, 2, 1, 1], np.int32)


@dataclasses.dataclass(frozen=True)
class Fixed:
  images: np.ndarray
  labels: np.ndarray
  num_classes: int = 3
  label: str = "Fixed"

  def load(self, split):
    return self.images, self.labels


def test_each_epoch_is_a_different_permutation():
  orders = {
    (seed, epoch): tuple(pipeline.epoch_order(seed, epoch, 101))
    for seed in range(3)
    for epoch in range(3)
  }
  for order in orders.values():
    assert sorted(order) == list(range(101))
  assert len(set(orders.values())) == 9
  assert orders[1, 2] == tuple(pipeline.epoch_order(1, 2, 101))


def test_order_never_changes():
  # NumPy guarantees Philox's stream, so these recorded values never change.
  assert pipeline.epoch_order(0, 0, 8).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
  assert pipeline.epoch_order(7, 3, 8).tolist() == [7, 1, 6, 0, 4, 2, 3, 5]


def test_every_position_is_equally_likely():
  places = [
    int(np.flatnonzero(pipeline.epoch_order(0, epoch, 4) == 0)[0])
    for epoch in range(4000)
  ]
  # 1000 each; five standard deviations of sqrt(4000 * 1/4 * 3/4) = 27.
  assert np.abs(np.bincount(places) - 1000).max() < 137


def test_steps_of_an_epoch_share_no_example_and_follow_its_order():
  rows = pipeline.batch_indices(seed=3, step=4, count=4, size=9, batch_size=2)
  assert rows.dtype == np.int32
  # Step 4 is the first of epoch 1; the ninth example is dropped.
  np.testing.assert_array_equal(rows.ravel(), pipeline.epoch_order(3, 1, 9)[:8])


@pytest.mark.parametrize("first", range(1, 7))
def test_any_dispatch_boundary_gives_the_same_steps(first):
  arguments = dict(seed=1, size=7, batch_size=3)
  whole = pipeline.batch_indices(step=0, count=7, **arguments)
  parts = [
    pipeline.batch_indices(step=0, count=first, **arguments),
    pipeline.batch_indices(step=first, count=7 - first, **arguments),
  ]
  np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_steps_per_epoch_of_the_paper():
  assert pipeline.steps_per_epoch(50000, 128) == 390
  assert pipeline.steps_per_epoch(128, 128) == 1


@pytest.mark.parametrize("batch_size", [0, 6])
def test_no_whole_batch(batch_size):
  with pytest.raises(
    ValueError, match=f"5 examples are too few for a batch of {batch_size}"
  ):
    pipeline.batch_indices(0, 0, 1, 5, batch_size)


def test_fingerprint_sees_every_part():
  prints = {
    pipeline.fingerprint(IMAGES, LABELS),
    pipeline.fingerprint(IMAGES.reshape(5, 2, 8, 3), LABELS),
    pipeline.fingerprint(IMAGES[::-1], LABELS),
    pipeline.fingerprint(IMAGES, LABELS[::-1]),
    pipeline.fingerprint(IMAGES, LABELS.view(np.uint32)),
  }
  assert len(prints) == 5
  strided = IMAGES.copy(order="F")
  assert pipeline.fingerprint(strided, LABELS) in prints
  assert all(len(p) == len("sha256:") + 64 for p in prints)


@pytest.mark.parametrize(
  ("images", "labels", "message"),
  [
    (IMAGES / 255, LABELS, r"float64 \[5, 4, 4, 3\], expected non-empty uint8"),
    (IMAGES[..., :1], LABELS, r"\[5, 4, 4, 1\], expected non-empty uint8"),
    (IMAGES, LABELS[:4], r"int32 \[4\], expected int32 \[5\]"),
    (IMAGES, LABELS.astype(np.int64), "labels are int64"),
    (IMAGES[:0], LABELS[:0], r"uint8 \[0, 4, 4, 3\], expected non-empty"),
    (IMAGES, LABELS + 1, r"label 3 at index 2 is outside 0..2 .*labels: 1$"),
    (IMAGES, LABELS - 1, r"label -1 at index 0 is outside 0..2"),
  ],
)
def test_wrong_data_is_named(images, labels, message):
  with pytest.raises(ValueError, match=message):
    pipeline.load(Fixed(images, labels), "train")


@pytest.mark.parametrize(("limit", "kept"), [(0, 5), (2, 2), (5, 5)])
def test_limit_keeps_the_first(limit, kept):
  images, labels = pipeline.load(Fixed(IMAGES, LABELS), "test", limit)
  np.testing.assert_array_equal(images, IMAGES[:kept])
  np.testing.assert_array_equal(labels, LABELS[:kept])


@pytest.mark.parametrize("limit", [-1, 6])
def test_limit_out_of_range(limit):
  with pytest.raises(ValueError, match=f"limit {limit} is outside 0..5"):
    pipeline.load(Fixed(IMAGES, LABELS), "train", limit)


@pytest.mark.parametrize(
  "labels, counts, expected",
  [
    # Sorted by class.
    (np.repeat(np.arange(10), 100), {"a": 200, "b": 0, "c": 1000}, ["a"]),
    (np.repeat(np.arange(10), 100), {"a": 99, "b": 500}, ["a", "b"]),
    (np.tile(np.arange(10), 100), {"a": 10}, []),
    # Half of 100 classes are expected in 70 random images.
    (np.random.default_rng(0).integers(0, 100, 5000), {"a": 70}, []),
    (np.random.default_rng(0).integers(0, 10, 5000), {"a": 32, "b": 8}, []),
  ],
)
def test_subsets_without_some_classes_cause_a_warning(labels, counts, expected):
  found = sanity.subset_warnings(labels.astype(np.int32), counts)
  assert len(found) == bool(expected)
  named = re.findall(r"\((\w)\)", "".join(found))
  assert named == expected
