"""Writes a corrupted test set to a folder, in the layout of CIFAR-10-C."""

import os
import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ram_jax import checks, corruptions, parallel, plugins
from ram_jax.data import generated, manifest, pipeline
from ram_jax.data.generated import Generator
from ram_jax.resolution import resolve
from ram_jax.runs import folder as run_folder
from ram_jax.runs import metrics, provenance

# Packages that the pixels depend on, besides ram_jax itself.
PACKAGES = ("jax", "jaxlib", "numpy", "pillow", "scipy")
LABELS = "labels.npy"
_EMPTY = "'', as --mode=corrupt generates the images", lambda v: not v
RULES = {
  "folder": _EMPTY,
  "tfds_dir": _EMPTY,
  "severities": ("1,2,3,4,5 for --mode=corrupt", lambda v: len(set(v)) == 5),
  "sets": ("one set for --mode=corrupt", lambda v: len(v) == 1),
}


def write(config: ConfigDict, out: str | pathlib.Path) -> dict[str, Any]:
  """Corrupts the test set of a config; resumes after an interruption.

  Writes `<corruption>.npy` (uint8 [5N,H,W,3], severities 1 to 5 concatenated),
  `labels.npy` ([5N]) and `manifest.json`, which lists every finished file with
  its checksum. Each file is complete or absent.

  Args:
    config: complete; `dataset`, `evaluate` and `evaluators.corruption` are
      used.
    out: the folder; created if missing.

  Returns:
    The manifest.

  Raises:
    ValueError: if the folder contains something else or there is no permission
      to write to it, or if the config requests images that cannot be generated.
    OSError: if writing fails, for example because of a full disk.
  """
  out = pathlib.Path(os.path.expanduser(out))
  config = resolve(config)
  generator, described = _prepare(config)
  found = _found(out, described)
  # Checksums are verified, so that damaged files are generated again.
  found["files"] = files = {
    name: digest
    for name, digest in found["files"].items()
    if (out / name).is_file() and manifest.digest(out / name) == digest
  }
  missing = generator.missing().items()
  found["missing"] = {n: why for n, why in missing if f"{n}.npy" not in files}
  todo = [name for name in generator.names() if f"{name}.npy" not in files]
  if not todo and LABELS in files:
    metrics.announce(f"{out} is complete: nothing to do")
    return found
  run_folder.check_writable(out, "--out")
  # At any time, the manifest only lists files that exist.
  _write_manifest(found, out)
  if LABELS not in files:
    kind = np.uint8 if generator.labels.max() < 256 else np.int32
    _finish(out, LABELS, [generator.labels.astype(kind)] * 5, found)
  for number, name in enumerate(todo, start=1):
    metrics.announce(f"  {name} ({number} of {len(todo)})")
    parts = [generator.load(name, s)[0] for s in corruptions.SEVERITIES]
    _finish(out, f"{name}.npy", parts, found)
  return found


def describe(found: dict[str, Any]) -> str:
  """Summarizes a corrupted test set.

  Args:
    found: the manifest.

  Returns:
    One line, and one for each missing corruption.
  """
  made, data = found["made_with"], found["made_with"]["data"]
  count = len(found["files"]) - 1  # one file contains the labels
  text = (
    f"{count} corruptions x 5 severities of {data['size']} images "
    f"({data['label']}), seed {made['seed']}"
  )
  rows = (f"\nMissing: {n}: {reason}" for n, reason in found["missing"].items())
  return text + "".join(rows)


def _prepare(config: ConfigDict) -> tuple[Generator, dict[str, Any]]:
  """The generator of the images, and everything that they depend on."""
  batch_size = config.evaluate.batch_size
  parallel.check_batch_size(batch_size, "config.evaluate.batch_size")
  spec = config.evaluators.to_dict().get("corruption")
  if not isinstance(spec, dict):
    raise ValueError(
      "config.evaluators has no field corruption, which --mode=corrupt needs: "
      "use a config that has it (configs/)"
    )
  where = "config.evaluators.corruption"
  checks.check(spec, f"{where}.", **RULES)
  evaluator = plugins.build("evaluator", spec, where, batch_size=batch_size)
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
  return evaluator.generators(images, labels)[0], described


def _found(out: pathlib.Path, described: dict[str, Any]) -> dict[str, Any]:
  """The existing manifest, or a new one."""
  found = manifest.read(out)
  if found is None:
    if any(out.glob("*.npy")):
      raise ValueError(
        f"--out={out} contains .npy files that ram_jax did not write: choose "
        "another folder"
      )
    return {"schema": manifest.SCHEMA, "made_with": described, "files": {}}
  if differ := run_folder.differences(found["made_with"], described):
    raise ValueError(
      f"--out={out} contains other images: {'; '.join(differ[:3])}. Choose "
      "another folder, or use the same seed, data and versions to resume"
    )
  return found


def _finish(
  out: pathlib.Path, name: str, parts: list[np.ndarray], found: dict[str, Any]
) -> None:
  """Writes a file atomically, then adds it to the manifest."""
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
