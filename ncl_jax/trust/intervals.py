"""How far a share that was counted may be from the true one."""

from typing import Any

import numpy as np
from scipy.special import betaincinv, ndtri


def wilson(right: Any, total: Any, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval (1927) of a binomial share: 5 of 5 right is 0.57 to 1.

    Args:
      right, total: numbers or arrays of one shape, `0 <= right <= total`; of nothing the interval is 0 to 1.
      confidence: the probability that the interval holds the true share, both sides together.

    Returns:
      The lower and the upper bounds, float64, of the arguments' shape.
    """
    right, total = np.asarray(right, np.float64), np.asarray(total, np.float64)
    square = ndtri((1 + confidence) / 2) ** 2
    middle = (right + square / 2) / (total + square)
    share = right / np.maximum(total, 1)
    half = np.sqrt(square * (total * share * (1 - share) + square / 4)) / (total + square)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def at_most(right: Any, total: Any, confidence: float = 0.95) -> np.ndarray:
    """The exact upper bound (Clopper and Pearson, 1934) of a binomial share: with this confidence the true one is not
    larger. 0 of 1 right is 0.95, 0 of 5 is 0.45.

    Args:
      right, total: numbers or arrays of one shape, `0 <= right <= total`; of nothing, and of all, the bound is 1.
      confidence: the probability that the bound holds.
    """
    right, total = np.asarray(right, np.float64), np.asarray(total, np.float64)
    return np.where(right < total, betaincinv(right + 1, np.maximum(total - right, 1), confidence), 1.0)
