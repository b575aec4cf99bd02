"""Batches that the host decodes while the devices compute: a sequence by step, read ahead by Grain's threads.

What a batch holds depends on seed and step alone: the order of an epoch is a permutation seeded with seed and epoch,
and every image's draws come from a generator of its own, seeded with seed and position. So the batches are the same
for any number of threads, workers, processes and devices, and a run continues by slicing the sequence at its step.
"""

import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ncl_jax.data.feeds.feed import Batch
from ncl_jax.data.images import transforms
from ncl_jax.data.images.parallel import needed
from ncl_jax.data.types import Split
from ncl_jax.errors import one_line
from ncl_jax.runtime import console

ENDLESS = 2**40  # batches; a run ends before


class Shuffled:
    """The order of a training set of `epochs`: each visits every image once, the last partial batch left out."""

    def __init__(self, seed: int, num_images: int, batch_size: int, epochs: int = 1):
        self._seed, self._num_images, self._batch_size, self._epochs = seed, num_images, batch_size, epochs
        self.num_batches = ENDLESS

    def progress(self, step: int) -> float:
        """The share of the epochs that are done, 0 in the first one and 1 in the last one."""
        last = self._epochs - 1
        return min(step // (self._num_images // self._batch_size), last) / max(last, 1)

    def rows(self, step: int) -> np.ndarray:
        """The images of a step, int [B]."""
        epoch, batch = divmod(step, self._num_images // self._batch_size)
        order = _permutation(self._seed, epoch, self._num_images)
        return order[batch * self._batch_size : (batch + 1) * self._batch_size]


@functools.lru_cache(maxsize=2)
def _permutation(seed, epoch, num_images):
    return _generator(seed, epoch, 0).permutation(num_images)


def _generator(seed: int, number: int, stream: int) -> np.random.Generator:
    """The random numbers of an epoch (stream 0) or of a position in the sequence of all images (stream 1)."""
    return np.random.Generator(np.random.Philox(key=[seed, number], counter=[0, 0, 0, stream]))


class InOrder:
    """A test set from its first image to its last; the last batch is filled up with -1."""

    def __init__(self, num_images: int, batch_size: int):
        self._num_images, self._batch_size = num_images, batch_size
        self.num_batches = -(-num_images // batch_size)

    def progress(self, step: int) -> float:
        """As if after training, see `Shuffled`."""
        return 1.0

    def rows(self, step: int) -> np.ndarray:
        """The images of a step, int [B]."""
        rows = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        return np.where(rows < self._num_images, rows, -1)


class Cut:
    """What the host makes of one image: `views` [V, size, size, 3], each by its own draws from one decode.

    Args:
      parts: for each view, `(generator, image) -> image of the size`, of `transforms.CHANGING` with the share of the
        epochs that are done; None for the test transform.
      resize, size, interpolation: of the test transform, see `transforms.fit`.
    """

    def __init__(self, parts: Sequence[Callable | None], resize: int, size: int, interpolation: str = "bilinear"):
        self.parts, self.resize, self.size, self.interpolation = parts, resize, size, interpolation

    def __call__(self, image: np.ndarray, rng: np.random.Generator, out: np.ndarray, progress: float = 1.0) -> None:
        fitted = None
        if None in self.parts:
            fitted = transforms.fit(image, self.resize, self.size, self.interpolation)
        for view, part in enumerate(self.parts):
            more = {"progress": progress} if getattr(part, "func", None) in transforms.CHANGING else {}
            out[view] = fitted if part is None else part(rng, image, **more)


class Batches:
    """The batches of one process as a sequence: `batches[step]` decodes and cuts its rows.

    Args:
      split: the images.
      order: `Shuffled` or `InOrder`.
      cut: see `Cut`.
      seed: of the draws.
      batch_size: B, of all processes together.
      local: the rows [b] of every batch that this process holds.
    """

    dtype = np.uint8

    def __init__(self, split: Split, order: Any, cut: Cut, seed: int, batch_size: int, local: np.ndarray):
        self._split, self._order, self._cut, self._seed = split, order, cut, seed
        self._batch_size, self._local = batch_size, local

    def __setstate__(self, state: dict) -> None:
        """Leaves Ctrl-C, which reaches every process of a terminal, to the one that started a worker."""
        self.__dict__.update(state)
        in_worker = multiprocessing.parent_process() is not None
        if in_worker and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """(V, size, size, 3)."""
        return len(self._cut.parts), self._cut.size, self._cut.size, 3

    def __len__(self) -> int:
        return self._order.num_batches

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """`images` uint8 [b, V, size, size, 3], `labels` int32 [b] and `valid` bool [b]."""
        rows, progress = self._order.rows(step)[self._local], self._order.progress(step)
        views = np.zeros((len(rows), *self.image_shape), np.uint8)
        for place, row in enumerate(rows):
            if row >= 0:
                position = step * self._batch_size + self._local[place]
                self._cut(needed(self._split.images, row), _generator(self._seed, position, 1), views[place], progress)
        valid = rows >= 0
        return {"images": views, "labels": np.where(valid, self._split.labels[rows], 0), "valid": valid}


class Stream:
    """A feed (see `feed.Feed`) of finished batches.

    Args:
      batches: `(rows of this process) -> Batches`, or another such sequence.
      batch_size: B.
      mesh: the run's devices; a batch is spread over the data axis.
      threads: that decode in each process or worker.
      workers: processes that decode; 0: threads of this one.

    Attributes:
      cut, waited: see `Feed`.
    """

    cut = True

    def __init__(
        self, batches: Callable[[np.ndarray], Any], batch_size: int, mesh: Mesh, *, threads: int, workers: int
    ):
        self._place, self._batch_size = NamedSharding(mesh, P("data")), batch_size
        held = self._place.addressable_devices_indices_map((batch_size,)).values()
        self._local = np.unique(np.concatenate([np.arange(batch_size)[part] for part in held]))
        self._batches, self._threads, self._workers = batches(self._local), threads, workers
        self._iterator: Any = None
        self._next, self.waited = 0, 0.0

    def batches(self, first_step: int) -> Iterator[tuple[Any, int]]:
        """See `Feed`: a batch for each step; continues reading ahead where it is asked for the step that comes next."""
        for step in range(first_step, len(self._batches)):
            began = time.perf_counter()
            batch = self._read(step)
            self.waited += time.perf_counter() - began
            self._next = step + 1
            yield self._put(batch), 1
        self.close()

    def take(self, source: Batch, step: jax.Array) -> Batch:
        """See `Feed`."""
        return source

    def like(self) -> Any:
        """See `Feed`."""
        shape = (self._batch_size, *self._batches.image_shape)
        struct: Any = functools.partial(jax.ShapeDtypeStruct, sharding=self._place)
        return Batch(struct(shape, self._batches.dtype), struct(shape[:1], np.int32), struct(shape[:1], np.bool_))

    def close(self) -> None:
        """Ends the threads and processes."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _read(self, step):
        """A step's batch. Where the worker processes fail, threads of this process decode it and all that follow: the
        batches are the same. What an image is at fault for comes again, from there."""
        try:
            return self._read_once(step)
        except (OSError, RuntimeError) as error:
            if not self._workers:
                raise
            console.say(
                f"note: the worker processes failed ({one_line(error)}): threads decode instead. "
                f"data.workers={self._workers} needs memory, and room in /dev/shm (in Docker: --shm-size)"
            )
            self._workers = 0
            self.close()
            return self._read_once(step)

    def _read_once(self, step):
        if self._iterator is None or self._next != step:
            self._open(step)
        return next(self._iterator)

    def _open(self, first_step):
        self.close()
        dataset = grain.MapDataset.source(self._batches)[first_step:]
        ahead = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads + 1)
        iterable = dataset.to_iter_dataset(ahead)
        if self._workers:
            os.environ["JAX_PLATFORMS"] = "cpu"  # of the workers: this process has its devices
            flags.FLAGS.mark_as_parsed()  # Grain asks them
            iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
        self._iterator, self._next = iter(iterable), first_step

    def _put(self, batch):
        def put(array):
            shape = (self._batch_size, *array.shape[1:])
            return jax.make_array_from_callback(shape, self._place, lambda part: array[self._rows(part)])

        return Batch(put(batch["images"]), put(batch["labels"]), put(batch["valid"]))

    def _rows(self, part):
        """Where a device's part of the batch lies in this process's rows."""
        start, stop, _ = part[0].indices(self._batch_size)
        first = int(np.searchsorted(self._local, start))
        return slice(first, first + stop - start)
