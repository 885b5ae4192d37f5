"""The script that runs all GPU benchmarks, and the modules it uses."""

import json
import sys

import pytest

pytest.importorskip("torch")

from benchmarks import gpu, performance, timing, versions
from ram_jax import losses


def test_failures_and_hangs_do_not_stop_the_script(tmp_path, capfd):
  cache = str(tmp_path)
  assert gpu.run(["absent"], 60, cache) == "failed"
  assert "No module named benchmarks.absent" in capfd.readouterr().out
  assert gpu.run(["step"], 0.1, cache) == "stopped after 0 s"


def test_items_that_do_not_fit_are_listed(tmp_path, monkeypatch):
  flags = ["--minutes=0", "--baseline=a/b", "--data=/c", f"--out={tmp_path}"]
  monkeypatch.setattr(sys, "argv", ["gpu", *flags])
  gpu.main()
  found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
  states = {row["status"] for row in found["items"].values()}
  assert states == {"did not fit"}
  page = performance.page("", tmp_path)
  assert "a/b" not in page and "/c" not in page
  first = "step --models=resnet18:128 --methods=robust_augmix"
  assert page.index(first) < page.index("`augmix ") < page.index("`autoattack ")


def test_the_performance_page_shows_the_committed_results():
  page = timing.FOLDER.parents[1] / "performance.md"
  text = page.read_text(encoding="utf-8")
  assert performance.page(text, timing.FOLDER).split() == text.split()


def test_rows_of_the_same_case_and_machine_are_merged(tmp_path, monkeypatch):
  def add(model, seconds):
    timing.add("step", {"model": model, "seconds": seconds}, tmp_path)
    text = (tmp_path / "step_cpu.json").read_text(encoding="utf-8")
    return {row["model"]: row["seconds"] for row in json.loads(text)["rows"]}

  add("small", 1)
  add("large", 2)
  assert add("small", 3) == {"large": 2, "small": 3}
  machine = timing.machine()
  monkeypatch.setattr(timing, "machine", lambda: machine | {"cores": 99})
  assert add("large", 4) == {"large": 4}


def test_another_version_imports_its_own_modules(tmp_path):
  (tmp_path / "ram_jax").mkdir()
  text = "def late():\n  from ram_jax import other\n  return other.__file__\n"
  (tmp_path / "ram_jax/losses.py").write_text(text, encoding="utf-8")
  for name in ("__init__", "other"):
    (tmp_path / f"ram_jax/{name}.py").touch()
  old = versions.Checkout(str(tmp_path))
  late = old.load("ram_jax.losses").late
  assert late() == str(tmp_path / "ram_jax/other.py")
  assert sys.modules["ram_jax.losses"] is losses
  assert "ram_jax.other" not in sys.modules
