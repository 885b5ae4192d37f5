"""Reads run folders, intact and damaged."""

import json

import pytest

from ram_jax.runs import results as runs


def test_loads_what_was_written(make_run):
  run = make_run("AugMix", rows=((0.0, 95), (1.0, 40), (0.25, 80)), n=200)
  assert run.folder.name == "augmix-0" and run.about["label"] == "AugMix"
  assert [m["step"] for m in run.metrics] == [0, 10, 20]
  assert [(r.evaluator, r.correct_count, r.total) for r in run.rows] == [
    ("clean", 95, 200),
    ("adversarial", 95, 200),
    ("adversarial", 40, 200),
    ("adversarial", 80, 200),
  ]


@pytest.mark.parametrize(
  "damage, error, words",
  [
    (lambda f: (f / "results.json").unlink(), FileNotFoundError, "no results"),
    (lambda f: (f / "results.json").write_text(""), ValueError, "valid JSON"),
    (
      lambda f: (f / "results.json").write_bytes(
        (f / "results.json").read_bytes()[:-20]
      ),
      ValueError,
      "valid JSON",
    ),
    (
      lambda f: (f / "results.json").write_bytes(b"\xff\xfe"),
      ValueError,
      "valid JSON",
    ),
    (
      lambda f: (f / "results.json").write_text('{"schema": NaN}'),
      ValueError,
      "NaN is not a JSON number",
    ),
    (
      lambda f: (f / "results.json").write_text("[]"),
      ValueError,
      "schema None, not 2",
    ),
    (
      lambda f: (f / "results.json").write_text('{"schema": 1}'),
      ValueError,
      "schema 1, not 2",
    ),
  ],
)
def test_damaged_results_are_rejected(make_run, damage, error, words):
  folder = make_run("AugMix").folder
  damage(folder)
  with pytest.raises(error, match=words) as caught:
    runs.load(folder)
  message = str(caught.value)
  assert f"--mode=evaluate --workdir={folder}" in message
  assert "\n" not in message and "results.json" in message


@pytest.mark.parametrize(
  "path, value, words",
  [
    (("run",), {"name": "a"}, "run has no 'method'"),
    (("run",), 3, "wrong type"),
    (("run", "seed"), "0", "run.seed has the wrong type: '0'"),
    (("rows", 0, "correct"), 201, "clean needs integers"),
    (("rows", 0, "correct"), 0.9, "clean needs integers"),
    (("rows", 0, "correct"), True, "clean needs integers"),
    (("rows", 0, "total"), 0, "clean needs integers"),
    (("rows", 1, "settings"), {}, "l has a row without a valid attack"),
    (("rows", 1, "settings", "norm"), 2, "l has a row without a valid norm"),
    (("rows", 1, "settings", "epsilon"), -1, "epsilon >= 0"),
    (("rows", 1, "settings", "epsilon"), "1", "row without a valid epsilon"),
    (("rows", 0, "settings"), {"a": None}, "clean has a setting a of None"),
    (
      ("rows", 0, "values"),
      {"rms": None},
      "clean needs a finite number for rms",
    ),
    (
      ("rows", 0, "values"),
      {"rms": 10**400},
      "clean needs a finite number for rms",
    ),
    (("rows", 0, "evaluator"), None, "a row's evaluator is None"),
    (("rows", 0, "evaluator"), "corruption", "row without a valid corruption"),
    (("rows", 0, "evaluator"), "fourier", "row without a valid y"),
    (("rows", 2, "settings", "epsilon"), 0.0, "norm=l2.* occurs twice"),
    (("rows",), None, "wrong type"),
    (("notes",), [{"text": 1, "level": "info"}], "contain an invalid note"),
    (("notes",), [{"text": "a"}], "contain an invalid note"),
  ],
)
def test_incomplete_results_are_rejected(make_run, path, value, words):
  folder = make_run("AugMix", n=200).folder
  tree = json.loads((folder / "results.json").read_text())
  holder = tree
  for key in path[:-1]:
    holder = holder[key]
  holder[path[-1]] = value
  (folder / "results.json").write_text(json.dumps(tree))
  with pytest.raises(ValueError, match=words):
    runs.load(folder)


def test_missing_folder_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="no run folder .*nowhere"):
    runs.load(tmp_path / "nowhere")


def test_half_written_last_line_is_tolerated(make_run):
  run = make_run("AugMix")
  path = run.folder / "metrics.jsonl"
  whole = path.read_bytes()
  for half in (b'{"step": 30, "ep', b'{"step": 30, "a": "\xc3', b"{}"):
    path.write_bytes(whole + half)
    assert runs.load(run.folder).metrics == run.metrics
  path.unlink()
  assert runs.load(run.folder).metrics == []
