"""Which images were classified rightly: counts and bits from what was measured.

Evaluators return a bool array [N] under `correct`; results.json takes its sum,
correct.npz its bits, for paired tests.
"""

import os
import pathlib
from typing import Any

import numpy as np


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


def write(bits: dict[str, np.ndarray], path: pathlib.Path) -> None:
  """Writes correct.npz so that a reader finds the old or the new, never half.

  Args:
    bits: from `counted`.
    path: the file; its folder is made if missing.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_suffix(".part")
  with open(part, "wb") as file:
    np.savez(file, **bits)
    file.flush()
    os.fsync(file.fileno())  # as `run_folder.write_json`
  part.replace(path)
