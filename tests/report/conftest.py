"""Run folders with results made up for tests."""

import itertools
import json
import re

import numpy as np
import pytest

from ram_jax.contracts import Note, Row
from ram_jax.corruptions import CORRUPTIONS, SEVERITIES
from ram_jax.evaluation import fourier
from ram_jax.report import page, plots
from ram_jax.runs import results as runs

NAMES = tuple(CORRUPTIONS)

# A label of a user's; as a script it would end the page.
HOSTILE = '</title><script>document.body.remove()</script> | $x_ & "y"'


def maker(root):
  """Writes a run's folder and loads it; arguments override its head."""

  def make(
    label,
    seed=0,
    rows=((0.0, 95), (1.0, 40)),
    n=100,
    logs=3,
    found=(),
    norm="l2",
    **head,
  ):
    """Writes results and metrics.

    Args:
      label: of the run's method.
      seed: of the run.
      rows: (epsilon, correct images of n) each; the first is clean, too.
      n: test images.
      logs: lines of metrics.jsonl.
      found: further rows, notes and pictures.
      norm: of the attack.
      **head: parts of results.json; None leaves one out.
    """
    name = re.sub(r"\W+", "_", label.lower())
    folder = root / f"{name}-{seed}"
    about = {
      "name": f"{name}-{seed}",
      "method": name,
      "label": label,
      "model": "wrn_10_1",
      "data_label": "CIFAR-10",
      "seed": seed,
      "epochs": 4,
      "step": 12,
    }
    head = {"run": about, "device": {"kind": "cpu", "count": 1}} | head
    attack = {"attack": "PGD-10", "norm": norm, "relative_step_size": 0.4}
    parts = [Row("clean", {}, n, rows[0][1])] if rows else []
    parts += [
      Row("adversarial", attack | {"epsilon": e}, n, c) for e, c in rows
    ]
    clean = [
      part for part in found if getattr(part, "evaluator", "") == "clean"
    ]
    parts = [*parts[1:], *found] if clean else [*parts, *found]
    note = Note("PGD-10, not AutoAttack")
    head = {k: v for k, v in head.items() if v is not None}
    runs.write(folder, head, [*parts, note])
    lines = [
      {"step": 10 * i, "epoch": i / 2, "loss": 2.0 - i, "accuracy": i / 10}
      | {"timing": {"seconds": 1.0}}
      for i in range(logs)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return runs.load(folder)

  return make


def full_maker(make_run):
  """A run with every evaluator; correct images fall by rule, of 1000.

  Corruption i (0 to 18, the benchmark's order) at severity s: 900 - 10 i - 20 s
  + shift. Mean over severities: 84.0 - i + shift / 10 percent. Over the first
  15 i is 7 in the mean, over the other 4 it is 16.5, over all 9.
  """

  def make(label, seed=0, shift=0, names=NAMES, found=(), **parts):
    clean = {"rms": 0.05, "ece": 0.04, "nll": 0.5, "brier": 0.2}
    full = [Row("clean", {}, 1000, 950 + shift, values=clean)]
    for name, s in itertools.product(names, SEVERITIES):
      settings = {"corruption": name, "severity": s, "images": "CIFAR-10-C"}
      correct = 900 - 10 * NAMES.index(name) - 20 * s + shift
      values = {"rms": s / 50, "ece": s / 100, "nll": s / 2, "brier": 1}
      full.append(Row("corruption", settings, 1000, correct, values=values))
    # Errors rise with the frequency, 0 in the middle and 160 in the corner.
    for y, x in fourier.half_plane(8, 8):
      settings = {"wave_norm": 4.0, "y": y, "x": x}
      full.append(Row("fourier", settings, 200, 200 - 20 * (abs(y) + abs(x))))
    head = {
      "config": {
        "name": label,
        "seed": seed,
        "dataset": {"folder": f"DATA{seed}"},
        "method": {"name": label},
        "evaluate": {"images": 1000},
      },
      "versions": {"python": "3.11", "jax": "0.10.2"},
      "data": {
        "test": {"size": 1000, "fingerprint": "sha256:abcdef0123456789"}
      },
      "timing": {"train_seconds": 90.0},
    }
    rest = head | parts
    return make_run(label, seed, n=1000, found=(*full, *found), **rest)

  return make


@pytest.fixture
def make_run(tmp_path):
  """Makes runs in folders of the test."""
  return maker(tmp_path)


@pytest.fixture
def make_full_run(make_run):
  """Makes runs that have every evaluator."""
  return full_maker(make_run)


@pytest.fixture(scope="session")
def report(tmp_path_factory):
  """The files of a report of four configurations, one of them of three seeds.

  It takes seconds, so it is written once.
  """
  root = tmp_path_factory.mktemp("report")
  make = full_maker(maker(root))
  names = [name for name in NAMES if name != "frost"]
  shown = [
    make(HOSTILE),
    make("Standard"),
    *(make("AugMix", seed, shift=10 * seed) for seed in range(3)),
    make("Robust", names=names, shift=-20),
  ]
  figures = shown[1].folder / "figures"
  images = np.zeros((5, 4, 4, 3), np.uint8)
  sheet = plots.draw_images([(name, images) for name in NAMES], "12345")
  figures.mkdir()
  plots.save(sheet, figures / "corruptions.png")
  paths = page.write_report(shown, root / "out", shown[1].folder)
  return {path.name: path for path in paths}


@pytest.fixture
def corruption():
  """Two corruptions at two severities: accuracies .9, .7, .5, .4 (mean .625).

  Unequal totals tell the mean of accuracies from the pooled one (70 / 130).
  """
  counts = ((9, 10), (7, 10), (5, 10), (40, 100))
  cells = (("fog", 1), ("fog", 2), ("snow", 1), ("snow", 2))
  return [
    Row(
      "corruption",
      {"corruption": c, "severity": s, "images": "CIFAR-10-C"},
      n,
      k,
    )
    for (c, s), (k, n) in zip(cells, counts, strict=True)
  ]
