"""What evaluators yield, collected for tests."""

import pathlib

import jax

from ram_jax.runs import results


def batch(images, labels):
  """A test set, as evaluators expect it."""
  return {"images": images, "labels": labels}


def collect(evaluator, model, images, labels, key=None):
  """Runs an evaluator; returns its rows and notes as a run, and its pictures.

  Args:
    evaluator: built.
    model: the model.
    images: uint8 [N,H,W,C].
    labels: int32 [N].
    key: for what is random.
  """
  key = jax.random.key(0) if key is None else key
  data = batch(images, labels)
  parts = list(evaluator.results(model, data, key, lambda _, f: f()))
  run = results.collect(pathlib.Path(), {}, parts)
  pictures = [p for p in parts if isinstance(p, results.Picture)]
  return run, {p.name: p.images for p in pictures}


def rows(run, evaluator, **settings):
  """The rows of an evaluator that have these settings."""
  return [
    row
    for row in run.rows
    if row.evaluator == evaluator and settings.items() <= row.settings.items()
  ]


def row(run, evaluator, **settings):
  """The only one."""
  (found,) = rows(run, evaluator, **settings)
  return found


def notes(run, level=None):
  """Texts of the notes, of one level or of all."""
  return [n.text for n in run.notes if level in (None, n.level)]
