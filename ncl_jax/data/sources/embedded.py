"""The data set that comes with the package: long-tailed Fashion-MNIST (docs/data.md)."""

from pathlib import Path

import numpy as np

from ncl_jax.data.types import Request, Source, Split

FILE = Path(__file__).parent.parent / "fashion_mnist_lt.npz"


def read(request: Request) -> Source:
    """1,236 training images of 28 x 28, classes sorted from 500 images to 5, and 100 test images per class."""
    with np.load(FILE, allow_pickle=False) as file:
        splits = {
            name: Split(
                np.repeat(file[f"{name}_images"][..., None], 3, axis=-1), file[f"{name}_labels"].astype(np.int32)
            )
            for name in ("train", "test")
        }
        return Source(tuple(file["class_names"].tolist()), splits, imbalance=100.0)
