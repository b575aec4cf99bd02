"""What accuracy becomes where the least certain answers are left to a person, and which classes that falls on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SHARES = (1.0, 0.9, 0.8, 0.7, 0.5)  # of the images that are answered


def selective(
    confidence: np.ndarray,
    right: np.ndarray,
    groups: Mapping[str, np.ndarray] | None = None,
    shares: Sequence[float] = SHARES,
) -> list[dict[str, Any]]:
    """The accuracy among the most certain answers.

    One limit holds for all images: a group may lose more than its share (Jones et al. 2021).

    Args:
      confidence: `[N]`.
      right: bool `[N]`, whether the answer is.
      groups: of images, bool `[N]` by name.
      shares: of the images that are answered.

    Returns:
      For every share `answered`, the share itself, `accuracy`, and for each group by name its `accuracy` and the share
      of it that is `refused`; None where there is no image.
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    masks = {name: np.asarray(mask, bool) for name, mask in (groups or {}).items()}
    found = []
    for share in shares:
        answered = np.zeros(len(order), bool)
        answered[order[: round(share * len(order))]] = True
        line: dict[str, Any] = {"answered": share, "accuracy": _mean(right, answered)}
        for name, mask in masks.items():
            line[name] = {"accuracy": _mean(right, answered & mask), "refused": _mean(~answered, mask)}
        found.append(line)
    return found


def _mean(values, mask):
    return float(np.asarray(values)[mask].mean()) if mask.any() else None


def aurc(confidence: np.ndarray, right: np.ndarray) -> float:
    """The area under the curve of risk against coverage: the mean over i of the error among the i most certain answers.
    0 is best; answers in random order have the error itself."""
    wrong = ~np.asarray(right, bool)[np.argsort(-np.asarray(confidence), kind="stable")]
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())
