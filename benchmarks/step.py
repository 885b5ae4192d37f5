r"""A training step of the four methods, beside the same step in PyTorch.

    python -m benchmarks.step --models=resnet18:32,wrn_16_2:64,wrn_50_2:8

A column of PyTorch is the reference of `benchmarks/torch_reference`: eager in
float32, its AugMix views given; with --original (see `benchmarks/augmix.py`)
also with AugMix on Pillow in the same process, as a loader without a core to
spare has it; on a GPU also compiled, in bfloat16. Our column has everything:
gather, crop, flip, AugMix, attack, update.
"""

import argparse
import functools
from typing import Any

import jax

from benchmarks import augmix, flops, our_step, timing, torch_step
from benchmarks.setting import CONFIGS

PARTS = ("attack", "forward_backward", "update")


def main() -> None:
  """Times every method on every network."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--models", default="resnet18:32,wrn_16_2:64,wrn_50_2:8")
  parser.add_argument("--methods", default=",".join(CONFIGS))
  parser.add_argument("--original", help="FOLDER of AugMix's code")
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--out", default=timing.FOLDER)
  flags = parser.parse_args()
  gpu = jax.default_backend() != "cpu"
  peak = flops.matmul_peak(*(("bfloat16", 8192) if gpu else ("float32", 2048)))
  rows = []
  for pair in flags.models.split(","):
    model, batch = pair.split(":")
    for method in flags.methods.split(","):
      step = our_step.build(method, model, int(batch))
      row = measure(step, method, flags.original, flags.repeats, gpu)
      row["peak_share"] = row["flops_per_second"] / peak
      rows.append({"model": model, "batch": int(batch), "method": method} | row)
      print(rows[-1], flush=True)
  result = {"matmul_flops_per_second": peak, "steps": rows}
  timing.write(f"step_{jax.default_backend()}", result, flags.out)


def measure(
  step: our_step.Step, method: str, original: str, repeats: int, gpu: bool
) -> dict[str, Any]:
  """One method on one network.

  Args:
    step: ours.
    method: its name.
    original: folder of AugMix's code, or None.
    repeats: rounds.
    gpu: whether PyTorch's compiled form is timed.

  Returns:
    Seconds of a step by side, ratios to PyTorch's eager step, and ours in
    FLOP/s; of RobustAugMix the parts and what the step takes beyond them.
  """
  sides = {"pytorch": torch_step.build(step)}
  if gpu:
    sides["pytorch_compiled"] = torch_step.build(step, compiled=True)
  if original and "augment" in step.config.method:
    operations = augmix.original(original)
    views = functools.partial(augmix.theirs, operations)
    sides["pytorch_and_pillow"] = torch_step.build(step, augment=views)
  sides["ours"] = step.run
  parts = our_step.parts(step) if method == "robust_augmix" else {}
  found = timing.compare(sides | parts, repeats, {"ours": step.per_dispatch})
  batch = step.config.train.batch_size
  spec = step.config.method
  attack_steps = spec.attack.steps if "attack" in spec else 0
  passes = flops.PASSES[method](attack_steps)
  work = flops.forward(step.module) * passes * batch
  row = {
    "seconds": {name: found[name]["seconds"] for name in sides},
    "ratio": {name: found[name]["ratio"] for name in sides},
    "images_per_second": batch / found["ours"]["seconds"],
    "flops_per_second": work / found["ours"]["seconds"],
    "peak_bytes": peak_bytes(),
  }
  if parts:
    row["parts"] = {name: found[name]["seconds"] for name in parts}
    together = sum(row["parts"][name] for name in PARTS)
    row["step_over_parts"] = found["ours"]["seconds"] / together
  return row


def peak_bytes() -> int | None:
  """Most memory that JAX has held on the device, where it says so."""
  return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


if __name__ == "__main__":
  main()
