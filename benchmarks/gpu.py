r"""All GPU measurements within a time limit, the most important ones first.

    python -m benchmarks.gpu --minutes=9 --baseline=CHECKOUT
    python -m benchmarks.gpu --minutes=60 --tiny     # a dry run on a CPU

Every item runs in its own process with a time limit and writes its file after
each row, so a failure, a hang or the time limit does not affect other results.
With --baseline, ram_jax alternates with another version in the same process.
--original is the folder of AugMix's code; --autoattack and --data are the flags
--original and --data of `benchmarks/autoattack.py`. To generate the page, run
`benchmarks.all --page-only`.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Leave memory for PyTorch; by default, JAX would allocate three quarters.
MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}
FULL = {
  "small": "resnet18:128",
  "large": "wrn_50_2:128",
  "evaluated": "resnet18:512",
  "batches": "128,1024,8192",
  "form": "compiled",
  "uncaptured": "uncaptured",
  "autotuned": "autotuned",
  "corruptions": "gaussian_noise,glass_blur,fog,jpeg_compression",
  "attacked": "wrn_10_1",
  "images": 250,
  "repeats": 5,
}
TINY = {
  "small": "wrn_10_1:4",
  "large": "wrn_16_1:4",
  "evaluated": "wrn_10_1:4",
  "batches": "2,4",
  "form": "traced",
  "uncaptured": "traced",
  "autotuned": "traced",
  "corruptions": "fog",
  "attacked": "resnet_2b",
  "images": 4,
  "repeats": 1,
}


def main() -> None:
  """Runs the items until the time limit, and records each item's status."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--minutes", type=float, default=9)
  parser.add_argument("--baseline", help="CHECKOUT of another version")
  parser.add_argument("--original", help="FOLDER of AugMix's code")
  parser.add_argument("--autoattack", help="FOLDER of the original")
  parser.add_argument("--data", help="FOLDER, see benchmarks/autoattack.py")
  parser.add_argument("--only", help="numbers of items, such as 1,3")
  parser.add_argument("--tiny", action="store_true", help="tiny networks")
  parser.add_argument("--out", default=str(ROOT / "docs/results/speed"))
  flags = parser.parse_args()
  begin, path = time.monotonic(), pathlib.Path(flags.out) / "gpu.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  found = {}
  if path.exists():
    found = json.loads(path.read_text(encoding="utf-8"))["items"]
  chosen = flags.only and set(map(int, flags.only.split(",")))
  with tempfile.TemporaryDirectory() as cache:
    for number, item in enumerate(items(flags), start=1):
      if chosen and number not in chosen:
        continue
      start = time.monotonic()
      left = 60 * flags.minutes - (start - begin)
      status = "did not fit"
      if left > 3 * flags.minutes:  # less would be too short to be useful
        limit = min(left, 24 * flags.minutes)  # at most two fifths of the total
        status = run([*item, f"--out={flags.out}"], limit, cache)
      seconds = round(time.monotonic() - start)
      title = re.sub(r"=\S*/\S*", "", " ".join(item))  # without folders
      print(f"{number}. {title}: {status}, {seconds} s", flush=True)
      found[title] = {"status": status, "seconds": seconds}
      text = json.dumps({"items": found}, indent=2)
      path.write_text(text + "\n", encoding="utf-8")


def items(flags: argparse.Namespace) -> list[list[str]]:
  """Lists the items to run, the most important ones first.

  Args:
    flags: command-line flags.

  Returns:
    For each item, the name of a benchmark and its flags.
  """
  size = TINY if flags.tiny else FULL
  repeats = f"--repeats={size['repeats']}"
  before = [f"--baseline={flags.baseline}"] if flags.baseline else []
  alone = ["--pytorch=", repeats]
  executions = "--executions=dense,table_and_warp"
  others = "--methods=standard,augmix,adversarial"

  def step(network: str, methods: str, *options: str) -> list[str]:
    return ["step", f"--models={size[network]}", methods, *options]

  def beside(network: str, form: str, *options: str) -> list[str]:
    options = f"--pytorch={form}", f"--name=step_pytorch_{form}", *options
    return step(network, ROBUST, "--parts=", repeats, *options)

  def evaluate(*options: str) -> list[str]:
    return ["evaluate", f"--models={size['evaluated']}", repeats, *options]

  tf32 = "--precision=tensorfloat32", "--name=evaluate_tensorfloat32"
  found = [
    step("small", ROBUST, *alone, *before),
    beside("small", size["form"]),
    ["augmix", f"--batches={size['batches']}", executions, repeats, *before],
    step("large", ROBUST, "--parts=", *alone, *before),
    evaluate("--pytorch=", f"--corruptions={size['corruptions']}", *before),
    evaluate(f"--pytorch={size['form']}", *tf32),
    step("large", ROBUST, "--name=step_parts", *alone),
    step("small", others, *alone),
    beside("large", size["form"]),
    beside("small", size["uncaptured"]),
  ]
  if flags.original:
    loaders = f"--original={flags.original}", "--name=step_pytorch_loaders"
    found.append(beside("small", size["form"], *loaders))
  if flags.data:
    original = flags.autoattack and f"--original={flags.autoattack}"
    attacked = f"--networks={size['attacked']}", f"--images={size['images']}"
    options = f"--data={flags.data}", *attacked, "--repeats=1"
    found.append(["autoattack", *options, *filter(None, [original])])
  found += [
    step("large", others, *alone),
    evaluate(f"--pytorch={size['form']}", "--name=evaluate_pytorch"),
    beside("small", size["autotuned"]),
  ]
  return found


ROBUST = "--methods=robust_augmix"


def run(item: list[str], limit: float, cache: str) -> str:
  """Runs one item, and kills it and its children at the time limit.

  Args:
    item: a benchmark and its flags.
    limit: seconds.
    cache: JAX's compilation cache. Evaluations do not use it, because the
      timing of their first run includes compilation.

  Returns:
    `done`, `failed` or `stopped after N s`.
  """
  name, *options = item
  cache = "" if name == "evaluate" else cache
  with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
    process = subprocess.Popen(
      [sys.executable, "-m", f"benchmarks.{name}", *options],
      cwd=ROOT,
      env=os.environ | MEMORY | {"JAX_COMPILATION_CACHE_DIR": cache},
      stdout=output,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    try:
      status = "failed" if process.wait(limit) else "done"
    except subprocess.TimeoutExpired:
      status = f"stopped after {limit:.0f} s"
    finally:
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    output.seek(0)
    if status != "done":
      print(output.read()[-2000:], flush=True)
  return status


if __name__ == "__main__":
  main()
