"""The paper's sentences that no paired test answers: time and frequencies."""

import numpy as np

from ram_jax.report.evidence import (
  ADVERSARIAL,
  AUGMIX,
  METHODS,
  OURS,
  STANDARD,
  Evidence,
  Missing,
)
from ram_jax.report.matching import difference_interval
from ram_jax.report.sentences import Answer, verdict

# Upper ends of the bands, as shares of the highest frequency that an image
# has along an axis (half its side); in the corners are higher ones.
BANDS = {"low": 1 / 3, "middle": 2 / 3, "high": np.inf}


def training_time(evidence: Evidence) -> Answer:
  """Whether training took longer than standard training's and AugMix's.

  Seconds are compared only between equal devices and numbers of updates. They
  are of one training each, without an interval.
  """
  ratios, differing = [], []
  seconds = _seconds(evidence, OURS)
  for method in (STANDARD, AUGMIX):
    if method not in evidence.runs:
      differing.append(f"a run of {METHODS[method]}")
    elif _setting(evidence, method) != _setting(evidence, OURS):
      differing.append(f"device and updates as those of {METHODS[method]}")
    else:
      ratios.append((method, seconds / _seconds(evidence, method)))
  if not ratios:
    raise Missing(" and ".join(differing))
  shown = ", ".join(f"{r:.2f} x {METHODS[method]}'s" for method, r in ratios)
  device = evidence.results(OURS)["device"]
  text = f"{shown}, on {device.get('count')} x {device.get('kind')}"
  answer = verdict(
    not differing and all(ratio > 1 for _, ratio in ratios),
    all(ratio < 1 for _, ratio in ratios),
  )
  return Answer(text, answer, " and ".join(differing))


def high_at_the_cost_of_low(evidence: Evidence) -> Answer:
  """Whether adversarial training errs less at high, more at low frequencies."""
  changes, text = _changes(evidence, ADVERSARIAL)
  (_, low_low, low_high), (_, high_low, high_high) = (
    changes["low"],
    changes["high"],
  )
  agrees = high_high < 0 < low_low
  disagrees = high_low > 0 or low_high < 0
  return Answer(text + _ours(evidence), verdict(agrees, disagrees))


def low_by_augmix(evidence: Evidence) -> Answer:
  """Whether AugMix errs less at low frequencies."""
  changes, text = _changes(evidence, AUGMIX)
  _, low, high = changes["low"]
  return Answer(text + _ours(evidence), verdict(high < 0, low > 0))


def band_errors(wrong: np.ndarray, total: int) -> dict[str, float]:
  """Mean error over the frequencies of each band.

  Args:
    wrong: counts [H,W] of results.json, the lowest frequency in the middle.
    total: images.

  Returns:
    Error in [0, 1] by name of the band.
  """
  axes = [np.arange(size) - size // 2 for size in wrong.shape]
  radius = np.hypot(*np.meshgrid(*axes, indexing="ij"))
  share = radius / (min(wrong.shape) / 2)
  bands = np.searchsorted(list(BANDS.values()), share)
  return {
    name: float(wrong[bands == i].mean()) / total
    for i, name in enumerate(BANDS)
  }


def _changes(
  evidence: Evidence, method: str
) -> tuple[dict[str, tuple[float, float, float]], str]:
  """Change of error against standard training: value, low, high by band."""
  parts = evidence.part("fourier", STANDARD, method)
  _check_images(evidence, STANDARD, method)
  total = parts[0]["total"]
  base, other = (band_errors(np.array(p["wrong"]), total) for p in parts)
  changes = {
    name: (
      other[name] - base[name],
      *difference_interval(other[name], total, base[name], total),
    )
    for name in BANDS
  }
  shown = ", ".join(
    f"{name} {100 * value:+z.1f} [{100 * low:+z.1f}, {100 * high:+z.1f}]"
    for name, (value, low, high) in changes.items()
  )
  text = f"error of {METHODS[method]} less that of standard training: {shown}"
  return changes, text


def _ours(evidence: Evidence) -> str:
  """RobustAugMix's changes, for comparison; nothing where not measured."""
  try:
    return "; " + _changes(evidence, OURS)[1]
  except Missing:
    return ""


def _check_images(evidence: Evidence, *methods: str) -> None:
  tests = [evidence.results(m).get("data", {}).get("test") for m in methods]
  if None in tests or tests[0] != tests[1]:
    names = " and ".join(METHODS[method] for method in methods)
    raise Missing(f"the same test images for {names}")


def _seconds(evidence: Evidence, method: str) -> float:
  timing = evidence.results(method).get("timing", {})
  if not timing.get("train_seconds"):
    raise Missing(f"training time of {METHODS[method]}")
  return timing["train_seconds"]


def _setting(evidence: Evidence, method: str) -> tuple:
  results = evidence.results(method)
  return results.get("device"), results["run"].get("step")
