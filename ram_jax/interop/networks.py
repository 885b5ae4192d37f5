"""The networks in a file of weights: found by their layers' names, chosen."""

import dataclasses
import os.path
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ram_jax.interop import names

# Of a file's tables of tensors, by the table's place: names with dots between
# the levels, "" for the file itself.
Tables = Mapping[str, Mapping[str, Any]]
# Where several networks differ, those here are the trained network itself; the
# others are averages of it, teachers, critics. By rank.
MAIN = ("state_dict", "model_state_dict", "model_state", "model")
MAIN += ("net", "network", "last")
COUNTER = "num_batches_tracked"  # of a BatchNorm2d, the only whole number
SHOWN = 6  # names that a message lists


@dataclasses.dataclass(frozen=True)
class Unread:
  """Stands for a tensor that cannot be a weight.

  Attributes:
    what: it is, in words.
    advice: how to store it instead.
  """

  what: str
  advice: str


@dataclasses.dataclass(frozen=True)
class Network:
  """A network in a file.

  Attributes:
    table: the place of its table in the file.
    prefix: of its tensors' names there, with the last dot.
    tensors: by name, without the prefix.
  """

  table: str
  prefix: str
  tensors: dict[str, Any]

  @property
  def place(self) -> str:
    """Table and prefix, as `config.weights.entry` names them."""
    return ".".join(filter(None, (self.table, self.prefix.rstrip("."))))


def find(tables: Tables) -> list[Network]:
  """Finds networks by the names of their first block.

  Args:
    tables: of a file.

  Returns:
    Networks whose layers have names of `names.NAMINGS`, whatever stands before
    all of them: `module.`, `model.`, `_orig_mod.` and others of wrappers.
  """
  found = []
  for table, tensors in tables.items():
    own = {p: {} for name in tensors for p in _prefixes(name)}
    for name, tensor in tensors.items():
      # The longest: a network may have another one, its average, as a part.
      ends = [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]
      around = [name[:end] for end in ends if name[:end] in own]
      if around:
        own[around[-1]][name.removeprefix(around[-1])] = tensor
    found += [Network(table, prefix, part) for prefix, part in own.items()]
  return found


def choose(
  found: Sequence[Network], entry: str, path: Any
) -> tuple[Network, list[str]]:
  """Chooses one of a file's networks.

  Args:
    found: all of them, at least one.
    entry: place of the one to choose, or how that begins; empty: the main one.
    path: of the file, for errors.

  Returns:
    The network, and the places of those that differ from it.

  Raises:
    ValueError: if there is none of that name, or several and none is the main
      one.
  """
  wanted = [n for n in found if f"{n.place}.".startswith(f"{entry}.")]
  wanted = wanted if entry else found
  places = ", ".join(n.place or "the file itself" for n in found)
  if not wanted:
    raise ValueError(
      f"{path} has no network {entry} (config.weights.entry): it has {places}"
    )
  parts = [n.place.split(".") if n.place else [] for n in wanted]
  common = len(os.path.commonprefix(parts))
  ranks = {
    id(n): _rank(part[common:]) for n, part in zip(wanted, parts, strict=True)
  }
  wanted = sorted(wanted, key=lambda network: ranks[id(network)])
  first, *others = wanted
  ties = [n for n in others if ranks[id(n)] == ranks[id(first)]]
  if any(not _same(n.tensors, first.tensors) for n in ties):
    raise ValueError(
      f"{path} has several networks, {places}: choose one with "
      "--config.weights.entry"
    )
  different = [n for n in found if not _same(n.tensors, first.tensors)]
  return first, [n.place for n in different]


def check(tensors: Mapping[str, Any], prefix: str, path: Any) -> None:
  """Rejects tensors that cannot be weights.

  Args:
    tensors: of a network.
    prefix: of their names in the file.
    path: of the file, for the error.

  Raises:
    ValueError: naming the first one, what it is and how to store it.
  """
  faults = [(n, fault) for n, x in tensors.items() if (fault := _fault(n, x))]
  if faults:
    name, first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    raise ValueError(
      f"{path}: {prefix}{name}{more} is {first.what}, which cannot be "
      f"read as weights: {first.advice}"
    )


def listed(words: Iterable[str]) -> str:
  """Returns the first few words, and how many more there are."""
  words = list(words)
  more = len(words) - SHOWN
  return ", ".join(words[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def describe(tables: Tables) -> str:
  """Says what tables hold in which no network was found.

  Args:
    tables: of a file.

  Returns:
    Number of tensors, the prefix that all names share, the first name.
  """
  parts = []
  for table, tensors in tables.items():
    shared = os.path.commonprefix([n.split(".")[:-1] for n in tensors])
    prefix = f"all named {'.'.join(shared)}.…, " if shared else ""
    many = "s" if len(tensors) > 1 else ""
    parts.append(
      f"{table or 'the file itself'} has {len(tensors)} tensor{many}, {prefix}"
      f"such as {next(iter(tensors))}"
    )
  return "; ".join(parts[:SHOWN])


def _prefixes(name: str) -> list[str]:
  """What stands before a first block's name, where it is one."""
  places = [f".{name}".find(f".{block}") for block in _FIRST_BLOCKS]
  return [name[:place] for place in places if place >= 0]


_FIRST_BLOCKS = {
  naming.block.format(stage=1, index=0)
  for namings in names.NAMINGS.values()
  for naming in namings
}


def _rank(parts: Sequence[str]) -> int:
  """Smaller for places of what is the trained network itself."""
  if not parts:
    return -1
  return MAIN.index(parts[0]) if parts[0] in MAIN else len(MAIN)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  return one.keys() == other.keys() and all(
    np.array_equal(tensor, other[name]) for name, tensor in one.items()
  )


def _fault(name: str, tensor: Any) -> Unread | None:
  if isinstance(tensor, Unread):
    return tensor
  if tensor.dtype.kind == "f" or name.rpartition(".")[2] == COUNTER:
    return None
  return unread(tensor.dtype.name)


def unread(dtype: str) -> Unread:
  """Stands for a tensor whose type is none of weights.

  Args:
    dtype: in words.
  """
  return Unread(
    f"of type {dtype}",
    "store the state_dict in float32, with any scale multiplied in",
  )
