"""The cache key changes with the source code of the package."""

import shutil

from ram_jax.evaluation import cache


def test_cache_key_covers_the_whole_package(monkeypatch, tmp_path):
  package = tmp_path / "ram_jax"
  shutil.copytree(cache.PACKAGE, package)
  before = cache.cache_key()
  monkeypatch.setattr(cache, "PACKAGE", package)
  assert cache.cache_key() == before  # wherever it is
  for name in ("losses.py", "attacks/pgd.py", "evaluation/clean.py"):
    path = package / name
    path.write_text(path.read_text() + "\n")
    after = cache.cache_key()
    assert after["program"] != before["program"], name
    before = after
