"""Many images at once: in threads, which decoders run in side by side, with a progress bar or lines."""

import collections
import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ncl_jax.data.images import decode, transforms
from ncl_jax.data.types import Split, name_of
from ncl_jax.errors import DataError
from ncl_jax.runtime import progress


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[int], Any], count: int, text: str) -> Iterator[Any]:
    """`function(0)`, `function(1)`, ... in order, a few ahead of the caller; an error or Ctrl-C ends it at once."""
    with ThreadPoolExecutor(cores()) as pool:
        try:
            ahead = 16 * cores()
            waiting = collections.deque(pool.submit(function, row) for row in range(min(ahead, count)))
            for row in progress.counted(count, text):
                result = waiting.popleft().result()
                if row + ahead < count:
                    waiting.append(pool.submit(function, row + ahead))
                yield result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def decoded(of_split: Any, row: int) -> np.ndarray:
    """One image of a split as uint8 [H, W, 3]. Raises DataError, naming it, if it cannot be read."""
    image = of_split[row]
    return image if isinstance(image, np.ndarray) else decode.decode(image, name_of(of_split, row))


def needed(of_split: Any, row: int) -> np.ndarray:
    """The same for a run, which cannot do without the image: its error suggests what to do."""
    with _advice():
        return decoded(of_split, row)


@contextlib.contextmanager
def _advice() -> Iterator[None]:
    try:
        yield
    except decode.UnreadableImage as error:
        raise DataError(
            f"{error}: replace or remove it, or set data.skip_unreadable=True. ncl-jax inspect finds all such files"
        ) from error


def errors(split: Split, text: str) -> list[str | None]:
    """What is wrong with each image, None for one that can be decoded. Raises NotEnoughMemory."""

    def attempt(row: int) -> str | None:
        try:
            decoded(split.images, row)
        except decode.NotEnoughMemory:  # of the machine: another time it can be read
            raise
        except DataError as error:
            return str(error)
        return None

    return list(in_threads(attempt, len(split), text))


def sizes(split: Split, text: str, unreadable: tuple[int, int] | None = None) -> np.ndarray:
    """Height and width of every image, int [N, 2], from its header.

    Raises:
      DataError: a file is not an image, unless there is a size for those that are `unreadable`.
    """

    def size(row: int) -> tuple[int, int]:
        try:
            with _advice():
                return decode.size(split.images[row], name_of(split.images, row))
        except DataError:
            if unreadable is None:
                raise
            return unreadable

    if isinstance(split.images, np.ndarray):
        return np.tile(split.images.shape[1:3], (len(split), 1))
    return np.array(list(in_threads(size, len(split), text)))


def fitted(split: Split, resize: int, size: int, text: str, interpolation: str = "bilinear") -> np.ndarray:
    """All images by the test transform, uint8 [N, size, size, 3]."""
    result = np.empty((len(split), size, size, 3), np.uint8)
    fit = lambda row: transforms.fit(needed(split.images, row), resize, size, interpolation)  # noqa: E731
    for row, image in enumerate(in_threads(fit, len(split), text)):
        result[row] = image
    return result


def whole(split: Split, text: str) -> np.ndarray:
    """All images as they are, uint8 [N, H, W, 3]: they must be of one size."""
    return np.stack(list(in_threads(lambda row: needed(split.images, row), len(split), text)))
