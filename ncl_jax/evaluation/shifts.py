"""Accuracy on test sets that are long-tailed themselves, from the accuracy of each class: nothing is evaluated again.

The protocol of LADE (Hong et al. 2021) and SADE (Zhang et al. 2022): *forward* sets have the head's classes often, as
in training, *backward* ones the tail's; the ratio is that of the largest to the smallest class.
"""

from collections.abc import Sequence

import numpy as np

RATIOS = (50, 25, 10, 5, 2)


def weights(class_counts: Sequence[int], ratio: float, backward: bool) -> np.ndarray:
    """The share of each class in such a test set, float64 `[C]`: exponential from the largest training class down, or
    up from it."""
    rank = np.empty(len(class_counts))
    rank[np.argsort(-np.asarray(class_counts), kind="stable")] = np.arange(len(class_counts))
    shares = ratio ** (-(len(rank) - 1 - rank if backward else rank) / max(len(rank) - 1, 1))
    return shares / shares.sum()


def accuracies(per_class: Sequence[float | None], class_counts: Sequence[int]) -> dict[str, float]:
    """The accuracy on every set, `forward-50` to `backward-50`; classes without test images are skipped."""
    values = np.array([np.nan if value is None else value for value in per_class], float)
    known = ~np.isnan(values)
    sets = [(f"forward-{ratio}", ratio, False) for ratio in RATIOS] + [("uniform", 1, False)]
    sets += [(f"backward-{ratio}", ratio, True) for ratio in reversed(RATIOS)]
    found = {}
    for name, ratio, backward in sets:
        shares = weights(class_counts, ratio, backward)[known]
        found[name] = float((shares * values[known]).sum() / shares.sum())
    return found


def table(results: dict, class_counts: Sequence[int]) -> str:
    """The accuracies of the ensemble and the mean expert on every set, in %, a line each."""
    ensemble = accuracies(results["ensemble"]["per_class"], class_counts)
    experts = [accuracies(expert["per_class"], class_counts) for expert in results["experts"]]
    lines = [f"{'test set':<14}{'ensemble':>10}{'mean expert':>13}"]
    for name, value in ensemble.items():
        mean = np.mean([expert[name] for expert in experts])
        lines.append(f"{name:<14}{100 * value:>10.2f}{100 * mean:>13.2f}")
    return "\n".join(lines)
