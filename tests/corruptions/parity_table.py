"""Prints the tables of docs/paper_map.md: comparison with the original images.

Run it as `python tests/corruptions/parity_table.py`; it needs the development
data beside the checkout.
"""

import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for running it as a script

from ram_jax import corruptions  # noqa: E402
from tests.corruptions import c_bar_test, reference, reruns_test  # noqa: E402


def main():
  print(
    "Fraction of pixel values that equal the original, are within 1, and "
    "within 2, over 32 images at five severities; and the largest "
    "difference.\n\n"
    "| corruption | equal | within 1 | within 2 | largest |\n"
    "|---|---|---|---|---|"
  )
  folder = ROOT.parent / "shared" / "data"
  for name, function in corruptions.CORRUPTIONS.items():
    if name in reruns_test.GOLDEN["corruptions"]:
      continue
    found = reference.differences(function, folder)
    shares = [f"{100 * np.mean(found <= level):.3f} %" for level in range(3)]
    print(f"| {name} | {' | '.join(shares)} | {found.max()} |", flush=True)
  print("\nThe same for CIFAR-10-C-bar, given the original's draws.\n")
  for name in corruptions.C_BAR:
    found = np.stack([c_bar_test.difference(name, s) for s in range(1, 6)])
    shares = [f"{100 * np.mean(found <= level):.3f} %" for level in range(3)]
    print(f"| {name} | {' | '.join(shares)} | {found.max()} |", flush=True)
  print()
  reruns_test.main()


if __name__ == "__main__":
  main()
