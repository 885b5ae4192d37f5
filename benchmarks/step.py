r"""Times training steps of the four methods against PyTorch or another version.

    python -m benchmarks.step --models=resnet18:32,wrn_16_2:64,wrn_50_2:8
    python -m benchmarks.step --pytorch=compiled --models=resnet18:128
    python -m benchmarks.step --pytorch= --baseline=CHECKOUT

PyTorch is the reference in `benchmarks/torch_reference`, with precomputed
AugMix views: `eager` in float32, or `compiled` or `autotuned` in bfloat16. With
--original (see `benchmarks/pillow_augmix.py`), it is also measured with AugMix
in Pillow: in the same process for `eager`, as if no core were free for data
loaders, and with data loaders on all cores for the others. ram_jax's time
includes everything: gather, crop, flip, AugMix, attack and update.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax

from benchmarks import (
  flops,
  our_step,
  pillow_augmix,
  timing,
  torch_step,
  versions,
)
from benchmarks.setting import CONFIGS

PARTS = ("attack", "forward_backward", "update")


def main() -> None:
  """Times every method on every network."""
  models = "resnet18:32,wrn_16_2:64,wrn_50_2:8"
  parser = timing.parser(__doc__, models)
  parser.add_argument("--methods", default=",".join(CONFIGS))
  parser.add_argument("--pytorch", default="eager", help=torch_step.HELP)
  parser.add_argument("--original", help="FOLDER of AugMix's code")
  parser.add_argument("--baseline", help="CHECKOUT of another version")
  parser.add_argument(
    "--parts", default="robust_augmix", help="method whose parts are timed"
  )
  parser.add_argument("--name", default="step", help="name of the file")
  flags = parser.parse_args()
  cpu = jax.default_backend() == "cpu"
  peak = flops.matmul_peak(*(("float32", 2048) if cpu else ("bfloat16", 8192)))
  for model, batch in timing.networks(flags.models):
    for method in flags.methods.split(","):
      row = measure(model, batch, method, flags)
      row["peak_share"] = row["flops_per_second"] / peak
      case = {"model": model, "batch": batch, "method": method}
      head = {"matmul_flops_per_second": peak}
      timing.add(flags.name, case | row, flags.out, **head)


def measure(
  model: str, batch: int, method: str, flags: argparse.Namespace
) -> dict[str, Any]:
  """Times one method on one network.

  Args:
    model: short name of the network.
    batch: batch size.
    method: name of the method.
    flags: command-line flags.

  Returns:
    Seconds per step and speedup over the first side, by side; ram_jax's images
    and FLOP per second and peak memory; and, if requested, seconds of its parts
    and the step's time divided by the sum of those in `PARTS`.
  """
  step = our_step.build(method, model, batch)
  sides, extra = {}, {}
  if flags.pytorch == "eager":
    sides = eager(step, flags.original)
  elif flags.pytorch:
    take, inputs = torch_step.build_compiled(step, flags.pytorch)
    sides[f"pytorch_{flags.pytorch}"] = repeated(take, step.per_dispatch)
  if flags.baseline:
    old = versions.Checkout(flags.baseline)
    theirs = old.load("benchmarks.our_step").build(method, model, batch)
    sides["baseline"] = old.bound(theirs.run)
  sides["ours"] = step.run
  parts = our_step.parts(step) if method == flags.parts else {}
  units = dict.fromkeys(sides, step.per_dispatch)
  found = timing.compare(sides | parts, flags.repeats, units)
  if flags.original and flags.pytorch not in ("", "eager"):
    steps = 20 * step.per_dispatch
    extra["pytorch_and_loaders"] = torch_step.loaded(
      step, take, inputs, flags.original, steps
    )
  row = {
    "seconds": {name: found[name]["seconds"] for name in sides} | extra,
    "ratio": {name: found[name]["ratio"] for name in sides},
    "images_per_second": batch / found["ours"]["seconds"],
    "flops_per_second": work(step, method) / found["ours"]["seconds"],
    "peak_bytes": None if flags.baseline else peak_bytes(),
  }
  if parts:
    row["parts"] = {name: found[name]["seconds"] for name in parts}
    together = sum(row["parts"][name] for name in PARTS)
    row["step_over_parts"] = found["ours"]["seconds"] / together
  return row


def eager(
  step: our_step.Step, original: str | None
) -> dict[str, Callable[[], Any]]:
  """Builds PyTorch's eager step, and one with AugMix in Pillow if available."""
  views = {"pytorch": None}
  if original and "augment" in step.config.method:
    views["pytorch_and_pillow"] = functools.partial(
      pillow_augmix.views, original
    )
  return {
    name: repeated(torch_step.build(step, augment), step.per_dispatch)
    for name, augment in views.items()
  }


def repeated(take: Callable[[], Any], count: int) -> Callable[[], Any]:
  """Builds a function that runs several PyTorch steps and waits for them."""

  def run() -> Any:
    for _ in range(count):
      loss = take()
    return torch_step.wait(loss)

  return run


def work(step: our_step.Step, method: str) -> float:
  """Floating-point operations of a step."""
  spec = step.config.method
  attack_steps = spec.attack.steps if "attack" in spec else 0
  passes = flops.PASSES[method](attack_steps)
  return flops.forward(step.module) * passes * step.config.train.batch_size


def peak_bytes() -> int | None:
  """Peak memory of JAX on the device in bytes; None if unknown."""
  return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


if __name__ == "__main__":
  main()
