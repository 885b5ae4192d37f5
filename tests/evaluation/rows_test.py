"""Rows are computed from arrays, and are read back as they were written."""

import numpy as np
import pytest

from ram_jax.contracts import Note, Picture, Row
from ram_jax.evaluation import rows
from ram_jax.runs import results

RIGHT = np.arange(13) % 3 == 0  # five of thirteen


def made(**settings):
  return rows.row("adversarial", settings, {"correct": RIGHT})


def test_row_of_arrays():
  finite = np.arange(13) > 1
  found = {"correct": RIGHT, "finite": finite, "values": {"rms": 0.5}}
  row = rows.row("clean", {}, found)
  assert (row.total, row.correct_count) == (13, 5)
  assert row.values == {"rms": 0.5, "not_finite": 2}
  assert row.key == "clean"
  assert made(norm="l2", epsilon=0.5).key == "adversarial/epsilon=0.5/norm=l2"


HEAD = {
  "run": {
    "name": "a-0",
    "method": "a",
    "label": "A",
    "model": "M",
    "data_label": "D",
    "seed": 0,
  }
}


def test_read_as_written(tmp_path):
  folder = tmp_path / "new"
  attacked = made(attack="PGD-10", norm="l2", epsilon=0.5)
  wave = Row("fourier", {"y": 0, "x": 1}, 3, 2)
  fog = {"corruption": "fog", "severity": 3, "images": "C"}
  fog = Row("corruption", fog, 13, 8, ~RIGHT, {"rms": 0.25})
  notes = (Note("how"), Note("odd", "warning"))
  picture = Picture("views/clean", np.arange(12, dtype=np.uint8))
  found = [attacked, notes[0], wave, picture, fog, notes[1]]
  results.write(folder, HEAD, found)
  run = results.load(folder)
  assert run.head == {"schema": results.SCHEMA} | HEAD
  assert run.notes == notes
  for row, wanted in zip(run.rows, (attacked, wave, fog), strict=True):
    assert (row.key, row.values) == (wanted.key, wanted.values)
    counts = (wanted.total, wanted.correct_count)
    assert (row.total, row.correct_count) == counts
  correct = run.correct
  assert list(correct) == [attacked.key, fog.key]
  np.testing.assert_array_equal(correct[attacked.key], RIGHT)
  np.testing.assert_array_equal(correct[fog.key], ~RIGHT)
  pictures = results.read_pictures(folder)
  np.testing.assert_array_equal(pictures["views"]["clean"], np.arange(12))
  names = {"results.json", "results.csv", "correct.npz", "pictures.npz"}
  assert {path.name for path in folder.iterdir()} == names


def test_frame_and_csv(tmp_path):
  fog = {"corruption": "fog", "severity": 3, "images": "C"}
  row = Row("corruption", fog, 8, 6, values={"rms": 0.25})
  for name in ("a", "b"):
    results.write(tmp_path / name, HEAD, [made(epsilon=0.5), row])
  with pytest.raises(ValueError, match="without a valid attack"):
    results.load(tmp_path / "a")
  attacked = made(epsilon=0.5, attack="PGD-10", norm="l2")
  for name in ("a", "b"):
    results.write(tmp_path / name, HEAD, [attacked, row])
  runs = [results.load(tmp_path / name) for name in ("a", "b")]
  frame = results.frame(runs)
  assert frame.run.tolist() == [0, 0, 1, 1]
  fogs = frame[frame.severity == 3]
  assert fogs.accuracy.tolist() == [0.75, 0.75]
  assert fogs.correct.tolist() == [6, 6] and fogs.rms.tolist() == [0.25, 0.25]
  text = (tmp_path / "a" / "results.csv").read_text()
  assert text.splitlines() == [
    "name,method,label,model,data_label,seed,evaluator,epsilon,attack,norm,"
    "corruption,severity,images,total,correct,accuracy,rms",
    "a-0,a,A,M,D,0,adversarial,0.5,PGD-10,l2,,,,13,5,0.38461538461538464,",
    "a-0,a,A,M,D,0,corruption,,,,fog,3,C,8,6,0.75,0.25",
  ]


def test_duplicate_rows(tmp_path):
  with pytest.raises(ValueError, match="'adversarial/epsilon=1.0'"):
    results.write(tmp_path, HEAD, [made(epsilon=1.0), made(epsilon=1.0)])
  assert not list(tmp_path.iterdir())


def test_arrays_from_another_evaluation(tmp_path):
  attacked = made(epsilon=0.5, attack="PGD-10", norm="l2")
  results.write(tmp_path, HEAD, [attacked])
  run = results.load(tmp_path)
  for array in (~RIGHT, RIGHT[:-1], RIGHT.astype(int)):
    np.savez(tmp_path / "correct.npz", **{attacked.key: array})
    with pytest.raises(ValueError, match="different evaluations.*epsilon=0.5"):
      run.correct.keys()
  np.savez(tmp_path / "correct.npz", other=RIGHT)
  with pytest.raises(ValueError, match="different evaluations.*other"):
    run.correct.keys()
  (tmp_path / "correct.npz").write_bytes(b"PK")
  with pytest.raises(ValueError, match="damaged"):
    run.correct.keys()
