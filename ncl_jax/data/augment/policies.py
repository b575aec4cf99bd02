"""AutoAugment: the operations, their ten magnitude levels, and the CIFAR-10 policy.

Sources: Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data" (CVPR 2019, arXiv 1805.09501), table 7
for the 25 sub-policies; the magnitude scales are those of the PyTorch port that long-tailed recognition repositories
share (`CIFAR10Policy`). The port differs from the paper in what a level means, and published long-tailed figures were
made with the port:

* a level counts from "does nothing" upwards (the paper's run through the whole signed range), and shear, translate,
  colour, contrast, sharpness and brightness then draw a sign with equal probability;
* rotation always turns counterclockwise, it draws no sign;
* translation is a fraction of the image's side, 150/331 at most, so that it fits any image size.
"""

from collections.abc import Sequence

import numpy as np

NUM_LEVELS = 10

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
LOOKUP = ("posterize", "solarize", "autocontrast", "equalize", "invert")
BLEND = ("color", "contrast", "sharpness", "brightness")
OPERATIONS = ("identity", *GEOMETRIC, *LOOKUP, *BLEND, "solarize_add")  # the last is RandAugment's alone

# Which operations draw a sign; the rest always use the positive one.
SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", *BLEND)

# float64 [NUM_LEVELS]; units: shear in pixels per pixel, translate in image sides, rotate in degrees, blends as the
# distance of the enhancement factor from 1, posterize in bits kept, solarize in grey levels.
MAGNITUDES = {
    "shear_x": np.linspace(0, 0.3, NUM_LEVELS),
    "shear_y": np.linspace(0, 0.3, NUM_LEVELS),
    "translate_x": np.linspace(0, 150 / 331, NUM_LEVELS),
    "translate_y": np.linspace(0, 150 / 331, NUM_LEVELS),
    "rotate": np.linspace(0, 30, NUM_LEVELS),
    "color": np.linspace(0, 0.9, NUM_LEVELS),
    "contrast": np.linspace(0, 0.9, NUM_LEVELS),
    "sharpness": np.linspace(0, 0.9, NUM_LEVELS),
    "brightness": np.linspace(0, 0.9, NUM_LEVELS),
    "posterize": np.round(np.linspace(8, 4, NUM_LEVELS)),
    "solarize": np.linspace(256, 0, NUM_LEVELS),
}

# One sub-policy a line: (probability, operation, level) twice. A policy draws one line per image, uniformly.
CIFAR10 = (
    ((0.1, "invert", 7), (0.2, "contrast", 6)),
    ((0.7, "rotate", 2), (0.3, "translate_x", 9)),
    ((0.8, "sharpness", 1), (0.9, "sharpness", 3)),
    ((0.5, "shear_y", 8), (0.7, "translate_y", 9)),
    ((0.5, "autocontrast", 8), (0.9, "equalize", 2)),
    ((0.2, "shear_y", 7), (0.3, "posterize", 7)),
    ((0.4, "color", 3), (0.6, "brightness", 7)),
    ((0.3, "sharpness", 9), (0.7, "brightness", 9)),
    ((0.6, "equalize", 5), (0.5, "equalize", 1)),
    ((0.6, "contrast", 7), (0.6, "sharpness", 5)),
    ((0.7, "color", 7), (0.5, "translate_x", 8)),
    ((0.3, "equalize", 7), (0.4, "autocontrast", 8)),
    ((0.4, "translate_y", 3), (0.2, "sharpness", 6)),
    ((0.9, "brightness", 6), (0.2, "color", 8)),
    ((0.5, "solarize", 2), (0.0, "invert", 3)),
    ((0.2, "equalize", 0), (0.6, "autocontrast", 0)),
    ((0.2, "equalize", 8), (0.8, "equalize", 4)),
    ((0.9, "color", 9), (0.6, "equalize", 6)),
    ((0.8, "autocontrast", 4), (0.2, "solarize", 8)),
    ((0.1, "brightness", 3), (0.7, "color", 0)),
    ((0.4, "solarize", 5), (0.9, "autocontrast", 3)),
    ((0.9, "translate_y", 9), (0.7, "translate_y", 9)),
    ((0.9, "autocontrast", 2), (0.8, "solarize", 3)),
    ((0.8, "equalize", 8), (0.1, "invert", 3)),
    ((0.7, "translate_y", 9), (0.9, "autocontrast", 1)),
)


def policy_arrays(policy: Sequence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A policy as arrays that a jitted program can index.

    Args:
      policy: S sub-policies of two (probability, operation, level), such as `CIFAR10`.

    Returns:
      (probability float32 [S, 2], operation int32 [S, 2] indexing `OPERATIONS`, level int32 [S, 2]).
    """
    probability = np.array([[p for p, _, _ in sub] for sub in policy], np.float32)
    operation = np.array([[OPERATIONS.index(name) for _, name, _ in sub] for sub in policy], np.int32)
    level = np.array([[level for _, _, level in sub] for sub in policy], np.int32)
    return probability, operation, level


def enhancement_factors(name: str) -> np.ndarray:
    """float32 [NUM_LEVELS, 2]: Pillow's `enhance` factor of a blend by (level, 0 for minus or 1 for plus)."""
    # Added in float64 and rounded once, as Pillow does when it takes the factor as a C float.
    return (1 + MAGNITUDES[name][:, None] * np.array([-1, 1])).astype(np.float32)
