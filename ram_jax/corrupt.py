"""Writes a test set's corruptions to a folder, in CIFAR-10-C's layout."""

import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ram_jax import experiment, parallel, plugins
from ram_jax.data import generated, manifest, pipeline
from ram_jax.data.generated import Generator
from ram_jax.runs import folder as run_folder
from ram_jax.runs import metrics, provenance

# What the pixels depend on, beside our own version.
PACKAGES = ("jax", "jaxlib", "numpy", "pillow")
LABELS = "labels.npy"


def write(config: ConfigDict, out: str | pathlib.Path) -> dict[str, Any]:
  """Corrupts the test set of a config, or resumes it.

  `out` receives `<corruption>.npy` (uint8 [5N,H,W,3], severities 1 to 5 one
  after another), `labels.npy` ([5N]) and `manifest.json`, which names every
  finished file with its checksum. Each file is whole or absent.

  Args:
    config: complete; `dataset`, `evaluate` and `evaluators.corruption` count.
    out: the folder; made if missing.

  Returns:
    The manifest.

  Raises:
    ValueError: if the folder holds something else, or the config asks for what
      cannot be generated.
    OSError: if the folder cannot be written.
  """
  out = pathlib.Path(os.path.expanduser(out))
  config = experiment.resolve(config)
  generator, described = _prepare(config)
  found = _found(out, described)
  # A checksum is taken again: what was damaged since is made again.
  intact = {
    name: digest
    for name, digest in found["files"].items()
    if (out / name).is_file() and manifest.digest(out / name) == digest
  }
  names = generator.names()
  wanted = [name for name in names if f"{name}.npy" not in intact]
  missing = {
    name: reason
    for name, reason in generator.missing().items()
    if f"{name}.npy" not in intact
  }
  found |= {"files": intact, "missing": missing}
  if not wanted and LABELS in intact:
    metrics.announce(f"{out} is complete: nothing is left to do")
    return found
  _check_room(out, len(wanted) * len(generator.labels), generator.images[0])
  # The stated checksums are those of files that are there, at any time.
  _write_manifest(found, out)
  if LABELS not in intact:
    _finish(out, LABELS, _stacked_labels(generator.labels), found)
  for number, name in enumerate(wanted, start=1):
    metrics.announce(f"  {name} ({number} of {len(wanted)})")
    parts = [generator.load(name, s)[0] for s in generated.SEVERITIES]
    _finish(out, f"{name}.npy", np.concatenate(parts), found)
  return found


def describe(found: dict[str, Any]) -> str:
  """Says what a corrupted set holds and lacks.

  Args:
    found: the manifest.

  Returns:
    One line, and one for each corruption that is missing.
  """
  made, data = found["made_with"], found["made_with"]["data"]
  count = len(found["files"]) - 1  # one has the labels
  text = (
    f"{count} corruptions x 5 severities of {data['size']} images "
    f"({data['label']}), seed {made['seed']}"
  )
  rows = (f"\nMissing: {n}: {reason}" for n, reason in found["missing"].items())
  return text + "".join(rows)


def _prepare(config: ConfigDict) -> tuple[Generator, dict[str, Any]]:
  """What makes the images, and everything that they depend on."""
  batch_size = config.evaluate.batch_size
  parallel.check_batch_size(batch_size, "config.evaluate.batch_size")
  spec = config.evaluators.to_dict().get("corruption")
  if spec is None:
    raise ValueError(
      "config.evaluators has no corruption, whose fields say what is made: "
      "take a config that has it (configs/)"
    )
  if spec["folder"] or spec["tfds_dir"] or len(set(spec["severities"])) < 5:
    raise ValueError(
      "--mode=corrupt makes all five severities from the clean test images: "
      "leave config.evaluators.corruption.folder, tfds_dir and severities as "
      "they are in configs/default.py"
    )
  evaluator = plugins.build(
    "evaluator", spec, "config.evaluators.corruption", batch_size=batch_size
  )
  source = plugins.build("dataset", config.dataset)
  images, labels = pipeline.load(source, "test", config.evaluate.images)
  versions = provenance.versions(PACKAGES)
  described = {
    "seed": evaluator.seed,
    "versions": versions | {"corruptions": generated.VERSION},
    "platform": jax.default_backend(),  # devices round differently
    "data": {
      "label": source.label,
      "classes": source.num_classes,
      "image": list(images.shape[1:]),
      **pipeline.describe(images, labels),
    },
  }
  return evaluator.generator(images, labels), described


def _found(out: pathlib.Path, described: dict[str, Any]) -> dict[str, Any]:
  """The manifest that is there, or a new one."""
  if out.exists() and not out.is_dir():
    raise ValueError(f"--out={out} is a file: name a folder")
  found = manifest.read(out)
  if found is None:
    if any(out.glob("*.npy")):
      raise ValueError(
        f"--out={out} holds .npy files that were not made here: name another "
        "folder"
      )
    return {"schema": manifest.SCHEMA, "made_with": described, "files": {}}
  theirs = ConfigDict(described)
  if differ := run_folder.differences(found["made_with"], theirs):
    raise ValueError(
      f"--out={out} holds other images: {'; '.join(differ[:3])}. Name another "
      "folder, or give the same seed, data and versions to resume"
    )
  return found


def _check_room(out: pathlib.Path, count: int, image: np.ndarray) -> None:
  place = next(p for p in (out, *out.absolute().parents) if p.exists())
  if not os.access(place, os.W_OK | os.X_OK):
    raise ValueError(
      f"--out={out}: you may not write in {place}, name another folder"
    )
  needed = count * len(generated.SEVERITIES) * image.nbytes
  free = shutil.disk_usage(place).free
  if free < needed:
    raise ValueError(
      f"--out={out} needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are "
      "free there: make room, name another folder, or fewer corruptions with "
      "--config.evaluators.corruption.names"
    )


def _stacked_labels(labels: np.ndarray) -> np.ndarray:
  kind = np.uint8 if labels.max() < 256 else np.int32
  return np.tile(labels.astype(kind), len(generated.SEVERITIES))


def _finish(
  out: pathlib.Path, name: str, array: np.ndarray, found: dict[str, Any]
) -> None:
  """Writes a file whole, then its line of the manifest."""
  if not parallel.is_first_process():
    return
  part = out / f"{name}.part"
  try:
    with open(part, "wb") as file:
      np.save(file, array)
    part.replace(out / name)
  except OSError as error:
    part.unlink(missing_ok=True)
    raise OSError(
      f"cannot write {out / name} ({error.strerror or error}): make room or "
      "repair the folder, and the same command resumes"
    ) from error
  found["files"][name] = manifest.digest(out / name)
  _write_manifest(found, out)


def _write_manifest(found: dict[str, Any], out: pathlib.Path) -> None:
  if parallel.is_first_process():
    run_folder.write_json(found, out / manifest.NAME)
