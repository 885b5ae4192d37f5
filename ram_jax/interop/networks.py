"""The networks in a file of weights: found by their layers' names, chosen."""

import dataclasses
import os.path
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ram_jax.interop import names, normalization

# Where several networks differ, those here are the trained network itself; the
# others are averages of it, teachers, critics. By rank.
MAIN = ("state_dict", "model_state_dict", "model_state", "model")
MAIN += ("net", "network", "last")
_FIRST_BLOCKS = {
  naming.block.format(stage=1, index=0)
  for namings in names.NAMINGS.values()
  for naming in namings
}
# What owns constants beside the network: a layer such as `normalize`, or the
# first of a Sequential. A loss may have a mean and a standard deviation, too.
_OWNER = re.compile(r"\d+|.*(norm|preprocess).*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """A network in a file.

  Attributes:
    entry: of its tensors, as `config.weights.entry` names it; empty: the file.
    tensors: by name, without the place.
    constants: of its normalization, by their names in its table.
  """

  entry: str
  tensors: dict[str, Any] = dataclasses.field(default_factory=dict)
  constants: dict[str, Any] = dataclasses.field(default_factory=dict)


def find(
  tables: Mapping[str, Mapping[str, Any]],
) -> tuple[list[Network], list[str]]:
  """Finds networks by the names of their first block.

  Args:
    tables: of a file: tensors by name, with dots between the levels, by the
        table's place with a last dot, "" for the file itself; words in place of
      a tensor that cannot be read.

  Returns:
    Networks whose layers have names of `names.NAMINGS`, whatever stands before
    all of them: `module.`, `model.`, `_orig_mod.` and others of wrappers. And
    the names of tensors that are of none.
  """
  found, rest = [], []
  for table, tensors in tables.items():
    prefixes = {p for name in tensors for p in _prefixes(name)}
    own = {p: Network((table + p).rstrip(".")) for p in sorted(prefixes)}
    for name, tensor in tensors.items():
      inside = [p for p in own if name.startswith(p)]
      if owners := _owners(name, own):
        for prefix in owners:
          own[prefix].constants[name] = tensor
      elif inside:
        # The longest: a network may have another one, its average, as a part.
        prefix = max(inside, key=len)
        own[prefix].tensors[name.removeprefix(prefix)] = tensor
      else:
        rest.append(table + name)
    found += own.values()
  return found, rest


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
  places = ", ".join(n.entry or "the file itself" for n in found)
  entry = entry.rstrip(".")
  wanted = [n for n in found if f"{n.entry}.".startswith(f"{entry}.")]
  wanted = wanted if entry else found
  if not wanted:
    raise ValueError(
      f"{path} has no network {entry} (config.weights.entry): it has {places}"
    )
  parts = [list(filter(None, n.entry.split("."))) for n in wanted]
  common = len(os.path.commonprefix(parts))
  ranks = [_rank(part[common:]) for part in parts]
  first = wanted[ranks.index(min(ranks))]
  others = (n for n in found if n is not first)
  different = [n for n in others if not _same(n.tensors, first.tensors)]
  ties = [n for n, r in zip(wanted, ranks, strict=True) if r == min(ranks)]
  if any(n in different for n in ties):
    raise ValueError(
      f"{path} has several networks, {places}: choose one with "
      "--config.weights.entry"
    )
  return first, [n.entry for n in different]


def check(network: Network, path: Any) -> None:
  """Rejects tensors that cannot be weights.

  Args:
    network: chosen.
    path: of the file, for the error.

  Raises:
    ValueError: naming the first one, what it is and how to store it.
  """
  faults = {
    name: x if isinstance(x, str) else f"of type {x.dtype.name}"
    for name, x in network.tensors.items()
    if isinstance(x, str) or (x.dtype.kind != "f" and not _counts(name))
  }
  if faults:
    name, what = next(iter(faults.items()))
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    place = f"{network.entry}." if network.entry else ""
    raise ValueError(
      f"{path}: {place}{name}{more} is {what}, which cannot be read as "
      "weights: store dense float32 tensors in the state_dict "
      "(tensor.to_dense(), tensor.dequantize(), with any scale multiplied in)"
    )


def _prefixes(name: str) -> list[str]:
  """What stands before a first block's name, where it is one."""
  starts = [f".{name}".find(f".{block}") for block in _FIRST_BLOCKS]
  return [name[:start] for start in starts if start >= 0]


def _owners(name: str, prefixes: Iterable[str]) -> list[str]:
  """The networks of which a tensor is a constant of the normalization.

  It is `mean` or `std`, beside or around the network, of a layer such as
  `normalize`, and nearer to no other network.
  """
  *layers, last = name.split(".")
  shared = {
    prefix: len(os.path.commonprefix([layers, prefix.split(".")[:-1]]))
    for prefix in prefixes
  }
  most = max(shared.values(), default=0)
  own = all(map(_OWNER.fullmatch, layers[most:]))
  if last not in normalization.MEANS + normalization.STDS or not own:
    return []
  return [prefix for prefix, count in shared.items() if count == most]


def _rank(parts: Sequence[str]) -> int:
  """Smaller for places of what is the trained network itself."""
  if not parts:
    return -1
  return MAIN.index(parts[0]) if parts[0] in MAIN else len(MAIN)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  return one.keys() == other.keys() and all(
    np.array_equal(tensor, other[name]) for name, tensor in one.items()
  )


def _counts(name: str) -> bool:
  """Whether it is a counter of a BatchNorm2d, the only whole number."""
  return name.rpartition(".")[2] == "num_batches_tracked"
