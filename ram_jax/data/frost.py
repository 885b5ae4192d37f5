"""The photographs of ice that CIFAR-10-C's frost corruption uses.

They are part of the original code, hendrycks/robustness (Apache License 2.0;
the photographers are not named), and, as identical files, of the Python package
`imagecorruptions` (Apache License 2.0). This project does not include them.
"""

import importlib.util
import os
import pathlib

import numpy as np
from PIL import Image

# The original draws one of the first five; it never uses frost6.jpg.
_NAMES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
# The pictures are downscaled by an odd integer: 5 as in the original, or less
# for images that are too large for this.
_STRIDES = (5, 3, 1)


def load(folder: str = "", size: int = 32) -> tuple[np.ndarray, ...]:
  """Reads the photographs, downscaled by 5 or less in each direction.

  The original scales them by 0.2 with OpenCV's linear interpolation, which at
  this factor selects every fifth pixel, starting at the third.

  Args:
    folder: folder of frost1.png to frost5.jpg ('~' is expanded); empty: the
      installed package `imagecorruptions`, which is not imported.
    size: larger side of the images to be covered, in pixels. Above 62 pixels,
      the pictures are only downscaled by 3; above 104, not at all.

  Returns:
    Five arrays uint8 [h,w,3], RGB: `assets` of the corruption `frost`.

  Raises:
    ValueError: if a picture is missing, unreadable, or not larger than `size`.
  """
  home = pathlib.Path(os.path.expanduser(folder or _package_folder()))
  pictures = [_read(home / name) for name in _NAMES]
  for stride in _STRIDES:
    rows = slice(stride // 2, None, stride)
    smaller = tuple(picture[rows, rows] for picture in pictures)
    if min(min(p.shape[:2]) for p in smaller) > size:
      return smaller
  side = min(min(p.shape[:2]) for p in pictures)
  raise ValueError(
    f"frost needs pictures larger than the images: those in {home} suffice"
    f" for sides of up to {side - 1} pixels, but the images' longer side is"
    f" {size}"
  )


def _package_folder() -> str:
  """The folder of pictures inside the installed package."""
  spec = importlib.util.find_spec("imagecorruptions")
  if spec is None or not spec.submodule_search_locations:
    raise ValueError(
      "frost needs its photographs: install the package that contains them"
      " (pip install --no-deps imagecorruptions), or give a folder with"
      f" {_NAMES[0]} to {_NAMES[-1]} (ImageNet-C/create_c of"
      " github.com/hendrycks/robustness)"
    )
  return os.path.join(spec.submodule_search_locations[0], "frost")


def _read(path: pathlib.Path) -> np.ndarray:
  """One picture, RGB, without its transparency."""
  try:
    with Image.open(path) as picture:
      return np.asarray(picture.convert("RGB"))
  except FileNotFoundError:
    raise ValueError(
      f"frost needs {', '.join(_NAMES)}: {path} does not exist"
    ) from None
  # Pillow does not decode unusually large images.
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise ValueError(f"frost cannot read {path}: {error}") from error
