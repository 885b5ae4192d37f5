r"""Compares AutoAttack with results of the original (fra31/auto-attack).

    python -m benchmarks.autoattack_parity --original=FOLDER --data=FOLDER

See `benchmarks.autoattack` for the folders. The original's per-image results
are in the subfolder autoattack of --data; only the smallest norms that FAB-T
finds and the progress of Square are computed with the original here. Writes
docs/results/autoattack_parity.json, from which `benchmarks.parity` generates a
table.
"""

import argparse
import functools
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import ram_jax
from benchmarks import timing
from benchmarks.autoattack import NORMS, networks, to_torch
from ram_jax import parallel
from ram_jax.attacks import fab, square
from ram_jax.attacks.targets import by_logit
from ram_jax.evaluation import pool

# Results of the original -> network, norm and epsilon.
CASES = {
  "resnet2b_l2_0.25": ("resnet_2b", "l2", 0.25),
  "resnet2b_linf_2_255": ("resnet_2b", "linf", 2 / 255),
  "wrn_10_1_robust_augmix_l2_0.5": ("wrn_10_1", "l2", 0.5),
}
SEEDS = (0, 1, 2)  # of APGD-CE
QUERIES = (100, 500, 1000, 5000)
SIZE = 64  # images per batch
STEP = jax.jit(lambda attack, state, model: attack.step(state, model))


def measure(case: str, data: pathlib.Path) -> dict[str, Any]:
  """Compares every stage, and FAB-T and Square alone.

  Args:
    case: a key of `CASES`.
    data: folder of the shared data.

  Returns:
    The numbers for the table.
  """
  name, norm, epsilon = CASES[case]
  ours, theirs = networks(name, data)
  with np.load(data / "autoattack" / f"{case}.npz") as arrays:
    known = dict(arrays)
  count = len(known["clean"])
  with np.load(data / "cifar10_lossless.npz") as arrays:
    images = arrays["test_images"][:count].astype(np.float32) / 255
    labels = arrays["test_labels"][:count].astype(np.int32)

  attack = functools.partial(
    ram_jax.autoattack,
    ours,
    images,
    labels,
    norm=norm,
    epsilon=epsilon,
    batch_size=SIZE,
  )
  whole = attack(version="standard")
  stages = {"clean": whole.clean} | whole.stages
  for alone in ("fab-t", "square"):
    stages[f"alone-{alone}"] = attack(version=alone).robust
  first = [attack(version="apgd-ce", seed=seed).robust for seed in SEEDS]
  rows = {
    stage: {
      "original": int(known[stage.replace("-", "_")].sum()),
      "ours": int(found.sum()),
      "differ": int((found != known[stage.replace("-", "_")]).sum()),
    }
    for stage, found in stages.items()
  }
  clean = known["clean"]
  left = images[clean], labels[clean]
  return {
    "case": case,
    "network": name,
    "norm": norm,
    "epsilon": epsilon,
    "images": count,
    "stages": rows,
    "apgd_ce_differ": [int((x != known["apgd_ce"]).sum()) for x in first],
    "fab_norms": fab_norms(ours, theirs, norm, *left),
    "square": square_progress(ours, theirs, norm, epsilon, *left),
  }


def fab_norms(
  ours: Any,
  theirs: torch.nn.Module,
  norm: str,
  images: np.ndarray,
  labels: np.ndarray,
) -> dict[str, float]:
  """Compares the smallest norms that both versions of FAB-T find.

  Args:
    ours: the network in ram_jax.
    theirs: the same network in PyTorch.
    norm: "l2" or "linf".
    images: floats [n,H,W,C], classified correctly.
    labels: integers [n].

  Returns:
    Number of images, smallest and largest ratio of ram_jax's norm to the
    original's, and how many ratios differ from 1 by more than 1 %.
  """
  from autoattack.fab_pt import FABAttack_PT

  attack = fab.Fab(np.float32(1e6), norm=norm)
  x, y = jnp.asarray(images), jnp.asarray(labels)
  best = jnp.full(len(labels), jnp.inf)
  original = FABAttack_PT(theirs, NORMS[norm], device="cpu", targeted=True)
  shortest = np.full(len(labels), np.inf)
  for rank, target in enumerate(by_logit(ours(x), y).T[:9], start=2):
    batch = {"images": x, "labels": y, "targets": target}
    state = attack.start(None, batch, ours)
    for _ in range(attack.steps):
      state = STEP(attack, state, ours)
    best = jnp.minimum(best, state.norm)
    original.target_class = rank
    moved = original.attack_single_run(
      to_torch(images), torch.tensor(labels).long(), is_targeted=True
    )
    delta = moved.numpy().transpose(0, 2, 3, 1) - images
    order = {"l2": 2, "linf": np.inf}[norm]
    size = np.linalg.norm(delta.reshape(len(delta), -1), order, axis=1)
    # The original returns the clean image if it fails.
    shortest = np.minimum(shortest, np.where(size > 0, size, np.inf))
  ratios = np.asarray(best) / shortest
  return {
    "images": len(ratios),
    "least": float(ratios.min()),
    "most": float(ratios.max()),
    "above_1_percent": int(np.sum(np.abs(ratios - 1) > 0.01)),
  }


def square_progress(
  ours: Any,
  theirs: torch.nn.Module,
  norm: str,
  epsilon: float,
  images: np.ndarray,
  labels: np.ndarray,
) -> dict[str, list[int]]:
  """Counts images that are still classified correctly after some queries.

  Args:
    ours: the network in ram_jax.
    theirs: the same network in PyTorch.
    norm: "l2" or "linf".
    epsilon: radius of the ball.
    images: floats [n,H,W,C], classified correctly.
    labels: integers [n].

  Returns:
    Counts for each of `QUERIES`, by side.
  """
  from autoattack.square import SquareAttack

  original = SquareAttack(  # as AutoAttack builds it
    theirs,
    NORMS[norm],
    n_queries=QUERIES[-1],
    eps=epsilon,
    device="cpu",
    resc_schedule=False,
  )
  x, y = to_torch(images), torch.tensor(labels).long()
  original.init_hyperparam(x)
  torch.manual_seed(0)
  used, moved = original.attack_single_run(x, y)
  with torch.no_grad():
    hit = (theirs(moved).argmax(1) != y).numpy()
  queries = used.numpy()
  batch = {
    "images": images,
    "labels": labels,
    "targets": np.zeros((len(labels), 1), np.int32),
    "positions": np.arange(len(labels), dtype=np.int32),
  }
  model, counts = parallel.replicate(ours), []
  for limit in QUERIES:
    attack = square.Square(epsilon, limit - 1, norm)  # the start is a query
    found = pool.Pool(attack, model, batch, jax.random.key(0), SIZE).run()
    counts.append(int(np.sum(~found.success)))
  return {
    "queries": list(QUERIES),
    "original": [int(np.sum(~(hit & (queries <= q)))) for q in QUERIES],
    "ours": counts,
  }


def main() -> None:
  """Measures each case and writes the results."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--original", type=pathlib.Path, required=True)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--cases", default=",".join(CASES))
  parser.add_argument("--out", default=timing.FOLDER.parent)
  flags = parser.parse_args()
  sys.path.insert(0, str(flags.original))
  rows = []
  for case in flags.cases.split(","):
    rows.append(measure(case, flags.data))
    timing.write("autoattack_parity", {"rows": rows}, flags.out)


if __name__ == "__main__":
  main()
