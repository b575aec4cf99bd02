"""Temperature scaling (Guo et al. 2017): one number by which scores are divided, which calibrates probabilities."""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

BOUNDS = (0.02, 50.0)


def fit_temperature(logits: np.ndarray, labels: np.ndarray, adjust: np.ndarray) -> float:
    """The temperature of lowest negative log-likelihood.

    Args:
      logits: `[N, C]` scores.
      labels: `[N]`.
      adjust: `[C]`, added to the divided scores: the log of these images' own class prior (`priors.log_ratio`). A
        temperature that is fitted on long-tailed images is then good for any other prior.
    """

    def nll(log_temperature: float) -> float:
        scores = logits / math.exp(log_temperature) + adjust
        return float((logsumexp(scores, axis=-1) - scores[np.arange(len(labels)), labels]).mean())

    return math.exp(minimize_scalar(nll, bounds=tuple(map(math.log, BOUNDS)), method="bounded").x)
