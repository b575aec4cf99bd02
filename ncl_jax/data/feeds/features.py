"""Batches of features: on the devices like a resident dataset, or from the host's memory where they do not fit."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ncl_jax.data.feeds.feed import Batch, Feed
from ncl_jax.data.feeds.resident import LARGEST_RESIDENT, OnDevice, Resident
from ncl_jax.data.feeds.stream import Shuffled

VIEWS = 2**32 - 1  # of the stream of draws that choose views


def training_features(
    features: np.ndarray, labels: np.ndarray, key: jax.Array, seed: int, batch_size: int, mesh: Mesh, number: int
) -> Feed:
    """The feed of training features float32 `[N, 1 + V, D]`, the test view first: on the devices or, where they do not
    fit, from the host.

    Args:
      features, labels: the training set's.
      key: of a resident feed's order and views; `seed`: of the other's.
      batch_size: B.
      mesh: the run's devices.
      number: views of each image in a batch, different ones as far as V allows.
    """
    if features.nbytes <= LARGEST_RESIDENT * mesh.shape["data"]:
        return ResidentFeatures(features, labels, key, batch_size, mesh, number)
    return HostFeatures(features, labels, seed, batch_size, mesh, number)


class ResidentFeatures(Resident):
    """Training features on the devices; every step takes some of each image's training views at random.

    Args:
      features, number: see `training_features`.
      labels, key, batch_size, mesh: see `Resident`.
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
        draws = jax.random.fold_in(jax.random.fold_in(key, VIEWS), step)  # apart from the epochs' orders
        number = views.shape[1] - 1  # the first is the test view
        first = jax.random.randint(draws, (len(views), 1), 0, number)
        chosen = 1 + (first + jnp.arange(self._number)) % number
        return batch._replace(images=jnp.take_along_axis(views, chosen[..., None], 1))

    def like(self) -> Any:
        """See `Feed`."""
        return (*super().like(), self._key)


class HostFeatures(OnDevice):
    """The same from the host's memory: a batch at a time goes to the devices; arguments as for `training_features`."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, seed: int, batch_size: int, mesh: Mesh, number: int):
        self._features, self._labels, self._seed, self._number = features, labels, seed, number
        self._order, self._place = Shuffled(seed, len(labels), batch_size), NamedSharding(mesh, P("data"))
        self._batch_size = batch_size

    def batches(self, first_step: int) -> Iterator[tuple[Any, int]]:
        """See `Feed`: a batch for each step."""
        for step in itertools.count(first_step):
            rows, views = self._order.rows(step), self._features.shape[1] - 1
            draws = np.random.Generator(np.random.Philox(key=[self._seed, step], counter=[0, 0, 0, 2]))
            chosen = 1 + (draws.integers(views, size=(len(rows), 1)) + np.arange(self._number)) % views
            yield Batch(self._put(self._features[rows[:, None], chosen]), self._put(self._labels[rows])), 1

    def take(self, source: Batch, step: jax.Array) -> Batch:
        """See `Feed`."""
        return source

    def like(self) -> Any:
        """See `Feed`."""
        shape = (self._batch_size, self._number, self._features.shape[-1])
        struct: Any = functools.partial(jax.ShapeDtypeStruct, sharding=self._place)
        return Batch(struct(shape, np.float32), struct(shape[:1], np.int32))

    def _put(self, array):
        return jax.make_array_from_callback(array.shape, self._place, lambda part: array[part])
