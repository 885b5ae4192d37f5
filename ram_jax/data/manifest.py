"""Checksums of published files, and of generated files in a manifest."""

import functools
import hashlib
import json
import operator
import pathlib
from collections.abc import Iterable
from typing import Any

NAME = "manifest.json"
SCHEMA = 1
AGAIN = "generate it again with --mode=corrupt --out=FOLDER"

# A manifest's entries, by type.
_KINDS = {
  dict: "files missing",
  list: "made_with.data.image",
  int: "made_with.seed made_with.data.classes made_with.data.size",
  str: "made_with.data.label made_with.data.fingerprint",
}


def _published() -> dict[str, dict[str, str]]:
  """md5 by folder ("" for archives) and file."""
  path, sums = pathlib.Path(__file__).with_name("published.md5"), {}
  for line in path.read_text(encoding="utf-8").splitlines():
    if not line.startswith("#"):
      md5, name = line.split()
      folder, _, file = name.rpartition("/")
      sums.setdefault(folder, {})[file] = md5
  return sums


PUBLISHED = _published()


def digest(path: pathlib.Path, algorithm: str = "sha256") -> str:
  """Computes the digest of a file.

  Args:
    path: the file.
    algorithm: `sha256` or `md5`.

  Returns:
    The algorithm, a colon, and hexadecimal digits.
  """
  start = functools.partial(hashlib.new, algorithm, usedforsecurity=False)
  with open(path, "rb") as file:
    return f"{algorithm}:{hashlib.file_digest(file, start).hexdigest()}"


def is_published(
  folder: pathlib.Path, published: str, names: Iterable[str] = ()
) -> bool:
  """Whether files are the published ones; reads them.

  Args:
    folder: folder of the files.
    published: their folder in `PUBLISHED`.
    names: names of the files; empty: all.

  Returns:
    Whether all exist and have the published md5.
  """
  sums = PUBLISHED[published]
  return all(
    (folder / name).is_file()
    and digest(folder / name, "md5") == f"md5:{sums[name]}"
    for name in names or sums
  )


def read(folder: pathlib.Path) -> dict[str, Any] | None:
  """Reads the manifest of a folder of generated corrupted images.

  Args:
    folder: folder of `.npy` files.

  Returns:
    `made_with` (`seed`, `versions`, `platform` and `data`: `label`, `classes`,
    `image` (shape), `size`, `fingerprint`), `files` (checksum by file name) and
    `missing` (reason by corruption); None if the folder has no manifest, as
    is the case for the published files.

  Raises:
    ValueError: if it is damaged, or has an unsupported schema.
  """
  path = folder / NAME
  if not path.is_file():
    return None
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["schema"] != SCHEMA:
      raise ValueError(f"its schema is {found['schema']!r}, not {SCHEMA}")
    for kind, names in _KINDS.items():
      for name in names.split():
        value = functools.reduce(operator.getitem, name.split("."), found)
        if not isinstance(value, kind):
          raise ValueError(f"{name} is {value!r:.60}")
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f"{path} is damaged or not a manifest of ram_jax ({error!r}): delete the "
      f"folder, and {AGAIN}"
    ) from error
  return found


def check(folder: pathlib.Path, files: dict[str, str], name: str) -> None:
  """Rejects a file that is missing or does not match its manifest.

  Args:
    folder: folder of the file.
    files: digests by file name, from the manifest.
    name: name of the file.

  Raises:
    ValueError: with the name of the file.
  """
  path = folder / name
  if not path.is_file() or digest(path) != files.get(name):
    raise ValueError(
      f"{path} is missing or does not have the SHA-256 in its {NAME}: {AGAIN}"
    )
