"""Versions and devices with which a run was trained."""

import json

import jax
import pytest

from configs import digits
from ram_jax.contracts import Note
from ram_jax.evaluation import loop as evaluate
from ram_jax.runs import provenance


def test_each_is_named_once_in_order(monkeypatch, tmp_path):
  assert provenance.trained_with(tmp_path) == []
  now = provenance.environment()
  later = {
    "versions": now["versions"] | {"jax": "9.9"},
    "device": now["device"] | {"count": 99},
  }
  lost = now | {"device": {"platform": "none"}}  # nothing of it was saved
  steps = ((0, lost), (0, now), (4, now), (8, lost), (8, lost), (5, later))
  for step, what in (*steps, (9, now)):
    monkeypatch.setattr(provenance, "environment", lambda what=what: what)
    provenance.record(tmp_path, step)
  with open(tmp_path / provenance.FILE, "a") as file:
    for odd in ('{"step": 1e999', "[" * 9999, '{"step": 3, "versions": 4}'):
      file.write(f"\n{odd}")
    file.write('\n{"step": 10, "vers')  # killed
  found = provenance.trained_with(tmp_path)
  assert found == [now, later]
  changed = provenance.changes(found)
  count = jax.device_count()
  assert changed == [f"jax {jax.__version__}, then 9.9"] + [
    f"device count {count}, then 99"
  ]


def test_changes_are_noted():
  found = [provenance.environment(), provenance.environment()]
  found[1]["versions"]["jax"] = "9.9"
  config = digits.get_config("smoke")
  head = {"run": {"method": "robust_augmix", "step": 4}, "data": {}}
  notes = list(evaluate.notes(config, head | {"trained_with": found}))
  changed = f"jax {jax.__version__}, then 9.9"
  text = f"changed during training: {changed}"
  assert Note(text, "warning") in notes
  assert "changed during" not in str(list(evaluate.notes(config, head)))


@pytest.mark.parametrize("found", [[], [provenance.environment()]])
def test_nothing_changed(found):
  assert provenance.changes(found) == []


def test_versions_are_those_installed():
  here = provenance.environment()
  assert here["versions"]["jax"] == jax.__version__
  assert here["device"]["platform"] == jax.default_backend()
  assert json.loads(json.dumps(here)) == here
