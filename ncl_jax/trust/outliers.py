"""Images that resemble no other."""

import numpy as np

FACTOR = 1.7  # interquartile ranges above the third quartile
NEIGHBOURS = 10


def outliers(distances: np.ndarray, factor: float = FACTOR) -> tuple[np.ndarray, np.ndarray]:
    """Images whose nearest neighbours are unusually far away: a mean distance above Q3 + `factor` (Q3 - Q1).

    Args:
      distances: to the nearest images, `[N, K]`, such as `neighbours.nearest(features, features, NEIGHBOURS, True)`
        gives.
      factor: how many interquartile ranges.

    Returns:
      The rows of the outliers, the farthest first, int `[M]`, and the mean distance of every image `[N]`. Of fewer
      than four images none is an outlier, and images without neighbours have the mean 0.
    """
    if distances.shape[1] == 0:
        return np.zeros(0, int), np.zeros(len(distances))
    means = distances.mean(1, dtype=np.float64)
    if len(means) < 4:
        return np.zeros(0, int), means
    first, third = np.quantile(means, (0.25, 0.75))
    found = np.flatnonzero(means > third + factor * (third - first) + 1e-9)  # of equal images none
    return found[np.argsort(-means[found], kind="stable")], means
