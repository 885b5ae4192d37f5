"""Numbers of natural corruptions, from results.json: means, relative errors."""

from collections.abc import Mapping, Sequence
from typing import Any

from ram_jax.data.cifar_c import NAMES, SEVERITIES
from ram_jax.runs.results import Counts, Run

# Those of the benchmark, and those meant for validation (Hendrycks and
# Dietterich 2019), which the paper counts too.
BENCHMARK, EXTRA = NAMES[:15], NAMES[15:]
# The extra ones stand where their authors' description puts them.
CATEGORIES = {
  "noise": (*BENCHMARK[:3], "speckle_noise"),
  "blur": (*BENCHMARK[3:7], "gaussian_blur"),
  "weather": (*BENCHMARK[7:11], "spatter"),
  "digital": (*BENCHMARK[11:], "saturate"),
}
# Measures of calibration: name in results.json, name for people, largest value.
CALIBRATION = (
  ("rms", "RMS", 1.0),
  ("ece", "ECE", 1.0),
  ("nll", "NLL", float("inf")),
  ("brier", "Brier", 2.0),
)


def rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The rows of each corruption and severity; none where not measured."""
  return results.get("corruption", {}).get("by_corruption", [])


def cells(results: Mapping[str, Any], name: str) -> dict[int, Counts]:
  """Counts (correct, total) of one corruption by severity, ascending."""
  counts = {
    row["severity"]: (row["correct"], row["total"])
    for row in rows(results)
    if row["corruption"] == name
  }
  return dict(sorted(counts.items()))


def categories(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
  """The corruptions that some run was measured on.

  Args:
    runs: the runs.

  Returns:
    Names by category, in the benchmark's order; unknown names under "other".
  """
  found = dict.fromkeys(
    row["corruption"] for run in runs for row in rows(run.results)
  )
  result = {
    category: tuple(name for name in names if name in found)
    for category, names in CATEGORIES.items()
  }
  result["other"] = tuple(name for name in found if name not in NAMES)
  return {category: names for category, names in result.items() if names}


def measured(
  results: Mapping[str, Any], names: Sequence[str]
) -> tuple[str, ...]:
  """Those of the corruptions that were measured at any severity."""
  found = {row["corruption"] for row in rows(results)}
  return tuple(name for name in names if name in found)


def is_whole(results: Mapping[str, Any], names: Sequence[str]) -> bool:
  """Whether every one was measured at all five severities."""
  return all(tuple(cells(results, name)) == SEVERITIES for name in names)


def mean(results: Mapping[str, Any], names: Sequence[str]) -> float | None:
  """Mean accuracy in [0, 1] over corruptions and severities, each alike.

  The mean of accuracies, as CIFAR-10-C defines it (Hendrycks and Dietterich
  2019, section 3), not the accuracy of the pooled images.

  Args:
    results: a run's results.
    names: the corruptions; those that were not measured are left out.

  Returns:
    The mean, or None where none of them was measured.
  """
  values = [
    row["correct"] / row["total"]
    for row in rows(results)
    if row["corruption"] in names
  ]
  return sum(values) / len(values) if values else None


def headline(results: Mapping[str, Any]) -> float | None:
  """Mean accuracy in [0, 1] over `headline_names`; None without any."""
  return mean(results, headline_names(results))


def headline_names(results: Mapping[str, Any]) -> tuple[str, ...]:
  """Those of the benchmark's 15 that were measured; if none, whatever was."""
  found = tuple(dict.fromkeys(row["corruption"] for row in rows(results)))
  return measured(results, BENCHMARK) or found


def descriptions(results: Mapping[str, Any]) -> list[str]:
  """What the corruption mean of tables is a mean of, one sentence each.

  Args:
    results: a run's results.

  Returns:
    None where no corruption was measured.
  """
  if not rows(results):
    return []
  part, names = results["corruption"], headline_names(results)
  said = f"corruption mean: {part['label']}, {len(names)} corruptions"
  if is_whole(results, BENCHMARK):
    said = f"15 corruptions: {part['label']}, the benchmark's"
  elif names[0] in BENCHMARK:
    said += " of the benchmark's 15"
  found = {
    row["severity"] for row in rows(results) if row["corruption"] in names
  }
  levels = ", ".join(map(str, sorted(found)))
  found = [
    f"{said}, severities {levels}; of one run no interval, as the same images "
    "recur in each"
  ]
  if part.get("generated"):
    found.append("corrupted images generated, not those that were published")
  found += [
    f"{name} was not measured: {reason}"
    for name, reason in part.get("missing", {}).items()
  ]
  return found


def relative_error(
  results: Mapping[str, Any],
  baseline: Sequence[Mapping[str, Any]],
  names: Sequence[str],
) -> float | None:
  """Mean corruption error relative to a baseline's.

  For each corruption the sum of errors over severities, divided by the
  baseline's, and the mean of these ratios (Hendrycks and Dietterich 2019,
  section 4, there with AlexNet as the baseline).

  Args:
    results: a run's results.
    baseline: the baseline's, one per seed; its errors are averaged.
    names: the corruptions; only what both have at the same severities counts.

  Returns:
    The mean ratio, at least 0; None where they share nothing, or where the
    baseline makes no error.
  """
  ratios = []
  for name in names:
    ours = cells(results, name)
    theirs = [cells(other, name) for other in baseline]
    shared = [s for s in ours if all(s in other for other in theirs)]
    error = sum(_error(ours[s]) for s in shared)
    errors = [sum(_error(other[s]) for s in shared) for other in theirs]
    if shared and sum(errors):
      ratios.append(error * len(errors) / sum(errors))
  return sum(ratios) / len(ratios) if ratios else None


def clean_calibration(results: Mapping[str, Any], key: str) -> float | None:
  """A measure of calibration on clean images; None where not measured."""
  return results.get("clean", {}).get("calibration", {}).get(key)


def corrupted_calibration(results: Mapping[str, Any], key: str) -> float | None:
  """Its mean over the corruptions of `headline` and their severities.

  None also where one of them was not finite: the mean of the others would be of
  fewer images than that of another run.
  """
  names = headline_names(results)
  values = [
    row["calibration"].get(key)
    for row in rows(results)
    if row["corruption"] in names and "calibration" in row
  ]
  if None in values or not values:
    return None
  return sum(values) / len(values)


def _error(counts: Counts) -> float:
  return 1 - counts[0] / counts[1]
