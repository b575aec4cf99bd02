"""Re-sampling: rows of a batch, drawn so that small classes come more often than they are (arXiv 1910.09217, eq. 1)."""

import numpy as np

from ncl_jax.data.longtail import count_labels

# A class of n images is drawn in proportion to n to this power.
SAMPLERS = {"instance": 1.0, "square_root": 0.5, "class_balanced": 0.0}


def probabilities(labels: np.ndarray, num_classes: int, sampler: str) -> np.ndarray:
    """How likely each image is to be drawn, float64 [N], which sums to 1.

    Args:
      labels: integers [N], each in [0, num_classes).
      num_classes: C.
      sampler: "instance" (every image alike), "class_balanced" (every class alike) or "square_root", between the two.

    Raises:
      ValueError: an unknown sampler, no labels, or labels outside [0, num_classes).
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler={sampler!r} must be one of: {', '.join(SAMPLERS)}")
    counts = count_labels(labels, num_classes)
    if not counts.any():
        raise ValueError("there are no labels to draw from: pass one or more")
    of_image = np.maximum(counts, 1).astype(np.float64)[labels] ** (SAMPLERS[sampler] - 1)
    return of_image / of_image.sum()


def batch_rows(chances: np.ndarray, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The rows of a step's batch, int64 [batch_size], drawn with replacement.

    They follow from seed and step alone, so that training continues at any step with the batches it would have had.

    Args:
      chances: `probabilities` [N].
      batch_size: rows to draw.
      seed, step: integers, 0 or more.
    """
    return np.random.default_rng([seed, step]).choice(len(chances), batch_size, p=chances)
