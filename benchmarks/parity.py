"""Compares our arithmetic with PyTorch: `python -m benchmarks.parity`.

Writes docs/parity.md; exits with 1 if a value exceeds its bound.
"""

import itertools
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import flax
import jax
import numpy as np
import torch

from benchmarks import distances, setting

Lines = Iterator[tuple[str, bool]]


def main() -> None:
  """Writes the page, and exits with 1 if a value exceeds its bound."""
  torch.set_num_threads(1)  # many small operations
  page = Path(__file__).resolve().parents[1] / "docs" / "parity.md"
  lines = [
    _HEAD.format(**_versions(), size=distances.SIZE, batch=setting.BATCH_SIZE)
  ]
  kept = True
  for part in (
    _batch_table,
    _steps_table,
    _single_table,
    _rounding_table,
    _autoattack_tables,
  ):
    for line, good in part():
      kept &= good
      lines.append(line)
      print(line, flush=True)
  page.write_text("\n".join(lines) + "\n", encoding="utf-8")
  sys.exit(0 if kept else 1)


_HEAD = """# Parity with PyTorch

Made by `python -m benchmarks.parity`, with jax {jax}, flax {flax} and PyTorch
{torch}, on one {machine} CPU. It compares ram_jax with the PyTorch code in
`benchmarks/torch_reference/`. Both sides use the same random weights, images
({size}x{size}, batches of {batch}), views and starting points of attacks. No
weight and no statistic is 0 or 1. On the side of ram_jax, the steps are those
of the program that `train.py` runs. The views are flips and crops instead of
AugMix, whose operations are compared with Pillow in
[paper_map.md](paper_map.md).

The tables show relative differences, |ram_jax - PyTorch| / |PyTorch| of a
tensor, as the maximum over the tensors of a quantity. Values above the bound
are bold. If the loss of an image is 1e-12, the gradient p - 1 has lost twelve
digits on both sides. PGD follows the direction of this gradient, so its
difference is larger there."""


_ROUNDING = """
## float32, momentum after the first step

Difference from PyTorch in float64: median (and maximum) over {draws} draws of
weights and images. Large values occur if rounding moves an activation across
the kink of a ReLU. The median of ram_jax is at most {bound} times that of
PyTorch in float32.
"""

_AUTOATTACK = """
## AutoAttack

Measured by `python -m benchmarks.autoattack_parity`, in float32, on the first
{images} test images of CIFAR-10: how many are still classified correctly after
each attack of `standard`, in the original (fra31/auto-attack, seed 0), in
ram_jax (seed 0), and on how many images the two differ. ResNet-2B is an
external network, WRN-10-1 is one of
[ours](results/cifar10_jpeg_wrn_10_1/README.md).
"""


def _versions() -> dict[str, str]:
  return {
    "jax": jax.__version__,
    "flax": flax.__version__,
    "torch": torch.__version__,
    "machine": platform.machine(),
  }


def _batch_table() -> Lines:
  models = distances.MODELS | distances.OTHER_MODELS
  found = {
    name: distances.one_batch(
      spec, distances.SIZE, attack=name in distances.MODELS
    )
    for name, spec in models.items()
  }
  yield f"\n## float64, one batch: at most {distances.BATCH_BOUND:.0e}\n", True
  yield from _title("quantity", *models)
  for quantity in found["ResNet-18"]:
    row = [found[name].get(quantity) for name in models]
    yield _row([quantity], row, distances.BATCH_BOUND)


def _steps_table() -> Lines:
  quantities = ("parameters", "statistics", "momentum")
  heads = [name.split(".")[1].replace("_", "-") for name in distances.OPTIONS]
  yield f"\n## float64, after steps: at most {distances.STEP_BOUND:.0e}\n", True
  yield from _title("network", "method", *heads, "steps", *quantities)
  rows = [
    (name, *case, setting.STEPS)
    for name in distances.MODELS
    for case in distances.cases()
  ]
  defaults = {name: values[0] for name, values in distances.OPTIONS.items()}
  rows += [
    (name, "robust_augmix", defaults, 1) for name in distances.OTHER_MODELS
  ]
  for name, method, options, count in rows:
    spec = (distances.MODELS | distances.OTHER_MODELS)[name]
    found = distances.several_steps(
      method, spec, distances.SIZE, count, **options
    )
    chosen = [options.get(option, "") for option in distances.OPTIONS]
    numbers = [found[quantity] for quantity in quantities]
    yield _row(
      [name, method, *chosen, str(count)], numbers, distances.STEP_BOUND
    )


