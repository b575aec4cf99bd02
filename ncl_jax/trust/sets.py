"""Prediction sets: for each image the classes that it may be, with a promise of how often the true one is among them.

Split conformal prediction with prevalence-adjusted softmax scores (Ding, Fermanian and Salmon 2025, arXiv 2507.06867):
`s(x, y) = -w(y) p(y|x) / prior(y)`, low where a class fits. A set holds the classes whose score is at most a threshold.
With equal priors the scores are those of the standard method, which leaves the tail out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betaincinv

from ncl_jax.errors import ConfigError, DataError

PROMISES = ("marginal", "macro")
COVERAGES = (0.8, 0.9, 0.95, 0.99)  # of a curve
LEAST = 1e-12  # a class's share that is divided by
CHUNK = 2**22  # scores that are computed at once
ROUNDING = 1e-9  # of sums of shares that should be whole numbers


class Rule(NamedTuple):
    """What makes a prediction set of probabilities."""

    thresholds: np.ndarray  # float64 [C], of the scores; inf: a class is in every set
    prior: np.ndarray  # float64 [C], the prior that the probabilities are for
    weights: np.ndarray  # float64 [C], how much a class matters
    coverage: float  # that is promised
    promise: str  # "marginal": over all images; "macro": the mean over the classes' coverages
    number: int  # of calibration images
    without: np.ndarray  # int [K], classes that the promise leaves out: none of their images was there to calibrate on


def scores(probabilities: np.ndarray, prior: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The scores of every class, float64 `[N, C]`, of probabilities `[N, C]` under the prior `[C]`; weights `[C]`."""
    return np.asarray(probabilities, np.float64) * -(weights / np.maximum(prior, LEAST))


def rank(number: int, coverage: float) -> int:
    """Which of the n sorted scores is the threshold, from 1; n + 1: none is large enough."""
    return max(1, number + 1 - math.floor((1 - coverage) * (number + 1) + ROUNDING))


