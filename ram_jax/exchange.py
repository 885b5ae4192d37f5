"""Weights that come from a file, and those of a run that leave as one."""

import json
import pathlib
import types
from typing import Any

from ml_collections import ConfigDict

from ram_jax import (
  evaluate,
  plugins,
  run_folder,
  settings,
  stopping,
)
from ram_jax.checkpoint import Checkpoints
from ram_jax.interop import names, weights
from ram_jax.models.classifier import check_values

FORMAT = ".safetensors"


def evaluate_weights(
  config: ConfigDict, workdir: str | pathlib.Path
) -> dict[str, Any]:
  """Measures the weights of a file as those of a run are measured.

  Args:
    config: complete; `weights.measured` names the file, `model` its network.
    workdir: folder of the results; made if missing.

  Returns:
    What results.json holds.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file is damaged or of another network, or the folder
      holds something else.
  """
  path, folder = config.weights.measured, pathlib.Path(workdir)
  file = weights.read(path, config.weights.entry)
  config = settings.resolve(config, weights=file)
  run_folder.check(config, folder)
  source = plugins.build("dataset", config.dataset)
  evaluation = evaluate.build(config, source)
  params, batch_stats = names.from_torch(
    evaluation.module, evaluation.images.shape[1:], file.tensors
  )
  about = describe(file, pathlib.Path(path).stem)
  state = types.SimpleNamespace(
    step=about.pop("step"), params=params, batch_stats=batch_stats
  )
  with run_folder.lock(folder), stopping.listen() as stop:
    run_folder.claim(config, None, folder)
    return evaluate.run(config, evaluation, state, folder, stop, about=about)


def describe(file: weights.Weights, name: str) -> dict[str, Any]:
  """Who the weights of a file are, for results.json.

  Args:
    file: with `--mode=export`'s metadata, or without.
    name: of the file, without its ending.

  Returns:
    `name`, `label`, `method`, `epochs` and `step`: those of the exported run,
    or of weights of which nothing is known.
  """
  method = file.metadata.get("method")
  if method not in plugins.available("method"):
    about = {"label": name, "method": "weights", "step": 0}
  else:
    label = plugins.load("method", method).label
    step = int(file.metadata.get("step", 0))
    about = {"label": label, "method": method, "step": step}
  return {"name": name, "epochs": 0} | about


def export(folder: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
  """Writes a run's weights as PyTorch's state_dict, in a safetensors file.

  The names are those of the networks that PyTorch users have: README.md lists
  the classes into which it loads strictly. Its metadata say what is done to
  pixels first.

  Args:
    folder: of a trained run.
    out: the file, `.safetensors`; its folder is made if missing.

  Returns:
    The file's metadata.

  Raises:
    FileNotFoundError: if the folder holds no run or no checkpoint.
    ValueError: if the run is damaged, its numbers are of no use, or `out` has
      another ending.
  """
  if out.suffix != FORMAT:
    raise ValueError(f"--out={out} must end in {FORMAT}")
  config = ConfigDict(run_folder.read(folder))
  source = plugins.build("dataset", config.dataset)
  module = settings.build_model(config, source, "float32", axis_name=None)
  checkpoints = Checkpoints(folder / "checkpoints")
  # The parameters' shapes are the same for images of all sizes.
  state = checkpoints.restore_variables(module, (32, 32, 3))
  checkpoints.close()
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  check_values(f"the weights of step {int(state.step)}", variables)
  metadata = {
    "run": f"{config.name}-{config.seed}",
    "method": config.method.name,
    "model": json.dumps(config.model.to_dict()),
    "data": source.label,
    "step": str(int(state.step)),
  }
  out.parent.mkdir(parents=True, exist_ok=True)
  return weights.write(out, module, state.params, state.batch_stats, metadata)
