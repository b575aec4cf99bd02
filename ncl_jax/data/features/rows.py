"""Features that lie in several arrays, most of them mapped from files: only what is asked for is read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

CHUNK = 512  # images that are looked at at once


class Found(NamedTuple):
    """Features by the keys of their images."""

    parts: list[np.ndarray]  # float32 [n, V, D] each
    places: dict[bytes, tuple[int, int]]  # the part and the row in it of each image


class Rows:
    """The features of images, float32 `[N, V, D]`, indexed like an array: `rows[images]` are those of some images,
    `rows[images, views]` is an array of some of their views.

    Args:
      parts: arrays `[n, V, D]`.
      part, row: where each image's are, int `[N]`; part -1: unknown, which are 0.
      shape: V, D.
    """

    dtype, ndim = np.dtype(np.float32), 3

    def __init__(self, parts: Sequence[np.ndarray], part: np.ndarray, row: np.ndarray, shape: tuple[int, int]):
        self._parts, self._part, self._row = parts, part, row
        self.shape = (len(part), *shape)
        self.nbytes = 4 * int(np.prod(self.shape, dtype=np.int64))

    @classmethod
    def of(cls, keys: Sequence[bytes], found: Found, shape: tuple[int, int]) -> "Rows":
        """The features of the images with these keys."""
        places = np.array([found.places.get(key, (-1, 0)) for key in keys], np.int64).reshape(-1, 2)
        return cls(found.parts, places[:, 0], places[:, 1], shape)

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, tuple):
            return Rows(self._parts, self._part[index], self._row[index], self.shape[1:])
        rows, views = np.broadcast_arrays(np.arange(len(self))[index[0]], index[1])
        part, row, result = self._part[rows], self._row[rows], np.zeros((*rows.shape, self.shape[2]), np.float32)
        for number in np.unique(part[part >= 0]):
            here = part == number
            result[here] = self._parts[number][row[here], views[here]]
        return result

    def whole(self) -> np.ndarray:
        """All of them as one array."""
        result = np.zeros(self.shape, np.float32)
        for number in np.unique(self._part[self._part >= 0]):
            here = self._part == number
            result[here] = self._parts[number][self._row[here]]
        return result


def chunks(features: "np.ndarray | Rows") -> Iterator[np.ndarray]:
    """The features `[N, V, D]` in arrays of `CHUNK` images."""
    for first in range(0, len(features), CHUNK):
        part = features[first : first + CHUNK]
        yield part.whole() if isinstance(part, Rows) else part


def moments(features: "np.ndarray | Rows") -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation `[D]` over images and views, float64."""
    number = len(features) * features.shape[1]
    mean = sum(part.sum((0, 1), dtype=np.float64) for part in chunks(features)) / number
    squares = sum(((part - mean) ** 2).sum((0, 1)) for part in chunks(features))
    return mean, np.sqrt(squares / number)


def view_means(features: "np.ndarray | Rows") -> np.ndarray:
    """The mean of each image's views, float32 `[N, D]`."""
    return np.concatenate([part.mean(1) for part in chunks(features)])


def unknown(keys: Sequence[bytes], places: Mapping[bytes, Any], among: np.ndarray) -> np.ndarray:
    """The rows, of those `among` all, whose features are in no place; of several with one key the first."""
    first = {keys[row]: row for row in reversed(among.tolist()) if keys[row] not in places}
    return np.array(sorted(first.values()), int)
