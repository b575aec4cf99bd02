"""The shares of classes among images without labels: whether there are more or fewer of a class than in training.

Maximum likelihood under label shift by EM (Saerens, Latinne and Decaestecker 2002), with pseudo-images that keep
classes without evidence near their training share. It needs calibrated probabilities (Alexandari, Kundaje and Shrikumar
2020), and images of a class that look as they did in training; `estimate` refuses where that is doubtful.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

PSEUDO = 10.0  # images with the training shares that are added to those that were seen
DRAWS, PARTS = 200, 5  # of the bootstrap; of the images, each judged by the shares of the others
AT_ONCE = 10  # draws: each is as long as the images are many
FEWEST = 30  # images that an estimate needs
MOST_UNLIKE = 0.2  # of the images unlike any in training at the 5 % level, where 5 % are expected
STEPS, ENOUGH = 1000, 1e-6  # iterations at most; mean change of a share that ends them
LEAST = 1e-12


class Mix(NamedTuple):
    """The estimated shares of C classes among m images."""

    shares: np.ndarray  # float64 [C], sum 1
    low: np.ndarray  # float64 [C], of the 95 % interval over draws of the images
    high: np.ndarray  # float64 [C]
    gain: float  # of the log-likelihood per image over the training shares, by shares from other images; nats
    gain_low: float  # of its 95 % interval
    gain_high: float
    images: int  # m
    unlike: float  # share of the images unlike any in training; nan: not known
    refused: str  # why the training shares should stay; empty: the estimate can be used


def estimate(
    probabilities: np.ndarray,
    prior: np.ndarray,
    unlike: np.ndarray | None = None,
    seed: int = 0,
    pseudo: float = PSEUDO,
) -> Mix:
    """The shares of classes, with intervals, and whether they should be used.

    Args:
      probabilities: `[m, C]`, calibrated, under the prior.
      prior: `[C]`, of the training images; above 0.
      unlike: bool `[m]`, images that are unlike any in training; None: not known.
      seed: of the draws.
      pseudo: images with the training shares that are added.
    """
    number = len(probabilities)
    random = np.random.default_rng(seed)
    prior = np.maximum(np.asarray(prior, np.float64), LEAST)
    found = shares(probabilities, prior, np.ones((number, 1)), pseudo)[:, 0]
    if number < FEWEST:
        reason = f"{number} images are too few: at least {FEWEST} are needed"
        unknown = np.zeros_like(found), np.ones_like(found)
        return Mix(found, unknown[0], unknown[1], 0.0, -np.inf, np.inf, number, _share(unlike), reason)
    drawn = [shares(probabilities, prior, draws, pseudo, found) for draws in _draws(random, number)]
    low, high = np.quantile(np.concatenate(drawn, 1), (0.025, 0.975), axis=1)
    gains = _gains(probabilities, prior, random.permutation(number) % PARTS, pseudo)
    means = [draws.T @ gains / number for draws in _draws(np.random.default_rng(seed), number)]  # the same draws
    least, most = (float(bound) for bound in np.quantile(np.concatenate(means), (0.025, 0.975)))
    mix = Mix(found, low, high, float(gains.mean()), least, most, number, _share(unlike), "")
    return mix._replace(refused=_reason(mix))


def _draws(random: np.random.Generator, number: int) -> Iterator[np.ndarray]:
    """How often each image is in a draw of as many with replacement, float64 `[m, AT_ONCE]` at a time."""
    for _ in range(DRAWS // AT_ONCE):
        yield random.multinomial(number, np.full(number, 1 / number), AT_ONCE).T.astype(np.float64)


def shares(
    probabilities: np.ndarray,
    prior: np.ndarray,
    weights: np.ndarray,
    pseudo: float = PSEUDO,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """The most likely shares, float64 `[C, W]`, for each of W weightings of the images.

    With r the probabilities under the shares q, `q = (sum of w r + pseudo prior) / (sum of w + pseudo)`: EM for the
    maximum a posteriori under a Dirichlet prior around the training shares. The likelihood is concave in q.

    Args:
      probabilities: `[m, C]` under the prior.
      prior: `[C]`, above 0.
      weights: `[m, W]`, at least 0.
      pseudo: images that are added.
      start: `[C]`, above 0; None: the prior.
    """
    table = np.asarray(probabilities, np.float64)
    ratios = np.repeat(
        (prior if start is None else np.maximum(start, LEAST))[:, None] / prior[:, None], weights.shape[1], 1
    )
    total = weights.sum(0) + pseudo
    for _ in range(STEPS):
        likelihood = np.maximum(table @ ratios, LEAST)  # [m, W]
        new = (ratios * (table.T @ (weights / likelihood)) / prior[:, None] + pseudo) / total
        change = float((np.abs(new - ratios) * prior[:, None]).mean(0).max())
        ratios = new
        if change < ENOUGH:
            break
    found: np.ndarray = ratios * prior[:, None]
    return found / found.sum(0)


def _gains(probabilities, prior, part, pseudo):
    """By how much the shares of the other parts raise the log-likelihood of every image, `[m]`: shares of its own part
    would raise it even where nothing has shifted."""
    weights = (part[:, None] != np.arange(PARTS)).astype(np.float64)
    ratios = shares(probabilities, prior, weights, pseudo) / prior[:, None]
    return np.log(np.maximum((np.asarray(probabilities, np.float64) * ratios.T[part]).sum(1), LEAST))


def _share(unlike):
    return float("nan") if unlike is None or not len(unlike) else float(np.mean(unlike))


def _reason(mix: Mix) -> str:
    """Why an estimate should not be used; empty: it can be."""
    if mix.unlike > MOST_UNLIKE:
        return (
            f"{100 * mix.unlike:.0f} % of the images are unlike any in training, where 5 % are expected: more than the "
            "shares of classes has changed"
        )
    if mix.gain_low <= 0:
        return (
            "the images do not say that the shares differ from training: the gain in log-likelihood per image is "
            f"{mix.gain:.3f}, with an interval of {mix.gain_low:.3f} to {mix.gain_high:.3f}"
        )
    return ""


def movers(mix: Mix, prior: np.ndarray, number: int = 10) -> np.ndarray:
    """The classes whose interval does not contain their training share, the largest difference first, at most so many:
    int `[K]`."""
    moved = np.flatnonzero((mix.low > prior) | (mix.high < prior))
    return moved[np.argsort(-np.abs(mix.shares - prior)[moved], kind="stable")][:number]
