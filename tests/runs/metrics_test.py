"""metrics.jsonl without gaps and duplicates, TensorBoard, the progress line."""

import io
import json
import struct

import pytest
from tensorboardX.proto import event_pb2

from ram_jax.runs import metrics

TIMING = {"seconds": 2.0, "images_per_second": 1234.5}
WHOLE = {"step": 8, "epoch": 2.0, "loss": 0.5, "timing": TIMING}


def row(step):
  return {"step": step, "epoch": step / 4, "loss": 1 / step, "timing": TIMING}


def write(folder, resumed_from, steps):
  writer = metrics.MetricWriter(folder, resumed_from)
  for step in steps:
    writer.write(row(step))
  writer.close()


def scalars(folder):
  """(tag, step, value) of TensorBoard's files, by its record format."""
  found = []
  for path in sorted((folder / "tensorboard").iterdir()):
    data = path.read_bytes()
    while data:
      (size,) = struct.unpack("<Q", data[:8])
      event = event_pb2.Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      for value in event.summary.value:
        found.append((value.tag, event.step, value.simple_value))
  return found


def test_lines_are_read_back(tmp_path):
  assert metrics.read(tmp_path / "metrics.jsonl") == []
  write(tmp_path, 0, [3, 6])
  assert metrics.read(tmp_path / "metrics.jsonl") == [row(3), row(6)]


def test_resumed_run_drops_later_lines(tmp_path):
  write(tmp_path, 0, [3, 4, 6, 7])
  write(tmp_path, 4, [6, 8])
  steps = [r["step"] for r in metrics.read(tmp_path / "metrics.jsonl")]
  assert steps == [3, 4, 6, 8]
  assert not list(tmp_path.glob("*.part"))


def test_tensorboard_has_the_scalars(tmp_path):
  write(tmp_path, 0, [4])
  assert scalars(tmp_path) == [
    ("epoch", 4, 1.0),
    ("loss", 4, 0.25),
    ("seconds", 4, 2.0),
    ("images_per_second", 4, 1234.5),
  ]


@pytest.mark.parametrize("rest", ['{"step": 6, "ti', "", "3", "[]", "{}"])
def test_last_line_of_a_killed_run_is_dropped(tmp_path, rest):
  path = tmp_path / "metrics.jsonl"
  path.write_text(json.dumps(row(3)) + "\n" + rest)
  assert metrics.read(path) == [row(3)]
  write(tmp_path, 3, [6])
  assert metrics.read(path) == [row(3), row(6)]


@pytest.mark.parametrize(
  "line",
  [
    '{"step": 6, "ti',
    "3",
    "null",
    '{"epoch": 1, "timing": {"seconds": 1}}',
    '{"step": "6", "epoch": 1, "timing": {"seconds": 1}}',
    '{"step": 6, "timing": {"seconds": 1}}',
    '{"step": 6, "epoch": 1, "timing": {}}',
    '{"step": 6, "epoch": 1, "timing": {"seconds": "1"}}',
    '{"step": 6, "epoch": 1, "loss": NaN, "timing": {"seconds": 1}}',
    "[" * 100_000,
  ],
)
def test_damaged_line_is_named(tmp_path, line):
  path = tmp_path / "metrics.jsonl"
  text = "\n".join([json.dumps(row(3)), line, json.dumps(row(8))])
  path.write_text(text)
  with pytest.raises(ValueError, match="damaged in line 2 .*: delete that l"):
    metrics.MetricWriter(tmp_path, 8)
  assert path.read_text() == text


@pytest.mark.parametrize(
  ("extra", "seconds_left", "line"),
  [
    ({}, None, "step 8/8 | epoch 2.00 | loss 0.500 | 1,234 images/s"),
    (
      {"accuracy": 0.25, "adversarial_accuracy": 0.125},
      3661.4,
      "step 8/8 | epoch 2.00 | loss 0.500 | accuracy 25.0% | adversarial 12.5%"
      " | 1,234 images/s | 1:01:01 left",
    ),
  ],
)
def test_progress_line(extra, seconds_left, line):
  assert metrics.progress_line(WHOLE | extra, 8, seconds_left) == line


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_progress_on_a_terminal_is_one_line():
  stream = Terminal()
  progress = metrics.Progress(8, stream)
  for step in (3, 6, 8):
    progress.show(row(step))
  text = stream.getvalue()
  assert text.count("\n") == 1 and text.endswith("\n")
  assert text.count("\r") == 3


def test_progress_without_a_terminal_is_occasional_lines(monkeypatch):
  clock = iter([100.0, 110.0, 120.0, 121.0])
  monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
  stream = io.StringIO()
  progress = metrics.Progress(10, stream)
  for step in (2, 4, 6, 10):  # the second comes too soon, the last never does
    progress.show(row(step))
  steps = [line.split("/")[0] for line in stream.getvalue().splitlines()]
  assert steps == ["step 2", "step 6", "step 10"]
  # From the first line at step 2: 20 s for 4 steps, so 20 s for 4 more.
  assert stream.getvalue().splitlines()[1].endswith("| 0:00:20 left")


def test_announcements_go_to_stderr(capsys):
  metrics.announce("evaluating: clean")
  out, err = capsys.readouterr()
  assert (out, err) == ("", "evaluating: clean\n")
