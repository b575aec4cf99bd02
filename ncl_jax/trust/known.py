"""Known-ness: how an image compares with the training images, whatever its class, as a p-value.

The Mahalanobis distance to the nearest class mean, of features of length 1 with one shrunk covariance for all classes
(Mahalanobis++, Mueller and Hein 2025). An image like the training images has a p-value below 0.05 in 5 % of the cases.
It finds images of another kind; classes that look like known ones stay undetected.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from ncl_jax.trust.gaussian import class_means, shrunk_covariance

CHUNK = 2**22  # distances that are computed at once


class Known(NamedTuple):
    """What distances are measured with."""

    means: np.ndarray  # float32 [C, D], of the classes, whitened
    whitening: np.ndarray  # float32 [D, D], lower triangular: a row x becomes x @ whitening.T
    distances: np.ndarray  # float32 [n], of the training images, each without itself; ascending


def fit(embeddings: np.ndarray, labels: np.ndarray, num_classes: int) -> Known:
    """Measures training images.

    Args:
      embeddings: `[N, D]`, of length 1.
      labels: int `[N]`; every class has an image.
      num_classes: C.
    """
    means = class_means(embeddings, labels, num_classes).astype(np.float64)
    rest = np.asarray(embeddings, np.float64) - means[labels]
    covariance = shrunk_covariance(rest)
    # With S = L L^T, x^T S^-1 x is the square of L^-1 x.
    lower = cholesky(covariance.matrix, lower=True)
    whitening = solve_triangular(lower, np.eye(len(lower)), lower=True).astype(np.float32)
    known = Known((means @ whitening.T).astype(np.float32), whitening, np.zeros(0, np.float32))
    weight = (1 - covariance.share) / len(labels)
    return known._replace(distances=np.sort(_left_out(known, embeddings, labels, weight)))


def _left_out(known: Known, embeddings: np.ndarray, labels: np.ndarray, weight: float) -> np.ndarray:
    """The distance of every training image by the other ones, float32 `[N]`, exactly but for the shrinkage.

    Without an image x of a class of n the class's mean is (n mean - x) / (n - 1), and the covariance S loses
    `c r r^T` with r = x - mean, c = weight n / (n - 1): the inverse follows by the Sherman-Morrison formula. The only
    image of a class is measured by the other classes.
    """
    counts = np.bincount(labels, minlength=len(known.means)).astype(np.float64)
    found = np.zeros(len(labels), np.float32)
    for part in _parts(len(labels), len(known.means)):
        own, n = labels[part], counts[labels[part]]
        x = np.asarray(embeddings[part], np.float32) @ known.whitening.T
        r = x - known.means[own]
        rows = np.arange(len(own))
        squares = _squares(x, known.means).astype(np.float64)
        along = ((x * r).sum(1)[:, None] - r @ known.means.T).astype(np.float64)  # (x - mean of a class) S^-1 r
        grown = n / np.maximum(n - 1, 1)
        squares[rows, own] *= grown**2
        along[rows, own] *= grown
        c = np.where(n > 1, weight * grown, 0.0)
        squares += (c / np.maximum(1 - c * (r.astype(np.float64) ** 2).sum(1), 1e-9))[:, None] * along**2
        squares[rows[n == 1], own[n == 1]] = np.inf
        found[part] = squares.min(1)
    return found[np.isfinite(found)]  # of a single class of one image nothing is known


def _parts(number, num_classes):
    rows = max(1, CHUNK // max(num_classes, 1))
    return [slice(first, min(first + rows, number)) for first in range(0, number, rows)]


def _squares(x: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The squared distances `[N, C]` of whitened features from whitened means."""
    return np.maximum((x**2).sum(1)[:, None] - 2 * x @ means.T + (means**2).sum(1), 0)


def distances(known: Known, embeddings: np.ndarray) -> np.ndarray:
    """The squared Mahalanobis distance of images to the nearest class, float32 `[N]`, of embeddings `[N, D]`."""
    found = np.zeros(len(embeddings), np.float32)
    for part in _parts(len(embeddings), len(known.means)):
        whitened = np.asarray(embeddings[part], np.float32) @ known.whitening.T
        found[part] = _squares(whitened, known.means).min(1)
    return found


def p_values(known: Known, embeddings: np.ndarray) -> np.ndarray:
    """The share of images like the training images that are at least as far from every class, float32 `[N]`:
    (1 + number of farther ones) / (n + 1). Small: unlike anything in training."""
    return conformal(known.distances, distances(known, embeddings))


def conformal(calibration: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The p-values, float32 `[N]`, of scores `[N]`, unusual where large, among calibration scores `[n]`, ascending."""
    farther = len(calibration) - np.searchsorted(calibration, found, side="left")
    return ((1 + farther) / (len(calibration) + 1)).astype(np.float32)
