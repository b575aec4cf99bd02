"""Labels that may be wrong: where two views of an image that leave the image itself out agree on another class.

The first view is confident learning (Northcutt, Jiang, Chuang 2021) on probabilities under a uniform prior, the second
the vote of the nearest images. Under the prior of long-tailed data the tail would be suspected as a whole.
"""

from typing import NamedTuple

import numpy as np

LEAST = 3  # images of a class; labels of smaller ones cannot be judged
MOST = 0.2  # share of a class that is suspected at most; one image may always be
ODDS = 20.0  # how many times as probable as the given class the suggested one is at least (docs/inspect.md)
SHRINKAGE = 10  # images that the mean of its group counts as in a class's threshold
SHARPNESS = 0.07  # of the neighbours' vote


class Suspects(NamedTuple):
    """Labels that may be wrong, group by group, in each the most probable first."""

    rows: np.ndarray  # int [S], of the images
    suggested: np.ndarray  # int [S], classes
    margin: np.ndarray  # float [S]: log of the probability of the given class over that of the suggested one, negative
    probability: np.ndarray  # float [S], of the suggested class
    vote: np.ndarray  # float [S]: share of the suggested class in the vote for one of the two


def thresholds(own: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The mean probability `[C]` of a class for the images that are labelled as it (confident learning's t_k), shrunk
    to the mean of its group: of a few images alone it would be noise.

    Args:
      own: probability of its label for each image, `[N]`.
      labels: int `[N]`.
      groups: the number of each class's group, int `[C]`.
    """
    counts, sums = np.bincount(labels, minlength=len(groups)), np.bincount(labels, own, len(groups))
    of_group = np.bincount(groups, sums) / np.maximum(np.bincount(groups, counts), 1)
    return (sums + SHRINKAGE * of_group[groups]) / (counts + SHRINKAGE)


def votes(near: np.ndarray, distances: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The vote `[N]` of its nearest images on one class for each image: `exp(-distance / SHARPNESS)` of each image of
    the class, over how many the class has beside the image itself.

    Args:
      near, distances: rows and distances of the nearest images, the image itself left out, `[N, K]`.
      labels: int `[N]`.
      classes: the class that is voted on, int `[N]`.
    """
    weights = np.exp(-distances / SHARPNESS) * (labels[near] == classes[:, None])
    others = np.bincount(labels, minlength=int(classes.max(initial=0)) + 1)[classes] - (labels == classes)
    return weights.sum(1) / np.maximum(others, 1)


def suspected(
    probabilities: np.ndarray, near: np.ndarray, distances: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> Suspects:
    """The labels that both views hold for wrong, `MOST` of each class at most.

    An image is suspected if some class reaches its threshold (`thresholds`), is `ODDS` times as probable as the given
    one, and gets more of the neighbours' vote. Classes of fewer than `LEAST` images are not judged.

    Args:
      probabilities: `[N, C]`, under a uniform prior, by a classifier that has not seen the image.
      near, distances: rows and distances of the nearest images, the image itself left out, `[N, K]`.
      labels: int `[N]`.
      groups: the number of each class's group of sizes, int `[C]`; the results are sorted by it.
    """
    rows, own = np.arange(len(labels)), probabilities[np.arange(len(labels)), labels]
    others = np.where(probabilities >= thresholds(own, labels, groups), probabilities, 0)
    others[rows, labels] = 0
    suggested = others.argmax(1)
    probability = others[rows, suggested]
    margin = np.log(np.maximum(own, 1e-30)) - np.log(np.maximum(probability, 1e-30))
    given_vote, vote = (votes(near, distances, labels, classes) for classes in (labels, suggested))
    doubted = (probability > 0) & (margin <= -np.log(ODDS)) & (vote > given_vote)
    chosen = _most_probable(np.flatnonzero(doubted), margin, labels)
    chosen = chosen[np.lexsort((margin[chosen], groups[labels[chosen]]))]
    share = vote[chosen] / (vote + given_vote)[chosen]
    return Suspects(chosen, suggested[chosen], margin[chosen], probability[chosen], share)


def _most_probable(rows: np.ndarray, margin: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the rows those of least margin in every class, as many as may be suspected."""
    counts = np.bincount(labels)
    rows = rows[np.lexsort((margin[rows], labels[rows]))]
    of_class = labels[rows]
    place = np.arange(len(rows)) - np.searchsorted(of_class, of_class)  # in its class, from 0
    most = np.where(counts >= LEAST, np.maximum(1, np.floor(MOST * counts + 1e-9)), 0)
    return rows[place < most[of_class]]
