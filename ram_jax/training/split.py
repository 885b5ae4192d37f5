"""Separate BatchNorm for clean and other views (AdvProp, Xie et al. 2020).

The views that `Split.views` selects use and update auxiliary statistics; all
others use and update the main ones. Scales and biases are shared or split.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from ml_collections import ConfigDict

MAIN, AUXILIARY = NAMES = ("main", "auxiliary")
SPLITS = ("none", "adversarial", "augmented")
AFFINE = ("shared", "split")
# Views that maximize a loss.
ADVERSARIAL = ("adversarial", "augmax")


@dataclasses.dataclass(frozen=True)
class Split:
  """How BatchNorm is split.

  Attributes:
    views: views with auxiliary statistics: `adversarial`, or `augmented` for
      all but the clean one.
    affine: whether scales and biases are `shared` or `split`.
  """

  views: str
  affine: str

  def double(self, params: Any, batch_stats: Any) -> tuple[Any, Any]:
    """Adds an auxiliary set, which is a copy of the main one.

    Args:
      params: parameters of the network.
      batch_stats: its running statistics.

    Returns:
      Parameters and statistics, by name of the set. Parameters have only one
      set, without a name, if scales and biases are shared.
    """
    if self.affine == "split":
      flat = traverse_util.flatten_dict(params)
      norms = {path: x for path, x in flat.items() if _of_norm(path, flat)}
      params = {MAIN: params, AUXILIARY: traverse_util.unflatten_dict(norms)}
    copied = jax.tree.map(jnp.copy, (params, batch_stats))
    return copied[0], {MAIN: batch_stats, AUXILIARY: copied[1]}

  def select(self, params: Any, batch_stats: Any, name: str) -> tuple[Any, Any]:
    """The variables of the network for one of the sets.

    Args:
      params: from `double`.
      batch_stats: from `double`.
      name: `main` or `auxiliary`.

    Returns:
      Parameters and running statistics of the network.
    """
    if self.affine == "split":
      flat = traverse_util.flatten_dict(params[MAIN])
      if name == AUXILIARY:
        flat |= traverse_util.flatten_dict(params[AUXILIARY])
      params = traverse_util.unflatten_dict(flat)
    return params, batch_stats[name]

  def forward(
    self,
    forward: Callable[..., tuple[tuple[jax.Array, ...], Any]],
    params: Any,
    batch_stats: Any,
    views: dict[str, jax.Array],
  ) -> tuple[tuple[jax.Array, ...], dict[str, Any]]:
    """Runs the training forward pass; each view uses the set it belongs to.

    Args:
      forward: (params, batch_stats, views) -> logits of each view, and the new
        statistics.
      params: from `double`.
      batch_stats: from `double`.
      views: images by name, in order.

    Returns:
      Logits of each view in the views' order, and the new statistics.

    Raises:
      ValueError: if all views use the same set.
    """
    of_view = {name: self._set(name) for name in views}
    if len(set(of_view.values())) < 2:
      raise ValueError(
        f"config.batch_norm.split={self.views} needs {self.views} and other "
        f"views, but this method only has {', '.join(views)}: choose none"
      )
    logits, stats = {}, {}
    for chosen in NAMES:
      names = [name for name in views if of_view[name] == chosen]
      variables = self.select(params, batch_stats, chosen)
      found, stats[chosen] = forward(*variables, tuple(views[n] for n in names))
      logits |= dict(zip(names, found, strict=True))
    return tuple(logits[name] for name in views), stats

  def _set(self, view: str) -> str:
    chosen = view in ADVERSARIAL or (
      self.views == "augmented" and view != "clean"
    )
    return AUXILIARY if chosen else MAIN


def build(config: ConfigDict) -> Split | None:
  """The split of a config's BatchNorm, if any."""
  split = config.batch_norm.split
  return None if split == "none" else Split(split, config.batch_norm.affine)


def _of_norm(path: tuple[str, ...], flat: dict[tuple[str, ...], Any]) -> bool:
  """Whether a parameter is a BatchNorm scale or bias."""
  return (*path[:-1], "scale") in flat
