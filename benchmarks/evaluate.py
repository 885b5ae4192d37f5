r"""Times the evaluation against PyTorch or another version.

    python -m benchmarks.evaluate --models=resnet18:64,wrn_16_2:128
    python -m benchmarks.evaluate --pytorch=compiled --precision=tensorfloat32

Clean accuracy and PGD-10. ram_jax's side is what `--mode=evaluate` runs, from
uint8 images on the host to whether each is classified correctly. --corruptions
also evaluates corrupted images at all severities, but not with PyTorch.
"""

from typing import Any

import jax
import torch

from benchmarks import our_evaluation, our_step, timing, torch_step, versions


def main() -> None:
  """Times the evaluation of every network and writes the results."""
  models = "resnet18:64,wrn_16_2:128,wrn_50_2:8"
  parser = timing.parser(__doc__, models)
  parser.add_argument("--pytorch", default="eager", help=torch_step.HELP)
  parser.add_argument("--baseline", help="CHECKOUT of another version")
  parser.add_argument(
    "--precision", default="highest", choices=("highest", "tensorfloat32")
  )
  parser.add_argument("--corruptions", default="", help="names, such as fog")
  parser.add_argument("--name", default="evaluate", help="name of the file")
  flags = parser.parse_args()
  exact = flags.precision == "highest"
  torch.backends.cudnn.allow_tf32 = not exact
  torch.set_float32_matmul_precision("highest" if exact else "high")
  for model, batch in timing.networks(flags.models):
    with jax.default_matmul_precision(flags.precision):
      row = measure(model, batch, flags)
    timing.add(flags.name, {"model": model, "batch": batch} | row, flags.out)


def measure(model: str, batch: int, flags: Any) -> dict[str, Any]:
  """Times the evaluation of one network.

  Args:
    model: short name of the network.
    batch: batch size.
    flags: command-line flags.

  Returns:
    For each part, images per second of each side and ram_jax's speedup over the
    first side; and seconds of the first run, including compilation.
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
