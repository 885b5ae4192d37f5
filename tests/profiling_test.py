"""A profile of RobustAugMix as the program writes and prints it."""

import json

import jax
import numpy as np
import pytest

import main as program
from ram_jax import trace

pytestmark = pytest.mark.usefixtures("tiny_network", "quick_compilation")

# Flip and crop in place of AugMix, whose compilation takes long.
CONFIG = """
from configs import robust_augmix

def get_config(argument=""):
  config = robust_augmix.get_config("smoke,dataset=arrays")
  config.dataset.path = {path!r}
  config.method.attack.steps = 1
  with config.unlocked():
    config.method.augment = {{"name": "basic", "padding": 1, "flip": True}}
  return config
"""


@pytest.fixture(autouse=True)
def cache_of_other_tests():
  yield  # what is compiled after this file is found in the cache again
  jax.config.update("jax_compilation_cache_include_metadata_in_key", False)


def test_profile_in_the_folder_of_a_run(tmp_path, capsys):
  rng, data = np.random.default_rng(0), {}
  for split in ("train", "test"):
    data[f"{split}_images"] = rng.integers(0, 256, (64, 8, 8, 3), np.uint8)
    data[f"{split}_labels"] = np.arange(64) % 4
  np.savez(tmp_path / "data.npz", **data)
  config, folder = tmp_path / "mine.py", tmp_path / "run"
  config.write_text(CONFIG.format(path=str(tmp_path / "data.npz")))
  # Of another run: nothing of it is looked at.
  (folder / "checkpoints" / "8").mkdir(parents=True)
  kept = {"config.json": "{}", "metrics.jsonl": "x", "checkpoints/8/state": "y"}
  for name, text in kept.items():
    (folder / name).write_text(text)

  flags = [f"--config={config}", f"--workdir={folder}", "--mode=profile"]
  assert program.main(flags) == 0
  shown = capsys.readouterr().out

  files = [path for path in folder.rglob("*") if path.is_file()]
  beside = [path for path in files if folder / "profile" not in path.parents]
  assert {str(p.relative_to(folder)): p.read_text() for p in beside} == kept
  found = json.loads((folder / "profile" / "profile.json").read_text())
  names = {path.name.partition(".")[2] for path in files}
  assert {"xplane.pb", "trace.json.gz"} <= names
  traced = folder / "profile" / found["trace"]
  assert len(list(traced.iterdir())) == 4

  parts = found["parts"]
  assert set(parts) == {*trace.PARTS.values(), "other", "host"}
  assert all(parts[name] > 0 for name in parts), parts
  assert sum(parts.values()) == pytest.approx(found["seconds"])
  assert found["attributed"] > 0.95
  (path,) = traced.glob("*.xplane.pb")
  profile = jax.profiler.ProfileData.from_file(str(path))
  again = trace.by_part((traced / "program.txt").read_text(), profile)
  assert again["attack"] == pytest.approx(4 * parts["attack"])  # 4 devices
  for name in parts:
    assert f"{parts[name] / found['seconds']:.1%}" in shown, name
  assert found["steps"] == 3 and found["config"]["train"]["unroll"]
