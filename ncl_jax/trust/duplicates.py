"""Near duplicates: images that are copies of others but for size, compression, a little light or a flip.

Two views must agree. Where the features of two images are much nearer than is usual in the data set, their pixels must
be alike; where an image is merely among the nearest ones, they must be nearly the same: blur moves the features of a
network far, and the pixels hardly.
"""

from typing import NamedTuple

import numpy as np

from ncl_jax.trust.neighbours import CHUNK, nearest

SHARE = 0.13  # of the median distance to the nearest image: what is nearer may be a copy
CANDIDATES = 10  # nearest images of each that are looked at
ALIKE, THE_SAME = 0.25, 0.1  # difference of the pixels of copies, see `difference`
TINY = 1e-6  # a distance that rounding makes of 0


class Pairs(NamedTuple):
    """Near duplicates, the nearest first; each image of the second set at most once, with its nearest copy."""

    first: np.ndarray  # int [P]: rows of the first set
    second: np.ndarray  # int [P]: rows of the second set; of one set, later rows than the first
    distances: np.ndarray  # float [P], of the features
    differences: np.ndarray  # float [P], of the pixels; 0: the same


def near(distances: np.ndarray, share: float = SHARE) -> float:
    """The distance below which images may be copies: a share of the median distance to the nearest other image.

    Args:
      distances: of each image to its nearest other one, `[N]`; copies, at distance 0, do not count.
      share: of the median.
    """
    apart = distances[distances > TINY]
    return max(share * float(np.median(apart)), TINY) if len(apart) else TINY


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much small grey images `[N, S, S]` differ, `[N]`: the mean absolute difference in units of their mean
    absolute deviation, brightness set aside; of the second images as they are and flipped left to right, the less."""
    a, b = (x.astype(np.float64) - x.mean((1, 2), keepdims=True, dtype=np.float64) for x in (first, second))
    spread = (np.abs(a).mean((1, 2)) + np.abs(b).mean((1, 2))) / 2
    least = np.minimum(np.abs(a - b).mean((1, 2)), np.abs(a - b[:, :, ::-1]).mean((1, 2)))
    return least / np.maximum(spread, 1.0)  # of images of one colour in grey levels


def pixel_features(small: np.ndarray) -> np.ndarray:
    """Features `[N, S * S]` of small grey images `[N, S, S]`, where there are no better ones: the cosine of two is the
    correlation of their pixels."""
    flat = small.reshape(len(small), -1).astype(np.float32)
    return flat - flat.mean(1, keepdims=True)


def within(rows: np.ndarray, distances: np.ndarray, small: np.ndarray, by_pixels: bool = False) -> tuple[Pairs, float]:
    """The near duplicates among images, and the distance below which images may be copies, for `between`.

    Args:
      rows, distances: the nearest other images of each image (`neighbours.nearest` with `same`), `[N, K]`.
      small: the images, grey and small, uint8 `[N, S, S]`.
      by_pixels: whether the features are only `pixel_features`: then images must be near and nearly the same.
    """
    limit = near(distances[:, 0]) if distances.shape[1] else TINY
    i, k = np.indices(rows.shape).reshape(2, -1)
    j = rows[i, k]
    return _once(np.minimum(i, j), np.maximum(i, j), distances[i, k], small, small, limit, by_pixels), limit


def between(
    features: np.ndarray,
    others: np.ndarray,
    small: np.ndarray,
    small_others: np.ndarray,
    limit: float,
    by_pixels: bool = False,
) -> Pairs:
    """The images of a second set that are near duplicates of the first set's, such as test images of training images.

    Args:
      features, others: `[N, D]` and `[M, D]`.
      small, small_others: the images, grey and small, uint8 `[N, S, S]` and `[M, S, S]`.
      limit: the distance below which images may be copies, see `within`.
      by_pixels: whether the features are only `pixel_features`: then images must be near and nearly the same.
    """
    rows, distances = nearest(others, features, CANDIDATES)
    j, k = np.indices(rows.shape).reshape(2, -1)
    return _once(rows[j, k], j, distances[j, k], small, small_others, limit, by_pixels)


def _once(first, second, distances, small, small_others, limit, by_pixels) -> Pairs:
    """The pairs whose pixels agree, each second image with its nearest one."""
    near_enough, far = (THE_SAME, 0.0) if by_pixels else (ALIKE, THE_SAME)
    differences = _differences(first, second, small, small_others)
    order = np.lexsort((first, differences, distances))
    order = order[(differences < np.where(distances < limit, near_enough, far))[order]]
    _, kept = np.unique(second[order], return_index=True)
    order = order[np.sort(kept)]
    return Pairs(first[order], second[order], distances[order], differences[order])


def _differences(first, second, small, small_others) -> np.ndarray:
    """`difference` of many pairs, a part at a time."""
    parts = [slice(start, start + CHUNK) for start in range(0, len(first), CHUNK)]
    return np.concatenate([np.zeros(0), *(difference(small[first[p]], small_others[second[p]]) for p in parts)])


def leaks(right: np.ndarray, leaked: np.ndarray) -> tuple[float, float]:
    """Test accuracy with and without the images that are near duplicates of training images; NaN for none left.

    Args:
      right: whether each test image is classified correctly, bool `[M]`.
      leaked: rows of the images to leave out, int `[L]`.
    """
    right = np.asarray(right, np.float64)
    rest = np.delete(right, leaked)
    return float(right.mean()), float(rest.mean()) if len(rest) else float("nan")
