"""AugMax (Wang et al., NeurIPS 2021): worst-case mixing of AugMix chains."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from ram_jax import checks, losses
from ram_jax import keys as keys_lib
from ram_jax.attacks.iterative import repeat
from ram_jax.augment.augmix import Augment
from ram_jax.contracts import Arrays, Logits, Loss, Model, Viewed
from ram_jax.methods import consistency

# Weight of the mixed chains, and the logits of the chains' weights.
Mixture = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(consistency.Consistency):
  """CE(clean) + weight * JSD(clean, AugMax, AugMix).

  The AugMax view mixes the image and AugMix's chains with weights that increase
  the loss. They are found by sign gradient ascent from random weights. As in
  the authors' code, the search is stopped for each image whose mixtures have
  been misclassified `patience` times.

  Attributes:
    augment: draws the chains of both views.
    steps: sign gradient steps, 5 in the authors' code.
    step_size: step size for the weight of the mixed chains, which is in [0,1],
      and for the logits of the chains' weights.
    patience: number of misclassifications after which the search is stopped
      for an image, 1 in the authors' code (tau); 0: never.
    unroll: unroll the loop, for CPUs.
  """

  augment: Augment
  steps: int = 5
  step_size: float = 0.1
  patience: int = 1
  unroll: bool = False

  label: ClassVar[str] = "AugMax"

  def __post_init__(self) -> None:
    super().__post_init__()
    if not isinstance(self.augment, Augment):
      raise ValueError(
        "the views of AugMax are mixtures of AugMix's chains: choose "
        "views=augmix or views=augmix_trivial"
      )
    checks.check(
      vars(self),
      steps=checks.integer(1),
      patience=checks.integer(0),
      step_size=checks.SIZE,
    )

  def views(self, keys: jax.Array, batch: Arrays, model: Model) -> Viewed:
    """The AugMax view, an AugMix view and the clean images, in this order.

    The authors' code uses the same order.
    """
    images, labels = batch["images"], batch["labels"]
    chain_keys, rest = keys_lib.split(keys)
    start_keys, mix_keys = keys_lib.split(rest)
    chains = self.augment.chains(chain_keys, images)
    uniforms = jax.vmap(
      lambda key: jax.random.uniform(key, (1 + self.augment.width,))
    )(start_keys)
    start = uniforms[:, 0], uniforms[:, 1:]
    views = (
      ("augmax", self.worst(start, images, chains, labels, model)),
      ("augmix", self.augment(mix_keys, images)),
      ("clean", images),
    )
    return views, labels

  @jax.named_scope("attack")
  def worst(
    self,
    start: Mixture,
    images: jax.Array,
    chains: jax.Array,
    labels: jax.Array,
    model: Model,
  ) -> jax.Array:
    """Searches for the mixture with the largest loss.

    Args:
      start: weights [B] in [0,1] and logits [B,width], see `Mixture`.
      images: floats [B,H,W,C] in [0,1].
      chains: floats [B,width,H,W,C] in [0,1].
      labels: classes [B].
      model: the classifier.

    Returns:
      Images [B,H,W,C] in [0,1].
    """

    def loss(mixture: Mixture) -> tuple[jax.Array, jax.Array]:
      logits = model(mixed(mixture, images, chains))
      correct = losses.correct(logits, labels)
      return losses.cross_entropy(logits, labels).sum(), correct

    def step(_: int, state: tuple[Mixture, jax.Array]) -> tuple:
      (share, weights), left = state
      slopes, correct = jax.grad(loss, has_aux=True)((share, weights))
      left = jnp.where(correct, left, left - 1)
      size = self.step_size * ((left > 0) | (self.patience == 0))
      share = jnp.clip(share + size * jnp.sign(slopes[0]), 0, 1)
      weights = weights + size[:, None] * jnp.sign(slopes[1])
      return (share, weights), left

    left = jnp.full(labels.shape, self.patience)
    state = repeat(0, self.steps, step, (start, left), self.unroll)
    return mixed(state[0], images, chains)

  def loss(self, logits: Logits, targets: jax.Array) -> Loss:
    """The consistency loss; also reports the AugMax view's accuracy."""
    loss, metrics = super().loss(logits[::-1], targets)
    metrics["augmax_accuracy"] = losses.correct(logits[0], targets)
    return loss, metrics


def mixed(mixture: Mixture, images: jax.Array, chains: jax.Array) -> jax.Array:
  """Mixes images with their chains.

  Args:
    mixture: weights [B] in [0,1] and logits [B,width], see `Mixture`.
    images: floats [B,H,W,C].
    chains: floats [B,width,H,W,C].

  Returns:
    Images [B,H,W,C].
  """
  share, logits = mixture
  weights = jax.nn.softmax(logits)[..., None, None, None]
  share = share[:, None, None, None]
  return (1 - share) * images + share * jnp.sum(weights * chains, axis=1)
