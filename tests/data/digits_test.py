import numpy as np
from PIL import Image
from sklearn import datasets

from ram_jax.data import digits, pipeline


def test_splits_are_the_digits_and_share_none():
  raw = datasets.load_digits()
  train, train_labels = pipeline.load(digits.Source(), "train")
  test, test_labels = pipeline.load(digits.Source(), "test")
  assert (len(train), len(test)) == (1433, 364)
  counts = np.bincount(train_labels) + np.bincount(test_labels)
  np.testing.assert_array_equal(counts, np.bincount(raw.target))
  # A fifth of each class, rounded up.
  np.testing.assert_array_equal(
    np.bincount(test_labels), np.ceil(np.bincount(raw.target) / 5)
  )
  actual = zip(
    np.concatenate([train, test]), [*train_labels, *test_labels], strict=True
  )
  reference = zip(map(enlarge, raw.images), raw.target, strict=True)
  assert sorted((x.tobytes(), y) for x, y in actual) == sorted(
    (x.tobytes(), y) for x, y in reference
  )


def enlarge(digit):
  gray = np.floor(digit * 255 / 16 + 0.5).astype(np.uint8)
  image = Image.fromarray(gray).resize((32, 32), Image.Resampling.BICUBIC)
  return np.asarray(image.convert("RGB"))


def test_split_is_the_same_every_time():
  first, second = (digits.Source().load("test") for _ in range(2))
  assert pipeline.fingerprint(*first) == pipeline.fingerprint(*second)


def test_statistics_are_those_of_the_training_images():
  images, _ = digits.Source().load("train")
  scaled = images / 255
  # Constants are written to six digits; Pillow's rounding may move them.
  np.testing.assert_allclose(
    digits.Source.mean, scaled.mean((0, 1, 2)), atol=1e-5
  )
  np.testing.assert_allclose(
    digits.Source.std, scaled.std((0, 1, 2)), atol=1e-5
  )
  assert digits.Source().label == "Digits (scikit-learn)"
