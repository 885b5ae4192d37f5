"""Reading run folders, whole and damaged."""

import json
import re

import pytest

from ram_jax.runs import results as runs


def test_loads_what_was_written(make_run):
  run = make_run("AugMix", rows=((1.0, 40), (0.25, 80), (0.0, 95)), n=200)
  assert run.folder.name == "augmix-0" and run.label == "AugMix"
  assert [m["step"] for m in run.metrics] == [0, 10, 20]
  assert runs.clean(run.results) == (40, 200)
  by_epsilon = runs.adversarial(run.results)
  assert list(by_epsilon.items()) == [
    (0.0, (95, 200)),
    (0.25, (80, 200)),
    (1.0, (40, 200)),
  ]
  assert runs.clean({}) is None and runs.adversarial({}) == {}


@pytest.mark.parametrize(
  "damage, error, words",
  [
    (lambda f: (f / "results.json").unlink(), FileNotFoundError, "no results"),
    (lambda f: (f / "results.json").write_text(""), ValueError, "whole JSON"),
    (
      lambda f: (f / "results.json").write_bytes(
        (f / "results.json").read_bytes()[:-20]
      ),
      ValueError,
      "whole JSON",
    ),
    (
      lambda f: (f / "results.json").write_bytes(b"\xff\xfe"),
      ValueError,
      "whole JSON",
    ),
    (
      lambda f: (f / "results.json").write_text('{"schema": NaN}'),
      ValueError,
      "NaN is no number of JSON",
    ),
    (
      lambda f: (f / "results.json").write_text("[]"),
      ValueError,
      "schema None, not 1",
    ),
    (
      lambda f: (f / "results.json").write_text('{"schema": 2}'),
      ValueError,
      "schema 2, not 1",
    ),
  ],
)
def test_damaged_results_are_refused(make_run, damage, error, words):
  folder = make_run("AugMix").folder
  damage(folder)
  with pytest.raises(error, match=words) as caught:
    runs.load(folder)
  message = str(caught.value)
  assert f"--mode=evaluate --workdir={folder}" in message
  assert "\n" not in message and "results.json" in message


@pytest.mark.parametrize(
  "parts, words",
  [
    ({"run": {"name": "a"}}, "run has no 'label'"),
    ({"run": 3}, "wrong kind"),
    ({"clean": {"correct": 11, "total": 10}}, "clean needs whole numbers"),
    ({"clean": {"correct": 0, "total": 0}}, "clean needs whole numbers"),
    ({"clean": {"correct": 0.9, "total": 1}}, "clean needs whole numbers"),
    ({"clean": {"correct": True, "total": 1}}, "clean needs whole numbers"),
    ({"adversarial": {"attack": {"name": "a", "norm": "l2"}}}, "'by_epsilon'"),
    (
      {
        "adversarial": {
          "attack": {"name": "a"},
          "by_epsilon": [{"epsilon": 0, "correct": 1, "total": 1}],
        }
      },
      "attack has no 'norm'",
    ),
    (
      {
        "adversarial": {
          "attack": {"name": "a", "norm": "l2"},
          "by_epsilon": [{"epsilon": -1, "correct": 1, "total": 1}],
        }
      },
      "epsilon >= 0",
    ),
    ({"corruption": {"by_corruption": [{}]}}, "corruption needs whole"),
    (
      {"corruption": {"by_corruption": [{"correct": 1, "total": 1}]}},
      "without name and severity",
    ),
    (
      {"clean": {"correct": 1, "total": 1, "calibration": {"rms": None}}},
      "numbers in 'calibration'",
    ),
    ({"fourier": {"wrong": [[1, 2], [3]], "total": 4}}, "fourier needs rows"),
    ({"fourier": {"wrong": [[1, 5]], "total": 4}}, "fourier needs rows"),
    ({"fourier": {"total": 4}}, "wrong kind"),
  ],
)
def test_incomplete_results_are_refused(make_run, parts, words):
  with pytest.raises(ValueError, match=words):
    make_run("AugMix", **parts)


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
  path.write_bytes(whole + b'{"step": 30, "epoch": 2}')
  assert runs.load(run.folder).metrics[-1] == {"step": 30, "epoch": 2}
  path.unlink()
  assert runs.load(run.folder).metrics == []


@pytest.mark.parametrize(
  "line",
  [
    "{broken",
    "[1]",
    '{"epoch": 1}',
    "null",
    '{"step": 1, "epoch": 1, "loss": NaN}',
  ],
)
def test_other_damage_of_metrics_is_refused(make_run, line):
  run = make_run("AugMix")
  path = run.folder / "metrics.jsonl"
  lines = path.read_text().splitlines(keepends=True)
  path.write_text("".join([lines[0], line + "\n", *lines[1:]]))
  with pytest.raises(ValueError, match=re.escape("damaged in line 2")):
    runs.load(run.folder)


def test_steps_logged_again_after_a_resume_count_once(make_run):
  run = make_run("AugMix")
  with open(run.folder / "metrics.jsonl", "a") as file:
    for step, loss in ((10, 7.0), (15, 7.5), (20, 8.0), (30, 9.0)):
      file.write(json.dumps({"step": step, "epoch": 0, "loss": loss}) + "\n")
  metrics = runs.load(run.folder).metrics
  assert [m["step"] for m in metrics] == [0, 10, 15, 20, 30]
  assert [m["loss"] for m in metrics] == [2.0, 7.0, 7.5, 8.0, 9.0]
