"""Generated images depend only on (seed, corruption, severity, position)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax import corruptions
from ram_jax import keys as keys_lib
from ram_jax.data import generated
from tests.corruptions import reference

SIZE = 10
IMAGES = np.random.default_rng(0).integers(0, 256, (SIZE, 8, 8, 3), np.uint8)
LABELS = np.arange(SIZE, dtype=np.int32)


def make(name, severity, seed=0, batch_size=8, images=IMAGES):
  labels = LABELS[: len(images)]
  source = generated.Generator(images, labels, seed, "", batch_size)
  made, truth = source.load(name, severity)
  assert made.dtype == np.uint8 and made.shape == images.shape
  np.testing.assert_array_equal(truth, labels)
  return made


def test_images_depend_only_on_their_keys():
  key = jax.random.fold_in(jax.random.key(5), 3)
  key = jax.random.fold_in(key, corruptions.NAMES.index("gaussian_noise"))
  keys = keys_lib.per_example(jax.random.fold_in(key, 4), jnp.arange(SIZE))
  floats = jnp.asarray(IMAGES, jnp.float32) / 255
  wanted = np.round(255 * reference.corrupt("gaussian_noise", 4, keys, floats))
  for options in ({"batch_size": 4}, {"batch_size": 16}):
    made = make("gaussian_noise", 4, seed=5, **options)
    np.testing.assert_array_equal(made, wanted)
  few = make("gaussian_noise", 4, seed=5, images=IMAGES[:3])
  np.testing.assert_array_equal(few, wanted[:3])


def test_seed_severity_and_place_change_the_draw():
  gray = np.full_like(IMAGES, 128)
  noise = {
    (seed, severity): make("gaussian_noise", severity, seed, images=gray)
    for seed, severity in [(0, 4), (1, 4), (0, 5)]
  }
  draws = [image.ravel() - 128.0 for made in noise.values() for image in made]
  correlation = np.corrcoef(draws)
  # 192 values each, so 0.07 by chance; five deviations.
  assert np.abs(correlation - np.eye(3 * SIZE)).max() < 0.36
  assert noise[0, 5].std() > noise[0, 4].std()


def no_photographs(folder, size):
  raise ValueError(f"frost needs its photographs, {folder!r}, {size}")


def test_without_photographs_the_others_are_generated(monkeypatch):
  monkeypatch.setattr(generated.frost, "load", no_photographs)
  source = generated.Generator(IMAGES, LABELS, 0, "ice", 8)
  assert set(corruptions.NAMES) - set(source.names()) == {"frost"}
  reason = "frost needs its photographs, 'ice', 8"
  assert source.missing() == {"frost": reason}
  wanted = generated.Generator(IMAGES, LABELS, 0, "ice", 8, ("frost", "fog"))
  with pytest.raises(ValueError, match=reason):
    wanted.names()
  other = generated.Generator(IMAGES, LABELS, 0, "ice", 8, ("snow", "fog"))
  assert other.names() == ("snow", "fog") and other.missing() == {}


def test_photographs_reach_frost(monkeypatch):
  picture = np.full((9, 9, 3), 50, np.uint8)
  monkeypatch.setattr(generated.frost, "load", lambda *_: (picture, picture))
  black = np.zeros_like(IMAGES)
  assert (make("frost", 1, images=black) == 10).all()  # 20 %


def test_parameters_are_computed_once_to_prepare(monkeypatch):
  source, calls = generated.Generator(IMAGES, LABELS, 0, "", 8), []
  found = corruptions.EVERY["contrast"]
  counted = dataclasses.replace(
    found, prepare=lambda *row: calls.append(row[0]) or found.prepare(*row)
  )
  monkeypatch.setitem(generated.EVERY, "contrast", counted)
  for severity in (1, 1, 2, 1):
    source.prepare("contrast", severity)
  assert calls == list(found.rows[:2])


def test_severities_share_a_program(monkeypatch):
  traced = []

  @functools.cache
  def counted(apply):
    def traces(key, levels, parameters):
      traced.append(apply.__name__)
      return levels

    return traces

  for name in ("gaussian_noise", "shot_noise", "snow", "contrast"):
    found = corruptions.EVERY[name]
    found = dataclasses.replace(found, apply=counted(found.apply))
    monkeypatch.setitem(generated.EVERY, name, found)
    for seed in (0, 1):
      for severity in (1, 3, 5):
        make(name, severity, seed)
  assert traced == ["replace", "snow", "contrast"]
