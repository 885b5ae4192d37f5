"""Where numbers come from: configurations, data, machines."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ram_jax.report import seeds
from ram_jax.report.cells import NOT_MEASURED
from ram_jax.report.table import Table
from ram_jax.runs.results import Run

# What the table of origins or the notes show already.
SHOWN_ELSEWHERE = ("name", "seed", "weights.notes")
# Digits that tell fingerprints apart.
DIGITS = 12


def differences(runs: Sequence[Run]) -> Table | None:
  """The fields in which the configurations differ.

  Args:
    runs: the runs; those whose results hold no configuration are left out.

  Returns:
    One row per field, one column per configuration; None where nothing differs
    or fewer than two are known.

  Raises:
    ValueError: no run, or a run given twice.
  """
  groups = [g for g in seeds.groups(runs) if "config" in g.runs[0].results]
  known = [
    [seeds.flat(run.results["config"]) for run in group.runs]
    for group in groups
  ]
  names = sorted({n for configs in known for c in configs for n in c})
  rows = []
  for name in names:
    cells = [
      " / ".join(dict.fromkeys(_value(config, name) for config in configs))
      for configs in known
    ]
    if name not in SHOWN_ELSEWHERE and len(set(cells)) > 1:
      rows.append((name, *cells))
  if not rows:
    return None
  header = ("field", *(group.label for group in groups))
  return Table(header, tuple(rows), ("-: the configuration has no such field",))


def origins(runs: Sequence[Run]) -> Table:
  """Where each run's numbers come from.

  Args:
    runs: the runs.

  Returns:
    One row per run, as far as its results say: name, seed, length of training,
    device, data. Footnotes: versions, and who they are of where they differ.
  """
  rows, versions = [], {}
  labels = seeds.labels([(run,) for run in runs])
  for label, run in zip(labels, runs, strict=True):
    about = run.results["run"]
    device = run.results.get("device", {})
    seconds = run.results.get("timing", {}).get("train_seconds")
    cells = (
      about["name"],
      about["seed"],
      about.get("epochs"),
      about.get("step"),
      None if seconds is None else f"{seconds / 60:.1f}",
      device and f"{device.get('count')} x {device.get('kind')}",
      *(_data(run.results, split) for split in ("train", "test")),
    )
    texts = (str(c) if c not in (None, {}) else NOT_MEASURED for c in cells)
    rows.append((label, *texts))
    said = run.results.get("versions", {}).items()
    text = ", ".join(f"{name} {version}" for name, version in said)
    versions.setdefault(text, []).append(label)
  header = (
    *("run", "name", "seed", "epochs", "steps", "training (minutes)"),
    *("device", "training data", "test data"),
  )
  notes = [
    text if len(who) == len(rows) else f"({', '.join(who)}) {text}"
    for text, who in versions.items()
    if text
  ]
  if any("data" in run.results for run in runs):
    notes.append("data: number of images, SHA-256 of images and labels")
  return Table(header, tuple(rows), tuple(notes))


def complete(run: Run) -> str:
  """A run's whole configuration and versions as indented JSON."""
  keys = ("run", "config", "versions", "device", "data", "timing")
  tree = {key: run.results[key] for key in keys if key in run.results}
  return json.dumps(tree, indent=2, ensure_ascii=False)


def _value(config: Mapping[str, Any], name: str) -> str:
  if name not in config:
    return NOT_MEASURED
  value = config[name]
  return value if isinstance(value, str) and value else json.dumps(value)


def _data(results: Mapping[str, Any], split: str) -> str | None:
  found = results.get("data", {}).get(split)
  if not found:
    return None
  fingerprint = found.get("fingerprint", "").removeprefix("sha256:")
  return f"{found.get('size')}: {fingerprint[:DIGITS]}"
