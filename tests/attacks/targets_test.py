import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ram_jax.attacks import targets
from tests.attacks.pgd_test import batch, perceptron


def test_by_logit():
  logits = jnp.asarray([[3.0, 1.0, 2.0, 4.0], [0.0, -jnp.inf, 0.0, 5.0]])
  found = targets.by_logit(logits, jnp.asarray([3, 0]))
  assert found.tolist() == [[0, 2, 1], [3, 2, 1]]


@pytest.mark.parametrize("hidden", [None, 16])
def test_by_distance_equals_a_direct_computation(x64, hidden):
  _, images, _ = batch(8)
  model = perceptron(48, hidden=hidden, classes=5)
  labels = jnp.argmax(model(images), axis=-1)
  found = targets.by_distance(model, images, labels)
  for image, label, ranking in zip(images, labels, found, strict=True):
    distances = {}
    for k in range(5):
      if k != label:

        def margin(x, label=label, k=k):
          logits = model(x[None])[0]
          return logits[label] - logits[k]

        value, gradient = jax.value_and_grad(margin)(image)
        distances[k] = value / np.linalg.norm(gradient)
    assert ranking.tolist() == sorted(distances, key=distances.get)


def test_nearest_class_need_not_have_the_second_largest_logit():
  # Margins 1 and 2, but the second class's logit is a hundred times as steep.
  weights = np.zeros((48, 3))
  weights[0, 1], weights[1, 2] = 0.1, 10
  images = jnp.zeros((1, 4, 4, 3))

  @jax.tree_util.Partial
  def model(x):
    return x.reshape(1, -1) @ weights + jnp.asarray([3.0, 2.0, 1.0])

  labels = jnp.asarray([0])
  assert targets.by_logit(model(images), labels).tolist() == [[1, 2]]
  assert targets.by_distance(model, images, labels).tolist() == [[2, 1]]


def test_classes_without_a_gradient_are_ranked_too():
  model = perceptron(48, classes=4)
  model = model.replace(first=model.first.at[:, :3].set(0.0))
  images = jnp.ones((2, 4, 4, 3))
  labels = jnp.asarray([0, 1])
  found = targets.by_distance(model, images, labels)
  for row, label in zip(found, labels, strict=True):
    assert sorted([*row.tolist(), int(label)]) == [0, 1, 2, 3]
