"""Batches of features: on the devices like a resident dataset, or from the host's memory where they do not fit."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncl_jax.data.feeds.feed import Batch
from ncl_jax.data.feeds.resident import Resident


class ResidentFeatures(Resident):
    """Training features on the devices; every step takes some of each image's cached views at random.

    Args:
      features: float32 `[N, V, D]`.
      labels, key, batch_size, mesh: see `Resident`.
      number: views of each image in a batch, different ones as far as V allows.
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, key: jax.Array, batch_size: int, mesh: Mesh, number: int
    ):
        super().__init__(features, labels, key, batch_size, mesh)
        self._number = number

    def batches(self, first_step: int) -> Iterator[tuple[Any, int]]:
        """See `Feed`."""
        for source, count in super().batches(first_step):
            yield (*source, self._key), count

    def take(self, source: Any, step: jax.Array) -> Batch:
        """See `Feed`: images float32 `[B, number, D]`."""
        *rest, key = source
        batch = super().take(rest, step)
        views = batch.images[:, 0]  # [B, V, D]
        first = jax.random.randint(jax.random.fold_in(key, step), (len(views), 1), 0, views.shape[1])
        chosen = (first + jnp.arange(self._number)) % views.shape[1]
        return batch._replace(images=jnp.take_along_axis(views, chosen[..., None], 1))

    def like(self) -> Any:
        """See `Feed`."""
        return (*super().like(), self._key)
