import mmap
import zipfile

import numpy as np
import pytest

from ram_jax.data import arrays, pipeline

RNG = np.random.default_rng(0)
GOOD = {
  "train_images": RNG.integers(0, 256, (6, 4, 5, 3), np.uint8),
  "train_labels": np.array([0, 1, 2, 3, 1, 0]),
  "test_images": RNG.integers(0, 256, (2, 4, 5, 3), np.uint8),
  "test_labels": np.array([3, 0], np.uint8),
}


def write(path, **changes):
  contents = {k: v for k, v in (GOOD | changes).items() if v is not None}
  np.savez(path, **contents)
  return str(path)


def test_content_and_derived_properties(tmp_path):
  source = arrays.Source(write(tmp_path / "birds.npz"))
  for split in ("train", "test"):
    images, labels = pipeline.load(source, split)
    np.testing.assert_array_equal(images, GOOD[f"{split}_images"])
    np.testing.assert_array_equal(labels, GOOD[f"{split}_labels"])
  assert (source.num_classes, source.label) == (4, "birds")
  scaled = GOOD["train_images"] / 255
  np.testing.assert_allclose(source.mean, scaled.mean((0, 1, 2)), rtol=1e-12)
  np.testing.assert_allclose(source.std, scaled.std((0, 1, 2)), rtol=1e-12)
  assert arrays.Source(source.path, label="Birds").label == "Birds"
  assert arrays.Source(source.path, num_classes=9).num_classes == 9


def write_folder(folder, **changes):
  folder.mkdir(exist_ok=True)
  for name, array in (GOOD | changes).items():
    np.save(folder / f"{name}.npy", array)
  return str(folder)


def test_a_folder_is_mapped_and_is_the_same_data(tmp_path, monkeypatch):
  file = arrays.Source(write(tmp_path / "birds.npz"))
  folder = arrays.Source(write_folder(tmp_path / "birds"))
  assert folder.label == "birds"
  monkeypatch.setattr(pipeline, "CHUNK", 4)  # 6 images in two parts
  assert (folder.mean, folder.std) == (file.mean, file.std)
  for split in ("train", "test"):
    loaded = pipeline.load(folder, split)
    base = loaded[0]
    while isinstance(base, np.ndarray):
      base = base.base
    assert isinstance(base, mmap.mmap)  # and no copy in memory
    wanted = pipeline.describe(*pipeline.load(file, split))
    assert pipeline.describe(*loaded) == wanted


def test_a_bad_folder_is_named(tmp_path):
  folder = tmp_path / "birds"
  path = write_folder(folder, train_images=np.array([None]))
  with pytest.raises(ValueError, match="train_images cannot be read"):
    arrays.Source(path).load("train")  # a pickle
  write_folder(folder)
  raw = (folder / "train_images.npy").read_bytes()
  (folder / "train_images.npy").write_bytes(raw[:-1])
  with pytest.raises(ValueError, match="train_images cannot be read"):
    arrays.Source(path).load("train")
  (folder / "test_labels.npy").unlink()
  with pytest.raises(ValueError, match="lacks test_labels: .*'test_images'"):
    arrays.Source(path, num_classes=5).load("test")


def test_real_images(shared_data):
  source = arrays.Source(str(shared_data / "cifar10_lossless.npz"))
  assert source.num_classes == 10
  assert len(pipeline.load(source, "train")[0]) == 3805
  assert len(pipeline.load(source, "test")[0]) == 400


@pytest.mark.parametrize("axis", [(), (1,)])
def test_gray_becomes_rgb(tmp_path, axis):
  gray = GOOD["train_images"][..., 0]
  path = write(
    tmp_path / "gray.npz", train_images=gray.reshape(gray.shape + axis)
  )
  images, _ = pipeline.load(arrays.Source(path), "train")
  for channel in range(3):
    np.testing.assert_array_equal(images[..., channel], gray)
  assert len(arrays.Source(path).mean) == 3


def test_too_few_classes_are_named_when_loaded(tmp_path):
  source = arrays.Source(write(tmp_path / "a.npz"), num_classes=3)
  with pytest.raises(ValueError, match="label 3 at index 3 .* 0..2"):
    pipeline.load(source, "train")


def test_constant_channel_cannot_be_normalized(tmp_path):
  path = write(tmp_path / "a.npz", train_images=np.ones((6, 4, 5, 3), np.uint8))
  with pytest.raises(ValueError, match="constant"):
    _ = arrays.Source(path).std


@pytest.mark.parametrize("kept", [0, 100, 900])
def test_a_damaged_file_is_named(tmp_path, kept):
  path = tmp_path / "cut.npz"
  write(path)
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(ValueError, match="cut.npz.*cannot be read"):
    arrays.Source(str(path))


def test_flipped_byte_is_detected(tmp_path):
  path = tmp_path / "bad.npz"
  write(path)
  raw = bytearray(path.read_bytes())
  raw[raw.index(GOOD["train_images"].tobytes()) + 7] ^= 1
  path.write_bytes(raw)
  with pytest.raises(ValueError, match="train_images cannot be read.*CRC"):
    arrays.Source(str(path)).load("train")


@pytest.mark.parametrize("member", [b"MZ", b""])
def test_member_that_is_not_an_array(tmp_path, member):
  path = tmp_path / "raw.npz"
  write(path, train_images=None)
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("train_images.npy", member)
  with pytest.raises(
    ValueError, match=r"train_images is \|S\d \[1\], expected u"
  ):
    arrays.Source(str(path)).load("train")


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="none.npz is missing.*test_lab"):
    arrays.Source(str(tmp_path / "none.npz"))
