"""The types that every method takes and gives."""

import jax

# (name, images [B,H,W,C]) in the order in which BatchNorm's running statistics
# are updated: a tuple, as JAX sorts the keys of a dictionary.
Views = tuple[tuple[str, jax.Array], ...]

# [B] by name.
Metrics = dict[str, jax.Array]
