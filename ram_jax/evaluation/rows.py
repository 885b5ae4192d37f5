"""Makes rows of results from per-image arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ram_jax.contracts import Note, Row, Setting
from ram_jax.evaluation import calibration

# The evaluators that report calibration.
CALIBRATED = ("clean", "corruption", "c_bar", "cifar10_1")


def row(
  evaluator: str,
  settings: Mapping[str, Setting],
  found: Mapping[str, Any],
  stored: bool = True,
) -> Row:
  """Makes a row.

  Args:
    evaluator: kind of evaluation.
    settings: the row's settings.
    found: `correct`, bool [N]; optionally `finite` (whether the logits are),
      bool [N], and `values`.
    stored: whether `correct` is stored in the row.

  Returns:
    The row; its values contain `not_finite`, the number of images whose logits
    are not finite, unless it is 0.
  """
  correct = found["correct"]
  # JSON has no numpy scalars.
  values = {n: np.asarray(x).item() for n, x in found.get("values", {}).items()}
  if count := int(np.sum(~found.get("finite", np.bool_(True)))):
    values["not_finite"] = count
  count, kept = int(correct.sum()), correct if stored else None
  return Row(evaluator, settings, len(correct), count, kept, values)


def notes(rows: Sequence[Row]) -> list[Note]:
  """Says if AutoAttack was not used, and warns about non-finite values.

  Args:
    rows: rows of all evaluators.

  Returns:
    At most one note of each kind.
  """
  by_evaluator = {}
  for one in rows:
    by_evaluator.setdefault(one.evaluator, []).append(one)
  counts, left_out = [], []
  for name, group in by_evaluator.items():
    bad = [one for one in group if one.values.get("not_finite")]
    if bad:
      worst = max(bad, key=lambda one: one.values["not_finite"] / one.total)
      most = "up to " if len(bad) > 1 else ""
      count = f"{worst.values['not_finite']} of {worst.total}"
      counts.append(f"{most}{count} images in {name}")
    whole = all(set(calibration.NAMES) <= one.values.keys() for one in group)
    if name in CALIBRATED and not whole:
      left_out.append(name)
  found = []
  attacks = {
    one.settings["attack"] for one in by_evaluator.get("adversarial", ())
  }
  text = f"adversarial accuracy: {', '.join(sorted(attacks))}, not AutoAttack"
  known = [] if "autoattack" in by_evaluator or not attacks else [Note(text)]
  if counts:
    found.append(
      "images whose logits are not finite (NaN or infinite) count as "
      f"misclassified: {', '.join(counts)}"
    )
  if left_out:
    found.append(
      "non-finite calibration values are left out: " + ", ".join(left_out)
    )
  return known + [Note(text, "warning") for text in found]
