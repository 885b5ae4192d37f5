"""What a folder of corrupted images that was made here says of itself."""

import hashlib
import json
import pathlib
from typing import Any

NAME = "manifest.json"
SCHEMA = 1
AGAIN = "make it again with --mode=corrupt --out=FOLDER"

# Kinds of what is said of the clean test set.
_DATA = {
  "label": str,
  "classes": int,
  "image": list,
  "size": int,
  "fingerprint": str,
}


def read(folder: pathlib.Path) -> dict[str, Any] | None:
  """Reads the manifest of a folder.

  Args:
    folder: of `.npy` files.

  Returns:
    `made_with` (`seed`, `versions`, `platform` and `data`: `label`, `classes`,
    `image` (shape), `size`, `fingerprint`), `files` (checksum by file name) and
    `missing` (reason by corruption); None where the folder has none, as that
    of the published files.

  Raises:
    ValueError: if it is damaged, or of another schema.
  """
  path = folder / NAME
  if not path.is_file():
    return None
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["schema"] != SCHEMA:
      raise ValueError(f"its schema is {found['schema']!r}, not {SCHEMA}")
    made = found["made_with"]
    for part, kinds in (
      (found, {"files": dict, "missing": dict}),
      (made, {"seed": int, "data": dict}),
      (made["data"], _DATA),
    ):
      for name, kind in kinds.items():
        if not isinstance(part[name], kind):
          raise ValueError(f"{name} is {part[name]!r:.60}")
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f"{path} is damaged or no manifest of ram_jax ({error!r}): delete the "
      f"folder, and {AGAIN}"
    ) from error
  return found


def check(folder: pathlib.Path, files: dict[str, str], name: str) -> None:
  """Rejects a file that is not the one that was made.

  Args:
    folder: of the file.
    files: the manifest's.
    name: of the file.

  Raises:
    FileNotFoundError: if it is gone.
    ValueError: if its checksum is another.
  """
  path = folder / name
  if not path.is_file():
    raise FileNotFoundError(f"{path} is gone: {AGAIN}")
  if digest(path) != files.get(name):
    raise ValueError(
      f"{path} is not the file that {NAME} beside it describes (another "
      f"SHA-256): it was damaged or exchanged, delete it and {AGAIN}"
    )


def digest(path: pathlib.Path, algorithm: str = "sha256") -> str:
  """Names a file by its content.

  Args:
    path: the file.
    algorithm: `sha256` or `md5`.

  Returns:
    The algorithm, a colon, and hexadecimal digits.
  """

  def start() -> Any:
    return hashlib.new(algorithm, usedforsecurity=False)

  with open(path, "rb") as file:
    return f"{algorithm}:{hashlib.file_digest(file, start).hexdigest()}"
