"""Writes a test set's corruptions to a folder, in CIFAR-10-C's layout."""

import os
import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ram_jax import corruptions, experiment, parallel, plugins
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
  found["files"] = files = {
    name: digest
    for name, digest in found["files"].items()
    if (out / name).is_file() and manifest.digest(out / name) == digest
  }
  missing = generator.missing().items()
  found["missing"] = {n: why for n, why in missing if f"{n}.npy" not in files}
  wanted = [name for name in generator.names() if f"{name}.npy" not in files]
  if not wanted and LABELS in files:
    metrics.announce(f"{out} is complete: nothing is left to do")
    return found
  run_folder.check_place(out, "--out")
  # The stated checksums are those of files that are there, at any time.
  _write_manifest(found, out)
  if LABELS not in files:
    kind = np.uint8 if generator.labels.max() < 256 else np.int32
    _finish(out, LABELS, [generator.labels.astype(kind)] * 5, found)
  for number, name in enumerate(wanted, start=1):
    metrics.announce(f"  {name} ({number} of {len(wanted)})")
    parts = [generator.load(name, s)[0] for s in corruptions.SEVERITIES]
    _finish(out, f"{name}.npy", parts, found)
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
  found = manifest.read(out)
  if found is None:
    if any(out.glob("*.npy")):
      raise ValueError(
        f"--out={out} holds .npy files that were not made here: name another "
        "folder"
      )
    return {"schema": manifest.SCHEMA, "made_with": described, "files": {}}
  if differ := run_folder.differences(found["made_with"], described):
    raise ValueError(
      f"--out={out} holds other images: {'; '.join(differ[:3])}. Name another "
      "folder, or give the same seed, data and versions to resume"
    )
  return found


def _finish(
  out: pathlib.Path, name: str, parts: list[np.ndarray], found: dict[str, Any]
) -> None:
  """Writes a file whole, then its line of the manifest."""
  if parallel.is_first_process():
    part = out / f"{name}.part"
    with open(part, "wb") as file:
      np.save(file, np.concatenate(parts))
    part.replace(out / name)
    found["files"][name] = manifest.digest(out / name)
    _write_manifest(found, out)


def _write_manifest(found: dict[str, Any], out: pathlib.Path) -> None:
  if parallel.is_first_process():
    run_folder.write_json(found, out / manifest.NAME)
