"""Paired tests against SciPy, published numbers and all sign patterns."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from ram_jax.evaluation import correctness
from ram_jax.report import paired
from ram_jax.runs import results as runs

# Heights of Zea Mays, crossed less self-fertilised, in eighths of an inch:
# Darwin's pairs in Fisher, The Design of Experiments, 1935, section 17.
DARWIN = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)


def pairs(both, ours, theirs, neither):
  """Two rows of bits with the cells of a 2x2 table."""
  cells = (both, ours, theirs, neither)
  return (
    {"a": np.repeat([True, True, False, False], cells)},
    {"a": np.repeat([True, False, True, False], cells)},
  )


@pytest.mark.parametrize(
  "discordant", [(3, 1), (0, 5), (10, 2), (25, 40), (7, 7), (500, 590)]
)
def test_one_row_is_mcnemars_exact_test(discordant):
  found = paired.difference(*pairs(900, *discordant, 33), {"a": 1})
  expected = stats.binomtest(discordant[0], sum(discordant)).pvalue
  assert found.p == pytest.approx(expected, abs=1e-12)
  assert found.images == 933 + sum(discordant)


def test_p_by_hand():
  # 10 against 2: (C(12,0) + C(12,1) + C(12,2)) / 2^12 on either side.
  assert paired.difference(*pairs(4, 10, 2, 5), {"a": 1}).p == pytest.approx(
    2 * (1 + 12 + 66) / 4096, abs=1e-14
  )
  assert paired.difference(*pairs(4, 0, 0, 5), {"a": 1}).p == 1
  assert paired.difference(*pairs(0, 99, 0, 0), {"a": 1}).p == paired.P_FLOOR


def test_sign_flips_are_fishers():
  # Section 21: of 2^15 patterns 863 have a sum of 314 or more.
  assert sum(DARWIN) == 314
  found = paired.sign_flip_p(np.array(DARWIN))
  assert found == pytest.approx(2 * 863 / 2**15, abs=1e-14)


def test_several_rows_equal_all_patterns_of_signs():
  rng = np.random.default_rng(0)
  ours, theirs = (
    {name: rng.random(12) < p for name in "abc"} for p in (0.7, 0.4)
  )
  weights = {"a": 3, "b": 3, "c": -2}
  sums = sum(
    w * (ours[name].astype(int) - theirs[name]) for name, w in weights.items()
  )
  flipped = np.array(list(itertools.product((1, -1), repeat=12))) @ sums
  found = paired.difference(ours, theirs, weights)
  expected = np.mean(np.abs(flipped) >= abs(sums.sum()))
  assert 0.01 < expected < 0.9
  assert found.p == pytest.approx(expected, abs=1e-13)
  assert found.value == pytest.approx(sums.mean() / 6)


def test_many_images_and_rows_approach_the_normal():
  rng = np.random.default_rng(1)
  sums = rng.integers(-40, 42, 10_000)
  z = sums.sum() / math.sqrt((sums**2).sum())
  expected = 2 * stats.norm.sf(abs(z))
  assert paired.sign_flip_p(sums) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
  ("cells", "expected"),
  [
    # b and c of n, m = n + 2: (b - c) / m and
    # sqrt(b + c + 1 - (b - c)^2 / m) / m.
    ((60, 40, 20, 40), (20 / 162, math.sqrt(61 - 400 / 162) / 162)),
    ((50, 0, 0, 50), (0, 1 / 102)),
  ],
)
def test_interval_of_one_row_is_agresti_and_mins(cells, expected):
  found = paired.difference(*pairs(*cells), {"a": 1})
  centre, deviation = expected
  half = stats.norm.ppf(0.975) * deviation
  assert (found.low, found.high) == pytest.approx(
    (centre - half, centre + half)
  )
  assert found.value == (cells[1] - cells[2]) / sum(cells)


def test_images_are_the_samples():
  """A row that repeats tells nothing new; independent ones do."""
  ours, theirs = pairs(60, 40, 20, 40)
  once = paired.difference(ours, theirs, {"a": 1})
  copies = [{name: side["a"] for name in "abcde"} for side in (ours, theirs)]
  again = paired.difference(*copies, dict.fromkeys("abcde", 1))
  assert dataclasses.asdict(again) == pytest.approx(dataclasses.asdict(once))


def test_interval_covers_and_equals_that_of_a_bootstrap():
  rng = np.random.default_rng(2)
  hard = rng.random((1, 500))
  ours, theirs = (
    {str(s): row for s, row in enumerate(rng.random((5, 500)) * hard < p)}
    for p in (0.4, 0.35)
  )
  found = paired.difference(ours, theirs, dict.fromkeys(ours, 1))
  sums = sum(ours[s].astype(float) - theirs[s] for s in ours) / 5
  means = rng.choice(sums, (4000, 500)).mean(1)
  expected = np.quantile(means, (0.025, 0.975))
  # The quantiles of 4000 draws are good to 3 % of the width.
  assert (found.low, found.high) == pytest.approx(expected, abs=3e-3)


def test_numbers_of_images_must_agree():
  ours, _ = pairs(1, 1, 1, 1)
  with pytest.raises(ValueError, match="rows of 4, 8 images cannot be paired"):
    paired.difference(ours, pairs(2, 2, 2, 2)[0], {"a": 1})


def test_holm_by_hand():
  # Sorted .01 .02 .03 .5, times 4 3 2 1, and never falling.
  found = paired.holm([0.03, 0.01, 0.5, 0.02])
  assert found == pytest.approx([0.06, 0.04, 0.5, 0.06])
  assert paired.holm([0.8, 0.9]) == [1, 1] and paired.holm([]) == []


@pytest.fixture
def run(make_run):
  """Ten images: 9 right clean, 4 under attack; and their bits."""
  made = make_run("A", rows=((0.0, 9), (1.0, 4)), n=10)
  bits = {"clean": np.arange(10) < 9, "adversarial/1.0": np.arange(10) < 4}
  bits["adversarial/0.0"] = bits["clean"]
  packed = {name: np.packbits(row) for name, row in bits.items()}
  np.savez(made.folder / paired.NAME, **packed)
  return made, bits, packed


def test_bits_are_read(run):
  made, bits, _ = run
  found = paired.load(made)
  assert found.keys() == bits.keys()
  assert all(np.array_equal(found[name], bits[name]) for name in bits)


def test_what_an_evaluation_writes_is_read(make_run):
  right = np.random.default_rng(3).random((4, 37)) < 0.6
  cells = [{"corruption": "fog", "severity": 5, "correct": right[0]}]
  rows = zip((0.25, 8 / 255), right[1:3], strict=True)
  measured = {
    "corruption": {"label": "C", "by_corruption": cells},
    "adversarial": {
      "attack": {"name": "PGD-10", "norm": "l2"},
      "by_epsilon": [{"epsilon": e, "correct": row} for e, row in rows],
    },
    "clean": {"correct": right[3]},
  }
  for row in (
    measured["clean"],
    *cells,
    *measured["adversarial"]["by_epsilon"],
  ):
    row["total"] = 37
  bits = {}
  parts = {n: correctness.counted(m, n, bits) for n, m in measured.items()}
  made = make_run("A", **parts)
  runs.write_arrays(bits, made.folder / paired.NAME)
  names = [paired.corrupted("fog", 5)]
  names += [paired.attacked(0.25), paired.attacked(8 / 255), "clean"]
  found = paired.load(made)
  assert len(found) == 4
  for name, row in zip(names, right, strict=True):
    assert np.array_equal(found[name], row)


@pytest.mark.parametrize(
  ("row", "message"),
  [
    (None, "lacks 'clean' of the 10 images"),
    (np.zeros(3, np.uint8), "lacks 'clean' of the 10 images"),
    (np.zeros(2, np.int64), "lacks 'clean' of the 10 images"),
    (np.array([255, 0], np.uint8), "has 8 right in 'clean', results.json 9"),
  ],
)
def test_bits_of_another_evaluation_are_refused(run, row, message):
  made, _, packed = run
  packed |= {"clean": row}
  np.savez(
    made.folder / paired.NAME,
    **{name: row for name, row in packed.items() if row is not None},
  )
  with pytest.raises(ValueError, match=message):
    paired.load(made)


def test_damaged_and_absent_files_say_so(run):
  path = run[0].folder / paired.NAME
  whole = path.read_bytes()
  changed = whole.replace(b"\xff", b"\0")
  np.save(path.with_suffix(".npy"), np.zeros(3))
  array = path.with_suffix(".npy").read_bytes()
  for data in (b"", b"PK\x03\x04", whole[:-30], changed, array):
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged .*write it with --mode"):
      paired.load(run[0])
  path.unlink()
  with pytest.raises(FileNotFoundError, match="need .*write it with --mode"):
    paired.load(run[0])


def test_test_images_must_be_the_same(make_run):
  def made(label, fingerprint):
    return make_run(label, data={"test": {"fingerprint": fingerprint}})

  paired.check_images(made("A", "sha256:1"), made("B", "sha256:1"))
  with pytest.raises(ValueError, match="a-0 and c-0 .* sha256:1 and sha256:2"):
    paired.check_images(made("A", "sha256:1"), made("C", "sha256:2"))
  with pytest.raises(ValueError, match="fingerprints None and None"):
    paired.check_images(make_run("D"), make_run("E"))
