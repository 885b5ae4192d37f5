r"""Evaluates an exported file in plain PyTorch, without importing JAX.

    python -m benchmarks.torch_evaluate --weights=FILE.safetensors \
      --data=FILE.npz --network=wide_resnet depth=10 widen_factor=1

FILE.npz contains `test_images` uint8 [N,H,W,3] and `test_labels` [N]. The
network and its fields are named as in a config's `model`.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors import safe_open

from benchmarks.torch_reference.networks import NETWORKS

BATCH_SIZE = 256


def load(
  path: str | pathlib.Path, network: str, **fields: int | str
) -> torch.nn.Module:
  """Loads an exported network with strict=True.

  Args:
    path: the `.safetensors` file; its metadata states the normalization.
    network: a key of `NETWORKS`.
    **fields: fields of the network, such as its depth.

  Returns:
    The network, in evaluation mode.

  Raises:
    RuntimeError: from PyTorch, if names or shapes do not match the network.
  """
  with safe_open(path, framework="pt") as file:
    about = file.metadata()
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  mean, std = (json.loads(about[name]) for name in ("mean", "std"))
  stated = json.loads(about.get("model", "{}"))
  if "activation" in stated:  # the tensors do not determine it
    fields = {"activation": stated["activation"]} | fields
  model = NETWORKS[network](int(about["num_classes"]), mean, std, **fields)
  model.load_state_dict(tensors)
  return model.float().train(False)


@torch.no_grad()
def predictions(
  path: str | pathlib.Path,
  images: np.ndarray,
  network: str,
  **fields: int | str,
) -> np.ndarray:
  """Predicts the classes of images with an exported network.

  Args:
    path: see `load`.
    images: uint8 [N, H, W, 3].
    network: see `load`.
    **fields: see `load`.

  Returns:
    Classes int64 [N].
  """
  model = load(path, network, **fields)
  pixels = torch.tensor(images).permute(0, 3, 1, 2)
  batches = (x.float() / 255 for x in pixels.split(BATCH_SIZE))
  return torch.cat([model(x).argmax(1) for x in batches]).numpy()


def main() -> None:
  """Prints the accuracy, and writes the predictions if requested."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--weights", required=True, help="a .safetensors export")
  parser.add_argument("--data", required=True, help=".npz of test images")
  parser.add_argument("--network", required=True, choices=NETWORKS)
  parser.add_argument("--out", help=".npy file for the predictions")
  parser.add_argument("fields", nargs="*", help="such as depth=18")
  given = parser.parse_args()
  fields = {
    name: json.loads(value)
    for name, _, value in (field.partition("=") for field in given.fields)
  }
  with np.load(given.data) as data:
    images, labels = data["test_images"], data["test_labels"]
  found = predictions(given.weights, images, given.network, **fields)
  right = int((found == labels).sum())
  print(f"{right} of {len(labels)} correct: {right / len(labels):.2%}")
  if given.out:
    np.save(given.out, found)


if __name__ == "__main__":
  main()
