"""Frost's photographs are found, and downscaled as by OpenCV."""

import importlib.util
import sys

import numpy as np
import pytest
from PIL import Image

from ram_jax.data import frost

NAMES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
# OpenCV 5.0, resize(fx=0.2, fy=0.2) of the original's pictures: shapes, and
# the sums of the levels of red, green and blue.
RESIZED = {
  "shapes": [(120, 180), (63, 112), (63, 112), (70, 105), (99, 132)],
  "sums": [
    [1674768, 3219412, 3578763],
    [1416853, 1449295, 1513497],
    [1416853, 1449295, 1513497],
    [1014632, 1126161, 1217197],
    [1467477, 1611169, 1759872],
  ],
}


@pytest.fixture
def folder(tmp_path):
  """Noise pictures with the expected names, one of them transparent."""
  rng = np.random.default_rng(0)
  for name in NAMES:
    channels = 4 if name == "frost1.png" else 3
    levels = rng.integers(0, 256, (165, 201, channels), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / name)
  return tmp_path


def test_package_has_the_original_photographs():
  if importlib.util.find_spec("imagecorruptions") is None:
    pytest.skip("the package imagecorruptions is not installed")
  pictures = frost.load()
  assert "imagecorruptions" not in sys.modules
  assert [p.shape[:2] for p in pictures] == RESIZED["shapes"]
  sums = [p.sum(axis=(0, 1), dtype=int).tolist() for p in pictures]
  assert sums == RESIZED["sums"]


def test_a_folder_is_read(folder):
  pictures = frost.load(str(folder))
  assert [p.shape for p in pictures] == [(33, 40, 3)] * 5
  whole = np.asarray(Image.open(folder / "frost1.png"))[..., :3]
  # cv2.resize by 0.2 samples at 5 (i + 1/2) - 1/2 = 5 i + 2.
  np.testing.assert_array_equal(pictures[0], whole[2::5, 2::5])


@pytest.mark.parametrize(("size", "side"), [(32, 33), (33, 55), (100, 165)])
def test_pictures_stay_larger_for_larger_images(folder, size, side):
  assert frost.load(str(folder), size)[0].shape[0] == side


def test_errors(folder, monkeypatch):
  with pytest.raises(ValueError, match="164 pixels, but .* longer side is 165"):
    frost.load(str(folder), 165)
  (folder / "frost2.png").write_bytes(b"not a picture")
  with pytest.raises(ValueError, match=r"cannot read .*frost2\.png"):
    frost.load(str(folder))
  (folder / "frost2.png").unlink()
  with pytest.raises(ValueError, match=r"frost2\.png does not exist"):
    frost.load(str(folder))
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match="--no-deps imagecorruptions"):
    frost.load()