def coverage_range(number: int, coverage: float, level: float = 0.9) -> tuple[float, float]:
    """The range of the coverage that n calibration images give, with probability `level`: Beta(k, n + 1 - k).

    The promise holds on average over calibration sets; with few images one of them may be far off.
    """
    k = rank(number, coverage)
    if k > number:
        return 1.0, 1.0
    low, high = (float(betaincinv(k, number + 1 - k, share)) for share in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def calibrate(
    true: np.ndarray,
    labels: np.ndarray,
    prior: np.ndarray,
    coverage: float = 0.9,
    promise: str = "marginal",
    weights: np.ndarray | None = None,
) -> Rule:
    """The thresholds of a promise, from images that the classifier was not trained on.

    Args:
      true: `[n]`, the probabilities of the calibration images' true classes.
      labels: int `[n]`, those classes.
      prior: `[C]`, the prior that the probabilities are for: the shares of the training images.
      coverage: how often the true class shall be in the set, between 0 and 1.
      promise: "marginal": of images with the calibration images' shares of classes; "macro": of images of which every
        class has as many, the mean over classes (the quantile of Podkopaev and Ramdas 2021 under label shift).
      weights: `[C]`, above 0: a class with a larger one is in more sets; None: all alike.

    Raises:
      ConfigError: a coverage, promise or weights that there cannot be.
      DataError: there is no calibration image.
    """
    number, num_classes = len(true), len(prior)
    check(coverage, promise)
    if not number:
        raise DataError("there is no image to calibrate prediction sets on")
    of_class = check_weights(np.ones(num_classes) if weights is None else weights, num_classes)
    prior = np.asarray(prior, np.float64)
    factors = of_class[labels] / np.maximum(prior[labels], LEAST)
    found = np.asarray(true, np.float64) * -factors
    counts = np.bincount(labels, minlength=num_classes)
    if promise == "marginal":
        k = rank(number, coverage)
        threshold = np.partition(found, k - 1)[k - 1] if k <= number else np.inf
        return Rule(np.full(num_classes, threshold), prior, of_class, coverage, promise, number, np.zeros(0, int))
    thresholds = _macro(found, labels, counts, coverage)
    return Rule(thresholds, prior, of_class, coverage, promise, number, np.flatnonzero(counts == 0))


def _macro(found, labels, counts, coverage):
    """A threshold for each class: the quantile of the scores, each class with the same weight in all, the new image's
    own weight at infinity. A class without images takes that of a class with one."""
    order = np.argsort(found, kind="stable")
    sums = np.cumsum(1 / counts[labels][order])
    wanted = coverage * (np.count_nonzero(counts) + 1 / np.maximum(counts, 1))
    places = np.searchsorted(sums, wanted - ROUNDING)
    return np.append(found[order], np.inf)[places]


def check(coverage: float, promise: str = "marginal") -> None:
    """Raises ConfigError for a coverage or promise that there cannot be."""
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage={coverage} must lie between 0 and 1, such as 0.9 for 90 %")
    if promise not in PROMISES:
        raise ConfigError(f"promise={promise} must be one of: {', '.join(PROMISES)}")


def check_weights(weights: Any, num_classes: int) -> np.ndarray:
    """Weights of classes, float64 `[C]`. Raises ConfigError for ones that there cannot be."""
    found = np.asarray(weights, np.float64)
    if found.shape != (num_classes,):
        raise ConfigError(f"there are {found.size} weights, but {num_classes} classes")
    if not (np.isfinite(found).all() and (found > 0).all()):
        raise ConfigError(
            f"weights must be numbers above 0, but one is {found[~(np.isfinite(found) & (found > 0))][0]}"
        )
    return found


def predict_sets(rule: Rule, probabilities: np.ndarray) -> np.ndarray:
    """The set of every image, bool `[N, C]`, of probabilities `[N, C]`. A set may be empty: no class fits so well."""
    found: np.ndarray = np.zeros(np.shape(probabilities), bool)
    rows = max(1, CHUNK // max(found.shape[1], 1))
    for first in range(0, len(found), rows):
        part = slice(first, first + rows)
        found[part] = scores(probabilities[part], rule.prior, rule.weights) <= rule.thresholds
    return found


def describe(sets: np.ndarray, labels: np.ndarray, groups: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
    """What sets `[N, C]` are worth on images of known classes `[N]`.

    Args:
      sets: bool `[N, C]`.
      labels: int `[N]`.
      groups: of classes, bool `[C]` by name.

    Returns:
      `coverage`, the share of images whose class is in their set; `macro`, the mean of the classes' coverages;
      `below_half`, the share of classes with less than a half; `size`, `empty` and `single`, of the sets; and under
      each group's name the same of its images. None where there is no image.
    """
    found = _figures(sets, labels, np.ones(sets.shape[1], bool))
    return found | {name: _figures(sets, labels, mask) for name, mask in (groups or {}).items()}


def _figures(sets, labels, mask):
    rows = mask[labels]
    if not rows.any():
        return dict.fromkeys(("coverage", "macro", "below_half", "size", "empty", "single"))
    of, covered, sizes = labels[rows], sets[np.arange(len(labels)), labels][rows], sets[rows].sum(1)
    totals = np.bincount(of, minlength=len(mask))
    by_class = np.bincount(of, covered, len(mask))[totals > 0] / totals[totals > 0]
    values = {
        "coverage": covered.mean(), "macro": by_class.mean(), "below_half": (by_class < 0.5).mean(),
        "size": sizes.mean(), "empty": (sizes == 0).mean(), "single": (sizes == 1).mean(),
    }  # fmt: skip
    return {name: float(value) for name, value in values.items()}


def curve(
    known: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    prior: np.ndarray,
    promise: str = "marginal",
    coverages: Sequence[float] = COVERAGES,
    groups: Mapping[str, np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """The size of sets against the coverage that is promised: for each `promised`, and what `describe` says.

    Args:
      known: the true classes' probabilities `[n]` and labels `[n]` of the calibration images.
      test: probabilities `[N, C]` and labels `[N]` of others.
      prior, promise: see `calibrate`.
      coverages: that are promised.
      groups: see `describe`.
    """
    rules = [calibrate(*known, prior, coverage, promise) for coverage in coverages]
    return [{"promised": rule.coverage} | describe(predict_sets(rule, test[0]), test[1], groups) for rule in rules]
