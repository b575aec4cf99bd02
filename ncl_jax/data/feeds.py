"""Where a run's batches come from: a feed hands out sources, from which a step takes its batch inside the program.

`batches(first_step)` yields `(source, count)`: with this source the next `count` steps can be taken, in one call if
the caller likes. `take(source, step)` gives the batch of one of them; it is traced into the program that uses it. A
feed whose data lives on the devices hands out the same arrays for a whole epoch, and `take` gathers rows; a streamed
one hands out finished batches, `count` 1, and `take` returns the source.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncl_jax import sharding
from ncl_jax.steps import Batch


class Feed(Protocol):
    """The order of the batches depends on seed and step alone, so that a run continues at any step.

    Attributes:
      cut: whether the images have been through the host's part of the views, see `views.make_view`.
      waited: seconds that the caller has waited for batches.
    """

    cut: bool
    waited: float

    def batches(self, first_step: int) -> Iterator[tuple[Any, int]]:
        """The sources from step `first_step` (from 0) on, each with the number of steps that it serves."""
        ...

    def take(self, source: Any, step: jax.Array) -> Batch:
        """The batch of a step; for use under `jit`."""
        ...

    def like(self) -> Any:
        """The shapes of a source."""
        ...

    def close(self) -> None:
        """Ends what reads ahead."""
        ...


def epoch_order(key: jax.Array, epoch: jax.Array, num_images: int) -> jax.Array:
    """The order in which epoch `epoch` (from 0) visits the images: a permutation `[num_images]` int32."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), num_images).astype(jnp.int32)


def over(feed: Feed, mesh: Mesh, function: Callable[[Batch, Any], Any]) -> Callable[[Any], list]:
    """Makes `run(argument)`, which gives the results of `function(batch, argument)` for all that a test feed holds.

    Nothing waits for the results: they are arrays on all devices of the mesh, ready when they are read.
    """
    place = sharding.replicated(mesh)

    @functools.partial(jax.jit, out_shardings=place)
    def one(argument, source, step):
        return function(feed.take(source, step), argument)

    def run(argument: Any) -> list:
        results: list = []
        for source, count in feed.batches(0):
            for _ in range(count):
                results.append(one(argument, source, jax.device_put(np.int32(len(results)), place)))
        return results

    return run


def flat(images: np.ndarray) -> np.ndarray:
    """`[..., H, W, 3]` to `[..., H * W * 3]`: on a device, where three colours would fill three of a register's 128
    lanes, an image that lies in one row is taken without a copy of all others into another layout."""
    return images.reshape(*images.shape[:-3], -1)


class OnDevice:
    """What the feeds have in common whose arrays live on the devices."""

    cut, waited = False, 0.0

    def close(self) -> None:
        """See `Feed`: nothing reads ahead."""


class Resident(OnDevice):
    """A training set on the devices: every epoch visits each image once, the last partial batch left out.

    Args:
      images: uint8 [N, H, W, 3], spread over the mesh's data axis.
      labels: int32 [N].
      key: random key of the order.
      batch_size: B.
      mesh: the run's devices.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, key: jax.Array, batch_size: int, mesh: Mesh):
        self._mesh, self._place, self._batch_size = mesh, sharding.replicated(mesh), batch_size
        self._images, self._labels, self._shape = flat(images), labels, images.shape[1:]
        self._steps_per_epoch = len(labels) // batch_size
        self._key, self._take_rows = key, sharding.take_rows(mesh)
        self._order = jax.jit(epoch_order, static_argnums=2, out_shardings=self._place)

    @functools.cached_property
    def _arrays(self):
        return sharding.put_rows(self._mesh, self._images), jax.device_put(self._labels, self._place)

    def batches(self, first_step: int) -> Iterator[tuple[Any, int]]:
        """See `Feed`: one source per epoch."""
        num_images = len(self._labels)
        while True:
            epoch, done = divmod(first_step, self._steps_per_epoch)
            order = self._order(self._key, jax.device_put(np.int32(epoch), self._place), num_images)
            yield (*self._arrays, order), self._steps_per_epoch - done
            first_step += self._steps_per_epoch - done

    def take(self, source: Any, step: jax.Array) -> Batch:
        """See `Feed`."""
        images, labels, order = source
        first = step % self._steps_per_epoch * self._batch_size
        rows = jax.lax.dynamic_slice(order, (first,), (self._batch_size,))
        taken = self._take_rows(images, rows)
        return Batch(taken.reshape(self._batch_size, 1, *self._shape), labels[rows])

    def like(self) -> Any:
        """See `Feed`."""
        numbers = jax.ShapeDtypeStruct(self._labels.shape, np.int32, sharding=self._place)
        return sharding.like_rows(self._mesh, self._images), numbers, numbers


class ResidentTest(OnDevice):
    """A test set on the devices, in batches of `batch_size`; the last is filled up with rows that are not valid."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int, mesh: Mesh):
        self._count = -(-len(labels) // batch_size)

        def put(array: np.ndarray) -> jax.Array:  # [batches, B, ...], every batch spread over the devices
            padding = [(0, self._count * batch_size - len(array)), *[(0, 0)] * (array.ndim - 1)]
            array = np.pad(array, padding).reshape(self._count, batch_size, *array.shape[1:])
            return sharding.put_rows(mesh, array, axis=1)

        self._shape = images.shape[1:]
        self._arrays = Batch(put(flat(images)), put(labels), put(np.ones(len(labels), bool)))

    def batches(self, first_step: int) -> Iterator[tuple[Any, int]]:
        """See `Feed`: one source for the whole set."""
        yield self._arrays, self._count - first_step

    def take(self, source: Any, step: jax.Array) -> Batch:
        """See `Feed`."""
        batch = jax.tree.map(lambda array: array[step], source)
        return batch._replace(images=batch.images.reshape(-1, 1, *self._shape))

    def like(self) -> Any:
        """See `Feed`."""
        return self._arrays
