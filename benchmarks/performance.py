"""The measured part of docs/performance.md, from the benchmarks' JSON files."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from ram_jax import trace

MARK = "## Measured\n"
MEMORY = ("arguments, MiB", "temporary, MiB")
REDUCED = "all-reduced, MB"
SIDES = {
  "pytorch": "PyTorch",
  "pytorch_and_pillow": "PyTorch and Pillow",
  "pytorch_compiled": "PyTorch compiled",
  "pytorch_uncaptured": "PyTorch compiled, no CUDA graph",
  "pytorch_autotuned": "PyTorch autotuned",
  "pytorch_traced": "PyTorch traced",
  "pytorch_and_loaders": "PyTorch and loaders",
  "baseline": "before",
  "ours": "ram_jax",
}

RATES = {
  "original": "original, images/s",
  "baseline": "before, images/s",
  "ours": "ram_jax, images/s",
  "one_by_one": "one by one",
  "dense": "dense",
  "table_and_warp": "table and warp",
  "ratio": "speedup",
}


def page(before: str, folder: pathlib.Path) -> str:
  """Replaces the measured part of a page.

  Args:
    before: the page; the text before `MARK` is kept.
    folder: folder of the JSON files; each of them becomes a table.

  Returns:
    The new page.
  """
  parts = [before.partition(MARK)[0] + MARK]
  for path in sorted(folder.glob("*.json")):
    result = json.loads(path.read_text(encoding="utf-8"))
    kind = path.stem.partition("_")[0]
    parts.append(f"### {path.stem.replace('_', ' ')}\n")
    if "machine" in result:
      parts.append(_machine(result["machine"]) + "\n")
    parts += [*TABLES[kind](result), ""]
  text = "\n".join(parts).replace(" 1 cores", " 1 core")
  return text.rstrip() + "\n"


def _machine(found: dict[str, Any]) -> str:
  versions = found["versions"]
  shown = ", ".join(
    f"{name} {versions[name]}"
    for name in ("python", "jax", "torch", "pillow")
    if name in versions
  )
  return (
    f"{found['count']} x {found['device']}, {found['cores']} cores of "
    f"{found['processor']}; {shown}."
  )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
  yield f"| {' | '.join(head)} |"
  yield f"|{'---|' * len(head)}"
  for row in rows:
    yield f"| {' | '.join(map(_cell, row))} |"


def _cell(value: Any) -> str:
  if value is None:
    return ""
  if isinstance(value, float):
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
  return str(value)


def _rates(result: dict[str, Any], head: str) -> Iterator[str]:
  rates = result["images_per_second"]
  names = [name for name in RATES if name in next(iter(rates.values()))]
  rows = [[name, *map(row.get, names)] for name, row in rates.items()]
  if "mixed" in result:
    rows.append(["all mixed", *map(result["mixed"].get, names)])
  yield from _table([head, *map(RATES.get, names)], rows)


def _step(result: dict[str, Any]) -> Iterator[str]:
  rows = result["rows"]
  sides = [side for side in SIDES if any(side in r["seconds"] for r in rows)]
  yield from _table(
    [
      "network, batch",
      "method",
      *(f"{SIDES[side]}, s" for side in sides),
      f"{SIDES[sides[0]]} / ram_jax",
      "of matmul peak",
      "step / sum of parts",
    ],
    [
      [_case(row), row["method"], *map(row["seconds"].get, sides)]
      + [row["ratio"]["ours"], f"{100 * row['peak_share']:.0f} %"]
      + [row.get("step_over_parts")]
      for row in rows
    ],
  )
  peak = result["matmul_flops_per_second"] / 1e9
  yield f"\nPeak: {peak:.0f} GFLOP/s, measured with a large matrix product.\n"
  parted = [row for row in rows if "parts" in row]
  if parted:
    names = parted[0]["parts"]
    yield from _table(
      ["parts of", "method", *(f"{n.replace('_', ' ')}, s" for n in names)],
      [[_case(row), row["method"], *row["parts"].values()] for row in parted],
    )


def _case(row: dict[str, Any]) -> str:
  return f"{row['model']}, {row['batch']}"


def _evaluate(result: dict[str, Any]) -> Iterator[str]:
  rows = result["rows"]
  sides = [side for side in SIDES if side in rows[0]["clean"]]
  first = [side for side in sides if side in rows[0].get("first clean", {})]
  yield from _table(
    [
      "network, batch",
      "",
      *(f"{SIDES[side]}, images/s" for side in sides),
      "speedup",
      *(f"first run of {SIDES[side]}, s" for side in first),
    ],
    [
      [_case(row), part, *map(row[part].get, [*sides, "ratio"])]
      + [row[f"first {part}"].get(side) for side in first]
      for row in rows
      for part in ("clean", "pgd", "corruptions")
      if part in row
    ],
  )


def _gpu(result: dict[str, Any]) -> Iterator[str]:
  rows = [[f"`{k}`", *row.values()] for k, row in result["items"].items()]
  yield from _table(["benchmark", "", "s"], rows)


def _attack(result: dict[str, Any]) -> Iterator[str]:
  rows = []
  for row in result["rows"]:
    gradient, attack = row["gradient"], row["attack"]
    times = [
      found[side]["seconds"]
      for found, side in (
        (gradient, "pytorch"),
        (gradient, "ours"),
        (gradient, "all_gradients"),
        (attack, "pytorch"),
        (attack, "ours"),
        (attack, "loop"),
      )
    ]
    rows.append([_case(row), *times, attack["ours"]["ratio"]])
  yield from _table(
    [
      "network, batch",
      "input gradient, PyTorch, s",
      "input gradient, ram_jax, s",
      "with weight gradients, s",
      "PGD-7, PyTorch, s",
      "PGD-7, ram_jax, s",
      "in a loop, s",
      "speedup",
    ],
    rows,
  )


def _startup(result: dict[str, Any]) -> Iterator[str]:
  seconds = result["seconds"]
  yield from _table(
    ["network", "cold, s", "warm, s", "warm / cold"],
    [
      [
        result["model"],
        seconds["cold"],
        seconds["warm"],
        result["warm_over_cold"],
      ]
    ],
  )


def _scaling(result: dict[str, Any]) -> Iterator[str]:
  yield f"{result['model']}, batch {result['batch']}.\n"
  rows = [
    [count, *(row[name] for name in ("seconds", "over_one_device"))]
    + [row["bytes_a_step"] / 1e6]
    for count, row in result["by_count"].items()
  ]
  columns = ["simulated devices", "step, s", "relative to one device"]
  yield from _table([*columns, "all-reduced per step, MB"], rows)


def _tpu(result: dict[str, Any]) -> Iterator[str]:
  versions = result["versions"]
  yield (
    f"Estimates of the TPU compiler (libtpu {versions['libtpu']}, jax "
    f"{versions['jax']}) for {result['topology']}, in millions of cycles per "
    "chip; nothing was run on a TPU. Training: cycles per step.\n"
  )
  trained = [row for row in result["rows"] if row["program"] == "train"]
  parts = [*trace.PARTS.values(), trace.OTHER]
  if trained:
    yield from _table(
      ["network, batch", "method", "chips", "all", *parts, *MEMORY, REDUCED],
      [_tpu_row(row, parts) for row in trained],
    )
    yield ""
  others = [row for row in result["rows"] if row["program"] != "train"]
  if others:
    yield from _table(
      ["network, batch", "method", "chips", "program", "all", *MEMORY],
      [_tpu_row(row, ()) for row in others],
    )


def _tpu_row(row: dict[str, Any], parts: Sequence[str]) -> Iterator[Any]:
  yield f"{row['model']}, {row['batch_size']}"
  yield from (row["method"], row["chips"])
  if not parts:
    yield row["program"]
  if "error" in row:
    yield "rejected"
    return
  yield row["cycles"] / 1e6
  yield from (row["parts"].get(part, 0) / 1e6 for part in parts)
  yield from (row["memory_mib"][name] for name in ("argument", "temp"))
  if parts:
    yield row["collectives"].get("bytes", 0) / 1e6


def _autoattack(result: dict[str, Any]) -> Iterator[str]:
  rows = [
    [
      f"{row['model']}, {row['norm']} {row['epsilon']}, {row['images']}",
      row["seconds"].get("original"),
      *(row[kind][v] for v in ("standard", "fast") for kind in KINDS),
    ]
    for row in result["rows"]
  ]
  head = ["network, attack, images", "original, s", "standard, s", "speedup"]
  yield from _table([*head, "fast, s", "speedup over the original"], rows)
  yield "\nIncluding compilation; the original is version `standard`."


def _corruption_evaluation(result: dict[str, Any]) -> Iterator[str]:
  rows = [
    [kind, *(result[kind][name] for name in ("baseline", "ours", "ratio"))]
    for kind in ("processor", "wall")
  ]
  yield from _table(
    ["time", "before, s", "ram_jax, s", "ram_jax / before"], rows
  )
  yield f"\n{result['images']} images, with an empty compilation cache."


KINDS = ("seconds", "ratio")
TABLES = {
  "corruption": _corruption_evaluation,
  "autoattack": _autoattack,
  "augmix": lambda result: _rates(result, "batch"),
  "corruptions": lambda result: _rates(result, "corruption"),
  "step": _step,
  "evaluate": _evaluate,
  "gpu": _gpu,
  "attack": _attack,
  "startup": _startup,
  "scaling": _scaling,
  "tpu": _tpu,
}
