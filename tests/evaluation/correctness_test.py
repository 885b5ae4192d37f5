"""Counts and bits are those of the arrays, under the agreed names."""

import numpy as np

from ram_jax.evaluation import correctness
from ram_jax.runs import results

RIGHT = np.arange(13) % 3 == 0  # five of thirteen


def test_counts_and_bits_by_name(tmp_path):
  row = {"correct": RIGHT, "total": 13}
  bits = {}
  clean = correctness.counted(
    row | {"calibration": {"rms": 0.5}}, "clean", bits
  )
  assert clean == {"correct": 5, "total": 13, "calibration": {"rms": 0.5}}
  rows = [{"epsilon": epsilon} | row for epsilon in (0.25, 1.0)]
  measured = {"attack": {"steps": 3}, "by_epsilon": rows}
  found = correctness.counted(measured, "adversarial", bits)
  assert found["attack"] == {"steps": 3}
  assert found["by_epsilon"][1] == {"epsilon": 1.0, "correct": 5, "total": 13}
  row = {"corruption": "fog", "severity": 5, "correct": ~RIGHT, "total": 13}
  correctness.counted({"by_corruption": [row]}, "corruption", bits)
  map_of_counts = {"norm": 4.0, "wrong": [[1, 2]], "total": 2}
  assert correctness.counted(map_of_counts, "fourier", bits) == map_of_counts
  path = tmp_path / "new" / "correct.npz"
  results.write_arrays(bits, path)
  saved = np.load(path)
  names = ["clean", "adversarial/0.25", "adversarial/1.0", "corruption/fog/5"]
  assert saved.files == names
  for name in names:
    unpacked = np.unpackbits(saved[name], count=13).astype(bool)
    np.testing.assert_array_equal(unpacked, RIGHT ^ (name[:3] == "cor"))
  assert [p.name for p in path.parent.iterdir()] == ["correct.npz"]
