"""How far a share that was counted may be from the true one."""

from typing import Any

import numpy as np
from scipy.special import ndtri


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
