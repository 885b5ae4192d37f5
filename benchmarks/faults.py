"""Checks whether the tests catch small faults, seeded one at a time.

  python -m benchmarks.faults CHECKOUT [--only NAME] [--clean]

CHECKOUT is a clone that nothing else uses at the same time. faults.json lists
the faults: what is broken, in which file, and the tests that should catch it.
CAUGHT: a test failed. MISSED: the tests passed. ERROR: anything else; for
example, the text to be replaced does not occur exactly once. The exit code is 0
only if every fault is caught or, with --clean, if all tests pass.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

LIST = pathlib.Path(__file__).with_name("faults.json")
SECONDS = 300  # time limit for the tests of one fault


def main() -> int:
  """Seeds the faults and prints a line for each.

  Returns:
    The exit code.
  """
  faults = json.loads(LIST.read_text(encoding="utf-8"))
  names = [fault["name"] for fault in faults]
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("checkout", type=pathlib.Path)
  parser.add_argument(
    "--only", action="append", choices=names, help="may be repeated"
  )
  parser.add_argument(
    "--clean", action="store_true", help="seed no faults: all tests must pass"
  )
  given = parser.parse_args()
  # The file is restored however this program ends, except by SIGKILL.
  signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
  wanted = [f for f in faults if f["name"] in (given.only or names)]
  good = 0
  for fault in wanted:
    started = time.monotonic()
    try:
      with seeded(given.checkout.resolve(), fault, given.clean):
        word, line = judge(given.checkout, fault["tests"])
    except (ValueError, OSError, SyntaxError) as error:
      word, line = "ERROR", str(error)
    good += word == ("MISSED" if given.clean else "CAUGHT")
    seconds = time.monotonic() - started
    print(f"{word} {seconds:6.1f} s  {fault['name']}  {line}", flush=True)
  print(f"{good} of {len(wanted)} as expected")
  return int(good < len(wanted))


@contextlib.contextmanager
def seeded(
  checkout: pathlib.Path, fault: dict[str, Any], clean: bool
) -> Iterator[None]:
  """Seeds a fault in its file, and restores the file on exit.

  Args:
    checkout: the clone.
    fault: a row of faults.json.
    clean: leave the file as it is.

  Raises:
    ValueError: if the text to be replaced does not occur exactly once.
  """
  path = checkout / fault["file"]
  whole = path.read_bytes()
  old, new = fault["old"].encode(), fault["new"].encode()
  if (count := whole.count(old)) != 1:
    raise ValueError(f"`old` occurs {count} times in {fault['file']}")
  broken = whole if clean else whole.replace(old, new)
  compile(broken, str(path), "exec")
  found = path.stat()
  try:
    path.write_bytes(broken)
    yield
  finally:
    path.write_bytes(whole)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def judge(checkout: pathlib.Path, tests: list[str]) -> tuple[str, str]:
  """Runs tests and judges whether they caught a fault.

  Args:
    checkout: the clone.
    tests: files or names of tests.

  Returns:
    CAUGHT, MISSED or ERROR, and the line of the output that explains it.
  """
  command = [sys.executable, "-m", "pytest", "-x", "-v"]
  command += ["-p", "no:cacheprovider", *tests]
  try:
    done = subprocess.run(
      command,
      cwd=checkout,
      # A stale .pyc would hide the fault, or keep it.
      env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
      capture_output=True,
      text=True,
      timeout=SECONDS,
    )
  except subprocess.TimeoutExpired:
    return "ERROR", f"timed out after {SECONDS} s"
  lines = [line for line in done.stdout.splitlines() if line.strip()] or [""]
  marked = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
  line = (marked or lines)[-1][:160]
  if done.returncode == 0:  # if all tests were skipped, nothing was checked
    return ("MISSED" if " passed" in lines[-1] else "ERROR"), line
  return ("CAUGHT" if done.returncode == 1 else "ERROR"), line


if __name__ == "__main__":
  sys.exit(main())
