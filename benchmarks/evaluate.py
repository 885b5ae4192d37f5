r"""Evaluation compared with PyTorch or another version.

    python -m benchmarks.evaluate --models=resnet18:64,wrn_16_2:128
    python -m benchmarks.evaluate --pytorch=compiled --precision=tensorfloat32

Clean accuracy and PGD-10. Ours is what `--mode=evaluate` runs, from uint8
images on the host to the correctness of each; with --corruptions, also on
corrupted images of all severities, which the PyTorch side does not generate.
"""

from typing import Any

import jax
import torch

from benchmarks import our_evaluation, our_step, timing, torch_step, versions


def main() -> None:
  """Evaluates every network."""
  models = "resnet18:64,wrn_16_2:128,wrn_50_2:8"
  parser = timing.parser(__doc__, models)
  parser.add_argument("--pytorch", default="eager", help=torch_step.HELP)
  parser.add_argument("--baseline", help="CHECKOUT of another version")
  parser.add_argument(
    "--precision", default="highest", choices=("highest", "tensorfloat32")
  )
  parser.add_argument("--corruptions", default="", help="names, such as fog")
  parser.add_argument("--name", default="evaluate", help="of the file")
  flags = parser.parse_args()
  exact = flags.precision == "highest"
  torch.backends.cudnn.allow_tf32 = not exact
  torch.set_float32_matmul_precision("highest" if exact else "high")
  for model, batch in timing.networks(flags.models):
    with jax.default_matmul_precision(flags.precision):
      row = measure(model, batch, flags)
    timing.add(flags.name, {"model": model, "batch": batch} | row, flags.out)


def measure(model: str, batch: int, flags: Any) -> dict[str, Any]:
  """One network.

  Args:
    model: its short name.
    batch: images at once.
    flags: of the command line.

  Returns:
    By part, images per second of each side and the ratio to the first side; and
    seconds of the first run, with compilation.
  """
  names = tuple(filter(None, flags.corruptions.split(",")))
  parts = {}
  if flags.pytorch:
    step = our_step.build("standard", model, batch)
    theirs = torch_step.evaluation(step, our_evaluation.STEPS, flags.pytorch)
    side = "pytorch" if flags.pytorch == "eager" else f"pytorch_{flags.pytorch}"
    parts[side] = {"clean": theirs["clean"], "pgd": theirs["attack"]}
  if flags.baseline:
    old = versions.Checkout(flags.baseline)
    found = old.load("benchmarks.our_evaluation").parts(model, batch, names)
    parts["baseline"] = {k: old.bound(part) for k, part in found.items()}
  parts["ours"] = our_evaluation.parts(model, batch, names)
  row = {}
  for part in parts["ours"]:
    sides = {side: f[part] for side, f in parts.items() if part in f}
    work = batch * (5 * len(names) if part == "corruptions" else 1)
    found = timing.compare(sides, flags.repeats)
    row[part] = {side: work / found[side]["seconds"] for side in sides} | {
      "ratio": found["ours"]["ratio"]
    }
    row[f"first {part}"] = {side: found[side]["first"] for side in sides}
  return row


if __name__ == "__main__":
  main()
