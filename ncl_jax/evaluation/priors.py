"""The class prior that a deployment expects: logit adjustment at test time (Menon et al. 2021)."""

import json
from collections.abc import Sequence

import numpy as np

from ncl_jax.errors import ConfigError
from ncl_jax.runtime.files import expand

MOST_BYTES = 2**26  # of a file of numbers
LEAST = 1e-12  # a share below it counts as this: the logarithm must be finite


def read(prior: str, class_counts: Sequence[int]) -> np.ndarray:
    """The share of each class, float64 `[C]`, that sums to 1.

    Args:
      prior: "uniform", "train" (the shares of the training images), or a file of C numbers, one a line or a JSON list,
        in the order of the classes; they need not sum to 1.
      class_counts: training images of the C classes.

    Raises:
      ConfigError: the file cannot be read, has another length, or holds negative numbers or nothing but zeros.
    """
    if prior == "uniform":
        return np.full(len(class_counts), 1 / len(class_counts))
    shares = np.asarray(class_counts, np.float64) if prior == "train" else read_numbers(prior, "--prior")
    if shares.shape != (len(class_counts),):
        raise ConfigError(f"--prior={prior} has {shares.size} numbers, but there are {len(class_counts)} classes")
    if not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise ConfigError(f"--prior={prior} must have numbers of at least 0, and not only zeros")
    return shares / shares.sum()


def read_numbers(name: str, flag: str) -> np.ndarray:
    """The numbers of a file, one a line or a JSON list, float64 `[N]`. Raises ConfigError."""
    path = expand(flag, name)
    try:
        with path.open("rb") as file:  # a pipe, too: --prior=<(command)
            text = file.read(MOST_BYTES).decode("utf-8-sig")
        numbers = json.loads(text) if text.lstrip().startswith("[") else text.split()
        return np.array([float(number) for number in numbers])
    except (OSError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        words = "neither uniform nor train nor" if flag == "--prior" else "not"
        raise ConfigError(f"{flag}={path} is {words} a file of numbers, one for each class ({error})") from error


def adjustment(prior: str, class_counts: Sequence[int], power: float) -> np.ndarray:
    """What is added to the logits, float32 `[C]`, so that their softmax is meant for the prior; see `read`.

    Args:
      prior, class_counts: see `read`.
      power: of the class counts, to which the prior that the logits are meant for is proportional: 0 for a uniform one,
        1 for that of the training images (`methods.Objective`).
    """
    return log_ratio(read(prior, class_counts), own(class_counts, power))


def own(class_counts: Sequence[int], power: float) -> np.ndarray:
    """The prior that the logits are meant for, float64 `[C]`: see `adjustment`."""
    shares = np.asarray(class_counts, np.float64) ** power
    return shares / shares.sum()


def log_ratio(wanted: np.ndarray, own: np.ndarray) -> np.ndarray:
    """What moves logits from one prior `[C]` to another, float32 `[C]`."""
    return np.log(np.maximum(wanted, LEAST) / np.maximum(own, LEAST)).astype(np.float32)
