"""What a source gives."""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Images and labels of both splits, in the order of the source.

    Labels are in [0, C) with C = len(class_names). Images are RGB; greyscale sources repeat their one channel.
    """

    name: str
    train_images: np.ndarray  # uint8 [N, H, W, 3]
    train_labels: np.ndarray  # int32 [N]
    test_images: np.ndarray  # uint8 [M, H, W, 3]
    test_labels: np.ndarray  # int32 [M]
    class_names: tuple[str, ...]  # [C]
    imbalance: float | None = None  # of a training set that is long-tailed already; None: to be cut to a profile
