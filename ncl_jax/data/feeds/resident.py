"""Datasets that are decoded once and live on the devices: which ones, and how their batches are taken."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncl_jax.data.feeds.feed import Batch
from ncl_jax.data.images import parallel
from ncl_jax.data.types import Split
from ncl_jax.runtime.devices import like_rows, put_rows, replicated, take_rows


def epoch_order(key: jax.Array, epoch: jax.Array, num_images: int) -> jax.Array:
    """The order in which epoch `epoch` (from 0) visits the images: a permutation `[num_images]` int32."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), num_images).astype(jnp.int32)


def flat(images: np.ndarray) -> np.ndarray:
    """`[N, H, W, 3]` to `[N, H * W * 3]`: on a device, where three colours would fill three of a register's 128
    lanes, an image that lies in one row is taken without a copy of all others into another layout."""
    return images.reshape(len(images), -1)


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
        self._mesh, self._place, self._batch_size = mesh, replicated(mesh), batch_size
        self._images, self._labels, self._shape = flat(images), labels, images.shape[1:]
        self._steps_per_epoch = len(labels) // batch_size
        self._key, self._take_rows = key, take_rows(mesh)
        self._order = jax.jit(epoch_order, static_argnums=2, out_shardings=self._place)

    @functools.cached_property
    def _arrays(self):
        return put_rows(self._mesh, self._images), jax.device_put(self._labels, self._place)

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
        return like_rows(self._mesh, self._images), numbers, numbers


class ResidentTest(OnDevice):
    """A test set on the devices, in batches of `batch_size`; the last is filled up with rows that are not valid."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int, mesh: Mesh):
        self._count = -(-len(labels) // batch_size)

        def put(array: np.ndarray) -> jax.Array:  # [batches, B, ...], every batch spread over the devices
            padding = [(0, self._count * batch_size - len(array)), *[(0, 0)] * (array.ndim - 1)]
            array = np.pad(array, padding).reshape(self._count, batch_size, *array.shape[1:])
            return put_rows(mesh, array, axis=1)

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


LARGEST_RESIDENT = 2**31  # bytes of decoded images; larger sets are streamed


def decoded_bytes(num_images: int, size: int) -> int:
    """What images of a size take as uint8."""
    return num_images * size**2 * 3


def alike(shapes: np.ndarray) -> bool:
    """Whether all heights and widths, int [N, 2], are the same."""
    return bool((shapes == shapes[:1]).all())


def stored_bytes(split: Split, *, feed: str, size: int, resizes: bool) -> int | None:
    """The least that `stored` makes of a split, in bytes, before any image is read: 0 where that follows from the
    images, None where they are to be streamed."""
    in_memory = isinstance(split.images, np.ndarray)
    if feed == "stream" or (feed == "auto" and not in_memory and decoded_bytes(len(split), size) > LARGEST_RESIDENT):
        return None
    if not resizes:
        return decoded_bytes(len(split), size)
    return split.images.nbytes if in_memory else 0


def stored(
    split: Split, *, feed: str, size: int, resize: int, resizes: bool, text: str, interpolation: str = "bilinear"
) -> np.ndarray | None:
    """The images of a split as an array for the devices; None where they are to be streamed.

    Args:
      split: the images.
      feed: "resident", "stream", or "auto" for whichever suits.
      size, resize, interpolation: of the test transform, see `transforms.fit`.
      resizes: whether the views begin by cutting an image of any size to the network's. Such images are stored as they
        are if all are of one size; otherwise "auto" streams them, and "resident" stores the test transform's square
        of side `resize`.
      text: for the progress bar.

    Returns:
      uint8 [N, H, W, 3]: of the network's size, unless the views resize.
    """
    if stored_bytes(split, feed=feed, size=size, resizes=resizes) is None:
        return None
    in_memory = isinstance(split.images, np.ndarray)
    if in_memory and (resizes or split.images.shape[1:3] == (size, size)):
        return split.images
    if not resizes:
        return parallel.fitted(split, resize, size, text, interpolation)
    shapes = parallel.sizes(split, "reading the images' sizes")
    if alike(shapes) and (feed == "resident" or shapes.prod(1).sum() * 3 <= LARGEST_RESIDENT):
        return parallel.whole(split, text)
    return parallel.fitted(split, resize, resize, text, interpolation) if feed == "resident" else None
