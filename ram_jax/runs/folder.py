"""The folder of a run: which run it belongs to, and its files."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from flax import traverse_util
from ml_collections import ConfigDict

from ram_jax import parallel
from ram_jax.data import pipeline
from ram_jax.runs import metrics
from ram_jax.runs import results as runs
from ram_jax.runs.checkpoint import Checkpoints

# Fields that may differ between a training run and a later evaluation of it.
EVALUATION_FIELDS = ("name", "evaluate", "evaluators", "floors")

# Mean and standard deviation with which a run was trained, in data.json.
STATISTICS = "statistics"
LOCK = "lock"
PARTS = "parts.jsonl"  # finished parts of an incomplete evaluation

# Names of data, weights and normalizations, and where data and weights are
# stored (on disk or devices). These may change, because data is identified by
# data.json, weights by config.weights.fingerprint, and a normalization by its
# values.
PLACES = (
  "dataset.folder",
  "dataset.tfds_dir",
  "dataset.path",
  "dataset.label",
  "train.device_data_gib",
  "weights.initial",
  "weights.measured",
  "weights.notes",
  "normalization.preset",
)

# Fields of config.json that are used before it is validated.
_READ = {
  "train": {"steps_per_dispatch", "unroll", "dtype"},
  "weights": {"entry", "fingerprint", "notes"},
  "normalization": {"mean", "std", "preset"},
  "average": {"name"},
  "batch_norm": {"split", "affine"},
  "evaluate": {"average", "batch_norm"},
} | dict.fromkeys(("dataset", "model", "method"), {"name"})


def check(config: ConfigDict, folder: pathlib.Path) -> None:
  """Rejects a folder that is read-only, in use or owned by another run.

  Args:
    config: the resolved config.
    folder: the run's folder; it may be missing.

  Raises:
    ValueError: with the fields that differ, or the process that uses it.
  """
  check_writable(folder, "--workdir")
  if parallel.any_process((folder / LOCK).exists()):
    with lock(folder):
      pass  # fail now, not after reading the data
  check_owner(config, folder)


def check_writable(folder: pathlib.Path, flag: str) -> None:
  """Rejects a folder that cannot be written to.

  Args:
    folder: the folder; it may be missing.
    flag: flag that names the folder, for the message.

  Raises:
    ValueError: with the reason.
  """
  # orbax looks for the parts of a checkpoint with glob patterns.
  bad = sorted(set("*?[]\\") & set(str(folder.absolute())))
  if bad and flag == "--workdir":
    raise ValueError(
      f"{flag}={folder}: the path contains {' '.join(bad)}, which checkpoints "
      "do not support: use another path"
    )
  found = next(p for p in (folder, *folder.absolute().parents) if p.exists())
  if not found.is_dir():
    raise ValueError(f"{flag}={folder}: {found} is a file; give a folder")
  if not os.access(found, os.W_OK | os.X_OK):
    raise ValueError(
      f"{flag}={folder}: no permission to write to {found}; choose another "
      "folder"
    )


def check_owner(config: ConfigDict, folder: pathlib.Path) -> None:
  """Rejects a folder that belongs to another training run.

  Args:
    config: the resolved config.
    folder: the run's folder; it may be missing.

  Raises:
    ValueError: with the fields that differ.
  """
  if not (folder / "config.json").exists():
    if (folder / "checkpoints").exists():
      raise ValueError(
        f"--workdir={folder} contains checkpoints but not the config.json they "
        "belong to: restore it, or choose another --workdir"
      )
    return
  ignored = (*EVALUATION_FIELDS, *PLACES)
  if differ := differences(read(folder), config.to_dict(), ignored):
    shown = "; ".join(differ[:3])
    more = f"; and {len(differ) - 3} more" if len(differ) > 3 else ""
    raise ValueError(
      f"--workdir={folder} contains another run: {shown}{more}. Choose "
      "another --workdir, or use the same configuration to resume"
    )
  if not (folder / "data.json").exists():
    raise ValueError(
      f"--workdir={folder} contains config.json but not data.json, which "
      "identifies its data: restore it, or choose another --workdir"
    )


@contextlib.contextmanager
def lock(folder: pathlib.Path) -> Iterator[None]:
  """Locks a folder against other programs while the context is open.

  The lock is held by the kernel (flock) and does not depend on whether the file
  exists, so it is released if the process is killed or the machine reboots
  (docs/reliability.md).

  Args:
    folder: the run's folder; created if missing.

  Raises:
    ValueError: if another program uses the folder.
  """
  with contextlib.ExitStack() as stack:
    parallel.first_process(lambda: stack.enter_context(_flock(folder)))
    yield


@contextlib.contextmanager
def _flock(folder: pathlib.Path) -> Iterator[None]:
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / LOCK, "a+", encoding="utf-8") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise ValueError(
        f"--workdir={folder} is in use by {file.read().strip() or 'a program'}"
        ": wait for it or stop it, or choose another --workdir"
      ) from None
    except OSError as error:
      metrics.announce(
        f"{folder} cannot be locked ({error.strerror}): make sure that no "
        "other program uses it"
      )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    yield


def differences(
  saved: dict[str, Any], now: dict[str, Any], ignored: Sequence[str] = ()
) -> list[str]:
  """How a configuration differs from a saved one.

  Args:
    saved: the saved configuration, read from JSON.
    now: the configuration to compare with it.
    ignored: fields or top-level groups that may differ.

  Returns:
    One phrase for each field that differs, in alphabetical order.
  """
  # Through JSON, which turns tuples into lists.
  old, new = flat(saved), flat(json.loads(json.dumps(now)))
  return [
    f"{name} was {old.get(name)!r} and is now {new.get(name)!r}"
    for name in sorted(old.keys() | new.keys())
    if not {name, name.split(".")[0]} & set(ignored)
    and old.get(name) != new.get(name)
  ]


def finished(config: ConfigDict, folder: pathlib.Path) -> runs.Run | None:
  """The results of a finished run.

  Args:
    config: the resolved config.
    folder: the run's folder; it may be missing.

  Returns:
    The run if its results are those of the last step and of `config`, else
    None.
  """
  if (folder / PARTS).exists():
    return None
  try:
    run = runs.load(folder)
    size, step = run.head["data"]["train"]["size"], run.about["step"]
    evaluated = run.head["config"]
  except (FileNotFoundError, ValueError, KeyError):
    return None  # missing or damaged results: the run is evaluated again
  train = config.train
  last = pipeline.steps_per_epoch(size, train.batch_size) * train.epochs
  # The batch size depends on the device and does not change results.
  ignored = ("evaluate.batch_size",)
  if step != last or differences(evaluated, config.to_dict(), ignored):
    return None
  checkpoints = Checkpoints(folder / "checkpoints")
  latest = checkpoints.latest_step()
  checkpoints.close()
  # A user may have deleted the checkpoints to free space.
  return run if latest in (None, last) else None


def read(folder: pathlib.Path) -> dict[str, Any]:
  """Reads a run's config.json.

  Args:
    folder: the run's folder.

  Returns:
    The resolved configuration.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it is damaged.
  """
  path = folder / "config.json"
  if not path.exists():
    raise FileNotFoundError(f"{path} does not exist: give the folder of a run")
  with _restorable(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    for name, parts in _READ.items():
      group = dict(found).get(name)
      if not isinstance(group, dict) or parts - group.keys():
        raise ValueError(f"{name} lacks one of {', '.join(sorted(parts))}")
  return found


@contextlib.contextmanager
def _restorable(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise ValueError(
      f"{path} is damaged or from another version of ram_jax ({error!r:.200}): "
      "restore it, use that version, or start in a new --workdir"
    ) from error


def read_data(folder: pathlib.Path) -> dict[str, Any]:
  """Reads data.json, which identifies the data of a run.

  Args:
    folder: the run's folder; it may be missing.

  Returns:
    `train` and `test` (size and fingerprint) and `statistics` (`mean` and `std`
    per channel), if known, and `notes` on the training data; empty if there is
    no such file.

  Raises:
    ValueError: if it is damaged.
  """
  path = folder / "data.json"
  if not path.exists():
    return {}
  with _restorable(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    notes = found["notes"]
    if not (isinstance(notes, list) and all(type(x) is str for x in notes)):
      raise ValueError("notes are not a list of strings")
    for name in found.keys() - {"notes"}:
      known = (*pipeline.SPLITS, STATISTICS)
      if name not in known or not isinstance(found[name], dict):
        raise ValueError(f"{name!r} is not one of {', '.join(known)}")
    if statistics := found.get(STATISTICS):
      mean, std = statistics["mean"], statistics["std"]
      finite = all(map(metrics.is_finite, (*mean, *std)))
      if not (finite and len(mean) == len(std) == 3 and min(std) > 0):
        raise ValueError("statistics are not three numbers each, std above 0")
  return found


def check_data(data: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
  """Rejects data that differs from the data that the run started with.

  Args:
    data: size and fingerprint, by split.
    folder: the run's folder; it may be missing.

  Returns:
    See `read_data`.

  Raises:
    ValueError: if the fingerprints differ.
  """
  saved = read_data(folder)
  for split in pipeline.SPLITS:
    if split in saved and split in data and saved[split] != data[split]:
      name = {"train": "trained", "test": "evaluated"}[split]
      raise ValueError(
        f"the run in --workdir={folder} was {name} on different data "
        f"({saved[split]}, now {data[split]}): use the same data, or choose "
        "another --workdir"
      )
  return saved


def claim(
  config: ConfigDict, data: dict[str, Any], folder: pathlib.Path
) -> None:
  """Writes config.json and data.json, which assign the folder to this run.

  Args:
    config: the resolved config.
    data: content of data.json, see `read_data`.
    folder: the run's folder, locked.

  Raises:
    ValueError: if it now belongs to another run, or the data differs.
    OSError: if it cannot be written to.
  """
  check_owner(config, folder)
  check_data(data, folder)

  def write() -> None:
    write_json(data, folder / "data.json")
    write_json(config.to_dict(), folder / "config.json")

  parallel.first_process(write)


def write_json(tree: Any, path: pathlib.Path) -> None:
  """Writes a JSON file atomically.

  Args:
    tree: dicts, lists, numbers and strings.
    path: the file; its folder is created if missing.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  metrics.replace(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """Flattens nested dicts, joining the names with dots."""
  rows = traverse_util.flatten_dict(tree, sep=".")
  return {f"{prefix}{name}": value for name, value in rows.items()}
