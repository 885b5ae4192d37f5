"""Runs the main speed benchmarks and writes docs/performance.md.

    python -m benchmarks.all --original=FOLDER --corruptions=FILE.py

AugMix and the corruptions are timed on one core and on two. Without --original,
only ram_jax's AugMix is timed; without --corruptions, the corruptions are
skipped. With --page-only, the page is regenerated from the existing results.
"""

import argparse
import pathlib
import subprocess
import sys

from benchmarks import performance, timing

ROOT = pathlib.Path(__file__).resolve().parents[1]
ONE, TWO = ["taskset", "-c", "0"], ["taskset", "-c", "0,1"]


def main() -> None:
  """Runs the benchmarks one at a time, as each needs the whole machine."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--original", help="FOLDER of AugMix's code")
  parser.add_argument("--corruptions", help="FILE.py of CIFAR-10-C's code")
  parser.add_argument("--page-only", action="store_true")
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  if not flags.page_only:
    for command in commands(flags.original, flags.corruptions):
      print(*command, flush=True)
      subprocess.run([*command, f"--out={flags.out}"], cwd=ROOT, check=True)
  page = ROOT / "docs" / "performance.md"
  text = performance.page(
    page.read_text(encoding="utf-8"), pathlib.Path(flags.out)
  )
  page.write_text(text, encoding="utf-8")
  print(f"Written: {page}")


def commands(original: str | None, corruptions: str | None) -> list[list[str]]:
  """Builds the command lines of the benchmarks.

  Args:
    original: folder of AugMix's code, if available.
    corruptions: file of CIFAR-10-C's code, if available.

  Returns:
    Command lines, in order.
  """
  mixed = [f"--original={original}"] if original else []
  found = [(cores, "augmix", mixed) for cores in (ONE, TWO)]
  found += [([], name, []) for name in ("attack", "evaluate", "startup")]
  found += [([], "scaling", []), ([], "step", mixed)]
  if corruptions:
    options = [f"--original={corruptions}"]
    found += [(cores, "corruptions", options) for cores in (ONE, TWO)]
  return [
    [*cores, sys.executable, "-m", f"benchmarks.{name}", *options]
    for cores, name, options in found
  ]


if __name__ == "__main__":
  main()
