"""Adversarial images as files, so that other programs can check them."""

import json
import pathlib
from typing import Any

import numpy as np

from ram_jax import parallel
from ram_jax.data import manifest
from ram_jax.runs import folder as run_folder
from ram_jax.runs import metrics

SCHEMA = 1


def check(
  folder: pathlib.Path, made_with: dict[str, Any], ignored: tuple[str, ...] = ()
) -> None:
  """Rejects a folder that contains anything except the same images.

  Args:
    folder: the folder; it may be missing.
    made_with: everything that the images depend on.
    ignored: names in `made_with` that are not known yet.

  Raises:
    ValueError: with the reason.
  """
  run_folder.check_writable(folder, "--save_adversarial")
  if not folder.is_dir() or not any(folder.iterdir()):
    return
  try:
    path = folder / manifest.NAME
    found = dict(json.loads(path.read_text(encoding="utf-8"))["made_with"])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f"--save_adversarial={folder} is not empty and has no {manifest.NAME} of "
      "adversarial images: choose a new folder"
    ) from error
  if differ := run_folder.differences(found, made_with, ignored):
    raise ValueError(
      f"--save_adversarial={folder} has other images: {'; '.join(differ[:3])}. "
      "Choose a new folder"
    )


def write(
  folder: pathlib.Path,
  made_with: dict[str, Any],
  arrays: dict[str, np.ndarray],
  correct: dict[str, int],
) -> None:
  """Writes arrays, then the manifest with their checksums.

  Args:
    folder: checked with `check`; created if missing.
    made_with: everything that the arrays depend on.
    arrays: arrays by name, each written to NAME.npy.
    correct: for some of the arrays, how many images are classified correctly.
  """
  if not parallel.is_first_process():
    return
  folder.mkdir(parents=True, exist_ok=True)
  files = {}
  for name, array in arrays.items():
    path = folder / f"{name}.npy"
    np.save(path, array)
    files[path.name] = {
      "sha256": manifest.digest(path).removeprefix("sha256:"),
      "dtype": str(array.dtype),
      "shape": list(array.shape),
    }
    if name in correct:
      files[path.name]["correct_count"] = correct[name]
  tree = {"schema": SCHEMA, "made_with": made_with, "files": files}
  run_folder.write_json(tree, folder / manifest.NAME)
  metrics.announce(f"adversarial images are in {folder}")
