"""A run's folder as it is at one moment, while the run continues."""

import os
import pathlib
import shutil

# What is not finished, and what is this machine's alone.
IGNORED = ("lock", "*.part", "*.orbax-checkpoint-tmp*")


def make(folder: pathlib.Path, copy: pathlib.Path) -> bool:
  """Copies a run's folder.

  Finished checkpoints never change, and cost a link only. They come first: the
  lines of metrics.jsonl that are then copied reach at least as far.

  Args:
    folder: the run's.
    copy: a folder on the same disk; what was in it is removed.

  Returns:
    Whether nothing disappeared meanwhile, as the oldest checkpoint may.
  """
  shutil.rmtree(copy)
  copy.mkdir()
  try:
    paths = [path.relative_to(folder) for path in folder.rglob("*")]
    for path in sorted(paths, key=lambda p: p.parts[0] != "checkpoints"):
      if any(_part(name) for name in path.parts):
        continue
      (copy / path).parent.mkdir(parents=True, exist_ok=True)
      if (folder / path).is_dir():
        continue
      if path.parts[0] == "checkpoints":
        os.link(folder / path, copy / path)
      else:
        shutil.copy2(folder / path, copy / path)
  except FileNotFoundError:
    return False
  return True


def _part(name: str) -> bool:
  return any(pathlib.PurePath(name).match(pattern) for pattern in IGNORED)


def stamp(path: pathlib.Path) -> tuple[int, int]:
  """Size and time of a file, which change when it does."""
  found = path.stat()
  return found.st_size, found.st_mtime_ns
