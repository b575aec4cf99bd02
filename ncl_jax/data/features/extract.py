"""From images to the features of a frozen backbone: decoded in threads, computed on the devices, kept in shards."""

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol

import numpy as np

from ncl_jax.data.features.cache import KEY_BYTES, ROWS, Store
from ncl_jax.data.features.rows import Rows, unknown
from ncl_jax.data.images import parallel, transforms
from ncl_jax.data.types import Preprocessing, Split, name_of
from ncl_jax.errors import DataError
from ncl_jax.runtime import limits


class Compute(Protocol):
    """Images to features."""

    @property
    def batch_size(self) -> int:
        """Images in a call; asked for when there are any to compute."""
        ...

    def __call__(self, images: np.ndarray, /) -> np.ndarray:
        """Features float32 `[B, D]` of images uint8 `[B, size, size, 3]`."""
        ...


class Views(NamedTuple):
    """Which views of an image are made.

    Attributes:
      number: V training views after the test view, each with draws that follow from the image and the view alone; 0:
        the test view only.
      flip: whether a training view is flipped left to right in half of the draws.
      scale: share of the area that a training view shows, from and to.
    """

    number: int = 0
    flip: bool = True
    scale: tuple[float, float] = (0.35, 1.0)

    @property
    def each(self) -> int:
        """Views of each image."""
        return 1 + self.number


class Identities(NamedTuple):
    """What the images of a split are.

    Attributes:
      keys: of each image, `KEY_BYTES` bytes, by which the cache knows its features.
      draws: of each image uint64 `[N, 2]`, from which the draws of its training views follow.
    """

    keys: list[bytes]
    draws: np.ndarray

    def take(self, rows: np.ndarray) -> "Identities":
        """Those of some of the images."""
        return Identities([self.keys[row] for row in rows], self.draws[rows])


def identities(split: Split) -> Identities:
    """What tells the images of a split from others: their pixels, or the names, sizes, times of change and parts of the
    content of their files. The draws do not follow from the times, which a copy of the files may not keep."""
    images = split.images
    if hasattr(images, "stamps"):
        stamps = images.stamps()
        draws = [_digest(what.encode("utf-8", "surrogateescape")) for what, _ in stamps]
        keys = [_digest(drawn + changed.encode()) for drawn, (_, changed) in zip(draws, stamps, strict=True)]
    else:
        pixels = (np.ascontiguousarray(images[row]) for row in range(len(split)))
        keys = draws = [_digest(str(image.shape).encode() + image.tobytes()) for image in pixels]
    return Identities(keys, np.frombuffer(b"".join(draws), "<u8").reshape(-1, 2))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


def views_of(image: np.ndarray, draws: np.ndarray, views: Views, pixels: Preprocessing) -> np.ndarray:
    """The views of one image, uint8 `[1 + V, size, size, 3]`; `draws`: see `Identities`, of this image."""
    plain = transforms.fit(image, pixels.resize, pixels.size, pixels.interpolation)
    return np.stack([plain, *(_training_view(image, draws, view, views, pixels) for view in range(views.number))])


def _training_view(image, draws, view, views, pixels):
    rng = np.random.Generator(np.random.Philox(key=draws, counter=[0, 0, 0, view]))
    cut = transforms.random_resized_crop(
        rng, image, size=pixels.size, scale=views.scale, interpolation=pixels.interpolation
    )
    return cut[:, ::-1] if views.flip and rng.random() < 0.5 else cut


def own_rows(number: int, part: tuple[int, int]) -> np.ndarray:
    """Which of so many images a process computes, bool `[N]`: every so many-th block of `ROWS`; `part`: its number and
    how many there are."""
    return np.arange(number) // ROWS % part[1] == part[0]


def extract(
    split: Split,
    known: Identities,
    store: Store,
    views: Views,
    pixels: Preprocessing,
    compute: Compute,
    *,
    text: str,
    part: tuple[int, int] = (0, 1),
    before: Callable[[int], None] = lambda images: None,
    after_shard: Callable[[], None] = lambda: None,
) -> Rows:
    """The features of all views of all images, float32 `[N, 1 + V, D]`: those that are kept, and else computed.

    Args:
      split: the images.
      known: what they are.
      store: where they are kept.
      views: which views.
      pixels: see `Preprocessing`.
      compute: what makes features, always of `batch_size` images.
      text: for the progress bar.
      part: this process's number and how many there are: it computes its `own_rows`, and others may be unknown.
      before: called with the number of this process's images that are to be computed, before they are.
      after_shard: called when a shard has been kept; what it raises ends the work.

    Raises:
      DataError: an image cannot be read, or its features are not finite; features cannot be kept, and do not fit in
        memory.
    """
    found = store.find(known.keys)
    rows = unknown(known.keys, found.places, np.flatnonzero(own_rows(len(split), part)))
    before(len(rows))
    look = functools.partial(_look, split, known.draws, rows, views, pixels)
    with contextlib.closing(_computed(look, len(rows), views, compute, text)) as source:
        for first in range(0, len(rows), ROWS):
            if not store.keeps:
                _check_memory(4 * math.prod(store.shape) * (len(rows) - first))
            chunk = rows[first : first + ROWS]
            made = np.stack([next(source) for _ in chunk])
            _check_finite(made, split, chunk)
            keys = [known.keys[row] for row in chunk]
            found.places.update({key: (len(found.parts), row) for row, key in enumerate(keys)})
            found.parts.append(store.write(keys, made))
            after_shard()
    return Rows.of(known.keys, found, store.shape)


def _check_finite(features: np.ndarray, split: Split, rows: np.ndarray) -> None:
    finite = np.isfinite(features).all((1, 2))
    if not finite.all():
        raise DataError(
            f"{name_of(split.images, int(rows[~finite][0]))}: its features are infinite or not a number; replace the "
            "weights of the frozen backbone (model.pretrained), or set precision=float32"
        )


def _check_memory(size: int) -> None:
    if size > limits.host_memory():
        raise DataError(
            f"the features take {size / 1e9:,.1f} GB and are not kept in a cache, and this machine has "
            f"{limits.host_memory() / 1e9:,.1f} GB of memory: set data.cache=DIR to a folder that can be written, free "
            "disk space, or lower data.cached_views"
        )


def _look(split, draws, rows, views, pixels, index):
    row = rows[index]
    return views_of(parallel.needed(split.images, row), draws[row], views, pixels)


def _computed(look, number, views, compute, text) -> Generator[Any, None, None]:
    """The features `[V, D]` of so many images, in their order; `look` gives the views of each."""
    batch_size = compute.batch_size if number else 1
    waiting: list[np.ndarray] = []
    left: list[np.ndarray] = []
    for made in parallel.in_threads(look, number, text):
        waiting.extend(made)
        while len(waiting) >= batch_size:
            left.extend(compute(np.stack(waiting[:batch_size])))
            del waiting[:batch_size]
        while len(left) >= views.each:
            yield np.stack(left[: views.each])
            del left[: views.each]
    if waiting:
        filled = waiting + waiting[:1] * (batch_size - len(waiting))
        left.extend(compute(np.stack(filled))[: len(waiting)])
    for first in range(0, len(left), views.each):
        yield np.stack(left[first : first + views.each])
