"""Finds the networks in a weights file by layer names, and chooses one."""

import dataclasses
import os.path
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ram_jax.interop import names, normalization

# If a file has several different networks, these names, in order of preference,
# denote the trained network; others are averages, teachers or critics.
MAIN = ("state_dict", "model_state_dict", "model_state", "model")
MAIN += ("net", "network", "last")
_FIRST_BLOCKS = {
  naming.block.format(stage=1, index=0)
  for namings in names.NAMINGS.values()
  for naming in namings
}
# Layers outside the network that may hold its constants: `normalize` and the
# like, or a member of a Sequential. Others are ignored, because a loss may
# have a mean and a std, too.
_OWNER = re.compile(r"\d+|.*(norm|preprocess).*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """A network in a file.

  Attributes:
    entry: prefix of its tensors, as in `config.weights.entry`; empty: the file.
    tensors: tensors by name, without the prefix.
    constants: constants of its normalization, by their full names in the file.
  """

  entry: str
  tensors: dict[str, Any] = dataclasses.field(default_factory=dict)
  constants: dict[str, Any] = dataclasses.field(default_factory=dict)


def find(
  tables: Mapping[str, Mapping[str, Any]],
) -> tuple[list[Network], list[str]]:
  """Finds networks by the names of their first block.

  Args:
    tables: tensors by table and name. A table's key is its path in the file
      with a trailing dot, or "" for the file itself. Tensors that cannot be
      read are replaced by descriptions (str).

  Returns:
    Networks with layer names in `names.NAMINGS`, under any common prefix such
    as `module.`, `model.` or `_orig_mod.`; and the names of other tensors.
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
        # The longest prefix, as a network may contain another one (an average).
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
    found: all networks, at least one.
    entry: entry of the network, or the first part of it; empty: the main one.
    path: path of the file, for errors.

  Returns:
    The network, and the entries of those that differ from it.

  Raises:
    ValueError: if there is no such network, or if there are several and none is
      the main one.
  """
  entries = ", ".join(n.entry or "the file itself" for n in found)
  entry = entry.rstrip(".")
  matching = [n for n in found if f"{n.entry}.".startswith(f"{entry}.")]
  matching = matching if entry else found
  if not matching:
    raise ValueError(
      f"{path} has no network {entry} (config.weights.entry): it has {entries}"
    )
  parts = [list(filter(None, n.entry.split("."))) for n in matching]
  common = len(os.path.commonprefix(parts))
  ranks = [_rank(part[common:]) for part in parts]
  first = matching[ranks.index(min(ranks))]
  others = (n for n in found if n is not first)
  different = [n for n in others if not _same(n.tensors, first.tensors)]
  ties = [n for n, r in zip(matching, ranks, strict=True) if r == min(ranks)]
  if any(n in different for n in ties):
    raise ValueError(
      f"{path} has several networks, {entries}: choose one with "
      "--config.weights.entry"
    )
  return first, [n.entry for n in different]


def check(network: Network, path: Any) -> None:
  """Rejects tensors that cannot be weights.

  Args:
    network: the chosen network.
    path: path of the file, for the error.

  Raises:
    ValueError: with the first such tensor, its type and how to store it.
  """
  faults = {
    name: x if isinstance(x, str) else f"of type {x.dtype.name}"
    for name, x in network.tensors.items()
    if isinstance(x, str)
    or (x.dtype.kind != "f" and not name.endswith(names.COUNTER))
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
  """Possible prefixes of a network, if a tensor is in its first block."""
  starts = [f".{name}".find(f".{block}") for block in _FIRST_BLOCKS]
  return [name[:start] for start in starts if start >= 0]


def _owners(name: str, prefixes: Iterable[str]) -> list[str]:
  """The networks whose normalization has this constant.

  Such a constant is the mean or std of a layer such as `normalize` that is next
  to or around the network, with no other network closer to it.
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
  """Rank of an entry; smaller for the trained network itself."""
  if not parts:
    return -1
  return MAIN.index(parts[0]) if parts[0] in MAIN else len(MAIN)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  return one.keys() == other.keys() and all(
    np.array_equal(tensor, other[name]) for name, tensor in one.items()
  )
