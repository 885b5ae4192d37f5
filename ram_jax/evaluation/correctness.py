"""Which images were classified correctly: counts and bits of results.

Evaluators return a bool array [N] under `correct`; results.json takes its sum,
correct.npz its bits, for paired tests.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ram_jax.evaluation import calibration


def counted(measured: Any, name: str, bits: dict[str, np.ndarray]) -> Any:
  """Puts counts in the place of arrays, and keeps the arrays' bits.

  Args:
    measured: what an evaluator returned: dicts, lists, numbers and, under
      `correct`, bool arrays.
    name: of the evaluator.
    bits: gains a row of packed bits for each array. A row's name is the
      evaluator's, then the values that stand before `correct` in its dict.

  Returns:
    The same tree with counts.
  """
  if isinstance(measured, list):
    return [counted(part, name, bits) for part in measured]
  if not isinstance(measured, dict):
    return measured
  if not isinstance(measured.get("correct"), np.ndarray):
    return {key: counted(part, name, bits) for key, part in measured.items()}
  fields = list(measured)
  before = [measured[field] for field in fields[: fields.index("correct")]]
  correct = measured["correct"]
  bits["/".join([name, *map(str, before)])] = np.packbits(correct)
  return measured | {"correct": int(correct.sum())}


def not_finite(finite: np.ndarray) -> dict[str, int]:
  """The entry of a row of results.json that counts images without a prediction.

  Args:
    finite: whether the logits are finite, bool [N].

  Returns:
    `not_finite`, the number of the others; empty where there is none.
  """
  count = int(np.sum(~finite))
  return {"not_finite": count} if count else {}


def warnings(results: dict[str, Any]) -> list[str]:
  """Sentences about logits and calibrations that are not finite.

  Args:
    results: of results.json, by evaluator.

  Returns:
    One sentence for each kind, none where all is finite.
  """
  counts, left_out = [], []
  for name, part in results.items():
    rows = [row for row in _rows(part, {}) if row.get("not_finite")]
    if rows:
      worst = max(rows, key=lambda row: row["not_finite"] / row["total"])
      most = "up to " if len(rows) > 1 else ""
      counts.append(
        f"{most}{worst['not_finite']} of {worst['total']} images in {name}"
      )
    calibrations = [
      r["calibration"] for r in _rows(part, {}) if "calibration" in r
    ]
    if any(set(calibration.NAMES) - c.keys() for c in calibrations):
      left_out.append(name)
  found = []
  if counts:
    found.append(
      "the network's logits are not finite (NaN or infinite), which counts as "
      f"wrong: {', '.join(counts)}"
    )
  if left_out:
    found.append(
      "calibration that is not finite is left out: " + ", ".join(left_out)
    )
  return found


def _rows(tree: Any, above: dict[str, Any]) -> Iterator[dict[str, Any]]:
  """Every dict of an evaluator's results, with the `total` it counts from."""
  if isinstance(tree, list):
    for part in tree:
      yield from _rows(part, above)
  if isinstance(tree, dict):
    total = {"total": tree.get("total", tree.get("images", above.get("total")))}
    yield tree | total
    for part in tree.values():
      yield from _rows(part, total)
