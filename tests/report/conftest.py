"""Run folders with results made up for tests."""

import json

import pytest

from ram_jax.report import runs


@pytest.fixture
def make_run(tmp_path):
  """Writes a run's folder and loads it; arguments override its results."""

  def make(label, seed=0, rows=((0.0, 95), (1.0, 40)), n=100, logs=3, **parts):
    name = label.lower().replace(" ", "_")
    folder = tmp_path / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    results = {
      "schema": 1,
      "run": {
        "name": f"{name}-{seed}",
        "label": label,
        "model": "wrn_10_1",
        "data_label": "CIFAR-10",
        "seed": seed,
        "epochs": 4,
        "step": 12,
      },
      "device": {"kind": "cpu", "count": 1},
      "clean": {"correct": rows[0][1], "total": n},
      "adversarial": {
        "attack": {"name": "PGD-10", "norm": "l2", "step_size": "0.4 epsilon"},
        "by_epsilon": [
          {"epsilon": e, "correct": c, "total": n} for e, c in rows
        ],
      },
      "notes": ["PGD-10, not AutoAttack"],
    }
    results |= parts
    results = {k: v for k, v in results.items() if v is not None}
    (folder / "results.json").write_text(json.dumps(results))
    lines = [
      {"step": 10 * i, "epoch": i / 2, "loss": 2.0 - i, "accuracy": i / 10}
      for i in range(logs)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return runs.load(folder)

  return make


@pytest.fixture
def corruption():
  """Two corruptions at two severities: accuracies .9, .7, .5, .4 (mean .625).

  Unequal totals tell the mean of accuracies from the pooled one (70 / 130).
  """
  counts = ((9, 10), (7, 10), (5, 10), (40, 100))
  cells = (("fog", 1), ("fog", 2), ("snow", 1), ("snow", 2))
  return {
    "label": "CIFAR-10-C",
    "by_corruption": [
      {"corruption": name, "severity": s, "correct": c, "total": n}
      for (name, s), (c, n) in zip(cells, counts, strict=True)
    ],
  }
