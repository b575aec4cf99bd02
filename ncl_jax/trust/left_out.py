"""Ridge regression with every image left out in turn, exactly and in one go: scores of images that the classifier has
not seen, without folds."""

from typing import NamedTuple

import numpy as np

PENALTIES = tuple(10.0**power for power in range(-4, 5))  # in units of the mean second moment; one is chosen


class Spectrum(NamedTuple):
    """Ridge regression on one-hot targets for any penalty: every class has the same weight, the intercept is free."""

    labels: np.ndarray  # int [N]
    weights: np.ndarray  # [N], of the images; their sum is 1
    mean: np.ndarray  # [D]: the weighted mean of the features
    rotated: np.ndarray  # [N, D]: the centred features along the axes of their second moments
    values: np.ndarray  # [D]: the second moments
    moments: np.ndarray  # [D, C]: with the targets
    vectors: np.ndarray  # [D, D]: the axes


def class_sums(values: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The sums `[C, D]` of the rows `[N, D]` of each class, float64."""
    sums = np.zeros((num_classes, values.shape[1]), np.float64)
    np.add.at(sums, labels, values)
    return sums


def spectrum(features: np.ndarray, labels: np.ndarray, num_classes: int) -> Spectrum:
    """The spectrum of features `[N, D]` and labels int `[N]`; a class without images has no weight."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = 1 / counts[labels] / np.count_nonzero(counts)
    x = features.astype(np.float64)
    mean = weights @ x
    x -= mean
    values, vectors = np.linalg.eigh((x * weights[:, None]).T @ x)
    rotated = x @ vectors
    # The mean of the targets drops out, because the features are centred.
    moments = class_sums(rotated * weights[:, None], labels, num_classes).T
    return Spectrum(labels, weights, mean, rotated, np.maximum(values, 0), moments, vectors)


def left_out(found: Spectrum, penalty: float) -> np.ndarray:
    """The scores `[N, C]` of every image by the regression without it, the others' weights unchanged."""
    shrunk = found.rotated / (found.values + penalty)
    # What an image weighs in its own prediction; 1 is of the intercept.
    own = found.weights * ((shrunk * found.rotated).sum(1) + 1)
    rest = np.maximum(1 - own, 1e-9)
    shares = np.bincount(found.labels, found.weights, found.moments.shape[1])
    scores = (shrunk @ found.moments + shares) / rest[:, None]
    scores[np.arange(len(own)), found.labels] -= own / rest
    return scores


def left_out_error(found: Spectrum, penalty: float) -> float:
    """The weighted squared error of the scores that `left_out` gives."""
    errors = left_out(found, penalty)
    errors[np.arange(len(errors)), found.labels] -= 1
    return float(found.weights @ (errors**2).sum(1))


def best_penalty(found: Spectrum) -> float:
    """The penalty of `PENALTIES` with the least leave-one-out error."""
    penalties = [penalty * max(found.values.mean(), 1e-12) for penalty in PENALTIES]
    return min(penalties, key=lambda penalty: left_out_error(found, penalty))


def scores(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The scores float32 `[N, C]` of every image by a classifier that has not seen it; meant for classes that are
    equally likely. Of a class's only image the score of its own class says nothing.

    Args:
      features: `[N, D]`.
      labels: int `[N]`.
      num_classes: C.
    """
    found = spectrum(features, labels, num_classes)
    return left_out(found, best_penalty(found)).astype(np.float32)
