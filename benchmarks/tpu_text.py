"""Reads the TPU compiler's estimates from the text of a compiled program.

The compiler states the cycles of most instructions. Those in a loop are
multiplied by its number of iterations, which is read from its condition, such
as `i < 7`. Loops whose length depends on data count once, and are listed.
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import Any

from ram_jax import trace

SHOWN = 10  # maximum number of instructions in each list
# Instructions that take time, but may lack an estimate.
_WORK = ("fusion", "gather", "scatter", "sort", "custom-call", "convolution")
_BYTES = {"pred": 1, "s64": 8, "u64": 8, "f64": 8, "token": 0}
_ENTRY = re.compile(r"^ENTRY %?([\w.\-]+)", re.MULTILINE)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_ARRAY = re.compile(r"\b([a-z]+\d*)\w*\[([\d,]*)\]")
_COMPARED = re.compile(r" compare\([^%]*%[\w.\-]+, [^%]*%([\w.\-]+)\)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_CONSTANT = re.compile(r" constant\((\d+)\)")


def estimates(text: str, steps: int = 1) -> dict[str, Any]:
  """Sums up a program's estimates.

  Args:
    text: from `compiled.as_text()`, compiled for a TPU.
    steps: steps in one run of the program, by which cycles and bytes are
      divided.

  Returns:
    `cycles`; `parts`, the cycles of each part of a step (see `trace.PARTS`);
    `collectives` with their `count` and `bytes`; the most expensive
    instructions (`longest`); those that have no estimate (`unknown`, the
    largest), and their number; the loops whose length depends on data
    (`loops`).
  """
  program = trace.read_program(text)
  part, times = trace.parts(program), _times(program, _ENTRY.search(text)[1])
  parts, rows, unknown = collections.Counter(), [], []
  collectives = collections.Counter()
  for name, row in program.items():
    if not (count := times.get(row.inside, 0) / steps):
      continue
    shown = {"name": name, "part": part[name], "shape": _shape(row)}
    shown |= {"scope": row.op_name, "times": round(count, 2)}
    if cycles := _CYCLES.search(row.text):
      spent = int(cycles[1]) * count
      parts[part[name]] += spent
      rows.append({"cycles": round(spent)} | shown)
    elif row.opcode in _WORK and "AllocateBuffer" not in row.text:
      unknown.append({"bytes": round(size(row) * count)} | shown)
    if trace.COLLECTIVE.match(row.opcode) and "-done" not in row.opcode:
      collectives += {"count": count, "bytes": size(row) * count}
  return {
    "cycles": round(sum(parts.values())),
    "parts": {name: round(value) for name, value in parts.most_common()},
    "collectives": {name: round(x, 1) for name, x in collectives.items()},
    "longest": _largest(rows, "cycles"),
    "without_estimate": len(unknown),
    "unknown": _largest(unknown, "bytes"),
    "loops": [
      {"name": name, "part": part[name], "scope": row.op_name}
      for name, row in program.items()
      if row.opcode == "while" and _length(program, row) is None
    ],
  }


def _largest(rows: list[dict], key: str) -> list[dict]:
  return sorted(rows, key=lambda row: row[key], reverse=True)[:SHOWN]


def _times(
  program: dict[str, trace.Instruction], entry: str
) -> collections.Counter[str]:
  """Counts how often each computation runs, excluding fused ones."""
  inside = collections.defaultdict(list)
  for row in program.values():
    inside[row.inside].append(row)
  times = collections.Counter()

  def run(computation: str, count: int) -> None:
    times[computation] += count
    for row in inside[computation]:
      if row.opcode in trace.CONTAINERS or row.opcode == "async-start":
        for called in row.calls:
          run(called, count * (_length(program, row) or 1))

  run(entry, 1)
  return times


def _length(
  program: dict[str, trace.Instruction], loop: trace.Instruction
) -> int | None:
  """Number of iterations of a loop from 0 to a constant, else None."""
  if loop.opcode != "while":
    return 1
  found, condition = [], _CONDITION.search(loop.text)[1]
  for row in program.values():
    if row.inside == condition and row.text.startswith("pred[]"):
      compared = _COMPARED.search(row.text)
      bound = compared and program.get(compared[1])
      constant = bound and _CONSTANT.search(bound.text)
      known = constant and "direction=LT" in row.text
      found.append(int(constant[1]) if known else None)
  return found[0] if len(found) == 1 else None


def _arrays(row: trace.Instruction) -> Iterator[tuple[str, str]]:
  result = row.text.partition(f" {row.opcode}(")[0]
  return _ARRAY.findall(result)


def size(row: trace.Instruction) -> int:
  """Bytes of an instruction's result.

  Args:
    row: the instruction.

  Returns:
    The number of bytes, without the padding of the layout.
  """
  total = 0
  for dtype, shape in _arrays(row):
    bits = re.sub(r"\D", "", dtype)
    item = _BYTES.get(dtype) or max(int(bits or 8) // 8, 1)
    total += item * math.prod(int(x) for x in shape.split(",") if x)
  return total


def _shape(row: trace.Instruction) -> str:
  arrays = [f"{dtype}[{shape}]" for dtype, shape in _arrays(row)]
  return ", ".join(arrays[:3]) + ", ..." * (len(arrays) > 3)
