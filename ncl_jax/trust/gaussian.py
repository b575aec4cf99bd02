"""The means of classes and the covariance within them: what discriminants and distances are made of."""

from typing import NamedTuple

import numpy as np

from ncl_jax.trust.left_out import class_sums


def class_means(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The mean `[C, D]` of the features of every class; each has one at least."""
    sums = class_sums(features, labels, num_classes)
    return (sums / np.bincount(labels, minlength=num_classes)[:, None]).astype(np.float32)


class Covariance(NamedTuple):
    """A covariance that was shrunk towards a multiple of the identity."""

    matrix: np.ndarray  # float64 [D, D], positive definite
    share: float  # of the identity, 0 to 1


def shrunk_covariance(rest: np.ndarray) -> Covariance:
    """The covariance of residuals `[N, D]`, shrunk by OAS (Chen, Wiesel, Eldar and Hero 2010); the identity where there
    are none, of classes of one image each."""
    number, size = rest.shape
    if not rest.any():
        return Covariance(np.eye(size), 1.0)
    covariance = rest.T @ rest / number
    trace, square = np.trace(covariance), (covariance**2).sum()
    share = ((1 - 2 / size) * square + trace**2) / max((number + 1 - 2 / size) * (square - trace**2 / size), 1e-300)
    share = min(float(share), 1.0)
    least = 1e-10 * max(trace / size, 1e-30)
    return Covariance((1 - share) * covariance + (share * trace / size + least) * np.eye(size), share)