def _single_table() -> Lines:
  quantities = ("logits, evaluation", "logits, training", "statistics")
  bound = distances.SINGLE_BOUND
  yield f"\n## float32, one batch: at most {bound:.0e} from PyTorch\n", True
  yield from _title("network", *quantities)
  for name, spec in distances.MODELS.items():
    found = distances.one_batch_in_float32(spec, distances.SIZE)
    yield _row([name], [found[q] for q in quantities], bound)


def _rounding_table() -> Lines:
  bound = distances.ROUNDING_BOUND
  yield _ROUNDING.format(draws=distances.DRAWS, bound=bound), True
  yield from _title("network", "method", "ram_jax", "PyTorch in float32")
  for name, method in itertools.product(
    distances.MODELS, ("standard", "robust_augmix")
  ):
    found = distances.rounding(
      method, distances.MODELS[name], distances.SIZE, distances.DRAWS
    )
    middle, worst = np.median(found, axis=1), found.max(axis=1)
    cells = [f"{m:.1e} ({w:.1e})" for m, w in zip(middle, worst, strict=True)]
    good = bool(middle[0] <= bound * middle[1])
    if not good:
      cells[0] = f"**{cells[0]}**"
    yield f"| {name} | {method} | {' | '.join(cells)} |", good


def _autoattack_tables() -> Lines:
  path = Path(__file__).resolve().parents[1] / "docs/results"
  text = (path / "autoattack_parity.json").read_text(encoding="utf-8")
  cases = json.loads(text)["rows"]
  yield _AUTOATTACK.format(images=cases[0]["images"]), True
  heads = []
  for case in cases:
    name = {"resnet_2b": "ResNet-2B", "wrn_10_1": "WRN-10-1"}[case["network"]]
    norm = {"l2": "L2", "linf": "L-infinity"}[case["norm"]]
    heads.append(f"{name}, {norm} {case['epsilon']:.3g}")
  yield from _title("", *heads)
  for stage, shown in _STAGES.items():
    found = [case["stages"][stage] for case in cases]
    cells = [
      f"{x['original']}, {x['ours']}; {x['differ']} differ" for x in found
    ]
    yield f"| {shown} | {' | '.join(cells)} |", True
  cells = [", ".join(map(str, case["apgd_ce_differ"])) for case in cases]
  text = "APGD-CE with seeds 0, 1, 2: images that differ"
  yield f"| {text} | {' | '.join(cells)} |", True
  cells = [
    f"{x['least']:.4f} to {x['most']:.4f}; {x['above_1_percent']} of "
    f"{x['images']} by more than 1 %"
    for x in (case["fab_norms"] for case in cases)
  ]
  text = "FAB-T, smallest norm found for an image: ratio to the original's"
  yield f"| {text} | {' | '.join(cells)} |", True
  for side, text in (("original", "Square alone, original"), ("ours", "ours")):
    cells = [", ".join(map(str, case["square"][side])) for case in cases]
    if side == "original":
      queries = ", ".join(map(str, cases[0]["square"]["queries"]))
      text += f", after {queries} queries"
    yield f"| {text} | {' | '.join(cells)} |", True


_STAGES = {
  "clean": "clean",
  "apgd-ce": "APGD-CE",
  "apgd-t": "then APGD-T",
  "fab-t": "then FAB-T",
  "square": "then Square",
  "alone-fab-t": "FAB-T alone",
  "alone-square": "Square alone",
}


def _title(*cells: str) -> Lines:
  yield f"| {' | '.join(cells)} |", True
  yield f"|{'---|' * len(cells)}", True


def _row(
  words: list[str], numbers: list[float | None], bound: float
) -> tuple[str, bool]:
  """A line of a table, and whether all its numbers keep the bound."""
  cells = list(words)
  for number in numbers:
    text = "" if number is None else f"{number:.1e}"
    above = number is not None and not number <= bound
    cells.append(f"**{text}**" if above else text)
  return f"| {' | '.join(cells)} |", not any("**" in x for x in cells)


if __name__ == "__main__":
  main()
