"""Batches of features: on the devices like a resident dataset or, where they do not fit, gathered by the host."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncl_jax.data.features.rows import Rows
from ncl_jax.data.feeds.feed import Batch, Feed
from ncl_jax.data.feeds.resident import LARGEST_RESIDENT, Resident, ResidentTest, epoch_order
from ncl_jax.data.feeds.stream import ENDLESS, InOrder, Stream
from ncl_jax.runtime import limits

VIEWS = 2**32 - 1  # of the stream of draws that choose views
SHARE = 0.5  # of a device's memory that features may take

Features = np.ndarray | Rows  # float32 [N, V, D]


def fit(size: int, mesh: Mesh | None) -> bool:
    """Whether features of so many bytes are kept on the devices: a part of their memory or, of CPUs, which have none of
    their own, `LARGEST_RESIDENT` for each."""
    own = limits.device_memory(jax.local_devices()[0] if mesh is None else mesh.local_devices[0])
    most = max(LARGEST_RESIDENT, int(SHARE * (own or 0)))
    return size <= most * (1 if mesh is None else mesh.shape["data"])


def training_features(
    features: Features, labels: np.ndarray, key: jax.Array, batch_size: int, mesh: Mesh, number: int, threads: int
) -> Feed:
    """The feed of training features `[N, 1 + V, D]`, the test view first: on the devices or, where they do not fit,
    from where they lie. Both have the same batches.

    Args:
      features, labels: the training set's.
      key: of the order and the views.
      batch_size: B.
      mesh: the run's devices.
      number: views of each image in a batch, different ones as far as V allows.
      threads: that gather batches, where they do not lie on the devices.
    """
    if fit(features.nbytes, mesh):
        images = features.whole() if isinstance(features, Rows) else features
        return ResidentFeatures(images, labels, key, batch_size, mesh, number)
    order = TrainingOrder(key, len(labels), batch_size, features.shape[1] - 1, number)
    return _stream(features, labels, order, batch_size, mesh, threads)


def evaluation_features(features: Features, labels: np.ndarray, batch_size: int, mesh: Mesh, threads: int) -> Feed:
    """The feed of the test views of `[N, V, D]` in batches of `batch_size`, as for training."""
    if fit(features.nbytes // features.shape[1], mesh):
        return ResidentTest(features[:, 0], labels, batch_size, mesh)
    return _stream(features, labels, InTurn(len(labels), batch_size), batch_size, mesh, threads)


def chosen_views(key: jax.Array, step: Any, batch_size: int, of: int, number: int) -> jax.Array:
    """The views of each image of a step, int `[B, number]`: of 1 to `of`, because the first is the test view."""
    draws = jax.random.fold_in(jax.random.fold_in(key, VIEWS), step)  # apart from the epochs' orders
    first = jax.random.randint(draws, (batch_size, 1), 0, of)
    return 1 + (first + jnp.arange(number)) % of


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
        chosen = chosen_views(key, step, len(views), views.shape[1] - 1, self._number)
        return batch._replace(images=jnp.take_along_axis(views, chosen[..., None], 1))

    def like(self) -> Any:
        """See `Feed`."""
        return (*super().like(), self._key)


class TrainingOrder:
    """The images and views of the steps of `ResidentFeatures`, found on this process's own device."""

    num_batches = ENDLESS

    def __init__(self, key: jax.Array, num_images: int, batch_size: int, of: int, number: int):
        own = jax.random.wrap_key_data(jnp.asarray(np.asarray(jax.random.key_data(key))))  # of every process the same
        self._batch_size, self._steps, self.number = batch_size, num_images // batch_size, number
        order = jax.jit(functools.partial(epoch_order, own, num_images=num_images))
        self._order = functools.lru_cache(2)(lambda epoch: np.asarray(order(epoch)))
        self._views = jax.jit(lambda step: chosen_views(own, step, batch_size, of, number))

    def rows(self, step: int) -> np.ndarray:
        """The images of a step, int [B]."""
        epoch, batch = divmod(step, self._steps)
        return self._order(epoch)[batch * self._batch_size : (batch + 1) * self._batch_size]

    def views(self, step: int) -> np.ndarray:
        """Of each of them, int [B, number]."""
        return np.asarray(self._views(step))


class InTurn(InOrder):
    """A test set in its order, by the test view."""

    number = 1

    def views(self, step: int) -> np.ndarray:
        """See `TrainingOrder`."""
        return np.zeros((len(self.rows(step)), 1), int)


class Gathered:
    """The batches of one process as a sequence, see `stream.Batches`: `batches[step]` gathers its rows.

    Args:
      features, labels: of all images.
      order: `TrainingOrder` or `InTurn`.
      batch_size: B, of all processes together.
      local: the rows [b] of every batch that this process holds.
    """

    dtype = np.float32

    def __init__(self, features: Features, labels: np.ndarray, order: Any, batch_size: int, local: np.ndarray):
        self._features, self._labels, self._order, self._local = features, labels, order, local
        self.image_shape = (order.number, features.shape[2])

    def __len__(self) -> int:
        return self._order.num_batches

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """`images` float32 [b, number, D], `labels` int32 [b] and `valid` bool [b]."""
        rows, views = self._order.rows(step)[self._local], self._order.views(step)[self._local]
        valid = rows >= 0
        images = np.where(valid[:, None, None], self._features[rows[:, None], views], 0)
        return {"images": images, "labels": np.where(valid, self._labels[rows], 0), "valid": valid}


def _stream(features, labels, order, batch_size, mesh, threads) -> Feed:
    make: Callable = functools.partial(Gathered, features, labels, order, batch_size)
    feed = Stream(make, batch_size, mesh, threads=threads, workers=0)
    feed.cut = False
    return feed
