"""Whether one classifier is better than another: paired differences with their standard errors, and tests.

A difference between two classifiers, trained with the same seeds and tested on the same images, is uncertain for two
reasons: other seeds, and other test images. `over_seeds` and `over_images` estimate each, `both` adds them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit


class Estimate(NamedTuple):
    """A mean difference, its standard error, and the degrees of freedom of that error."""

    mean: float
    error: float
    freedom: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Student's t interval, both sides together."""
        half = float(stdtrit(self.freedom, (1 + confidence) / 2)) * self.error if self.error else 0.0
        return self.mean - half, self.mean + half

    def p(self) -> float:
        """The two-sided probability of such a difference where there is none (Student's t test)."""
        if not self.error:
            return float(self.mean == 0)
        return 2 * float(stdtr(self.freedom, -abs(self.mean) / self.error))


def over_seeds(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """`first` minus `second`, a figure for each seed `[S]`, S at least 2, the same seeds in the same order.

    The error is of other seeds, on these test images.
    """
    differences = np.subtract(np.asarray(first, np.float64), np.asarray(second, np.float64))
    number = len(differences)
    if number < 2:
        raise ValueError(f"{number} pairs: a standard error needs two")
    if np.ptp(differences) == 0:  # rounding would leave an error of 1e-17
        return Estimate(float(differences[0]), 0.0, number - 1)
    return Estimate(float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(number), number - 1)


def over_images(first: np.ndarray, second: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Estimate:
    """The weighted mean over classes of `first` minus `second`; the error is of other test images of these classes.

    Args:
      first, second: `[N]`, how often each image is classified correctly: 0 or 1, or the share of the seeds.
      labels: int `[N]`; a class that counts has two images at least.
      weights: `[C]`, what each class counts, with the sum 1: 1 / C for the mean over classes.
    """
    differences = np.subtract(first, second, dtype=np.float64)
    mean, variance, freedom = 0.0, 0.0, 0
    for label in np.flatnonzero(weights):
        of_class = differences[labels == label]
        if len(of_class) < 2:
            raise ValueError(f"class {label} has {len(of_class)} images: a standard error needs two")
        mean += weights[label] * of_class.mean()
        variance += weights[label] ** 2 * of_class.var(ddof=1) / len(of_class)
        freedom += len(of_class) - 1
    return Estimate(float(mean), math.sqrt(variance), freedom)


def both(seeds: Estimate, images: Estimate) -> Estimate:
    """The difference with an error for other seeds and other test images; degrees of freedom by Welch (1947).

    A little too large, because what seeds and images do together counts twice.
    """
    parts = [(one.error**2, one.freedom) for one in (seeds, images)]
    variance = sum(square for square, _ in parts)
    if not variance:
        return seeds
    freedom = variance**2 / sum(square**2 / freedom for square, freedom in parts)
    return Estimate(seeds.mean, math.sqrt(variance), freedom)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Probabilities `[K]` of K tests, corrected for their number (Holm 1979): those below a level are all true, but for
    a risk of that level."""
    number, corrected, largest = len(probabilities), [0.0] * len(probabilities), 0.0
    for rank, index in enumerate(np.argsort(probabilities, kind="stable")):
        largest = max(largest, min(1.0, (number - rank) * probabilities[index]))
        corrected[index] = largest
    return corrected
