"""The data set that comes with the package: long-tailed Fashion-MNIST (docs/data.md)."""

from pathlib import Path

import numpy as np

from ncl_jax.data.sources.dataset import Dataset

FILE = Path(__file__).parent.parent / "fashion_mnist_lt.npz"


def read(directory: Path, download: bool) -> Dataset:
    """1,236 training images of 28 x 28, classes sorted from 500 images to 5, and 100 test images per class."""
    with np.load(FILE, allow_pickle=False) as file:
        train, test = (np.repeat(file[f"{split}_images"][..., None], 3, axis=-1) for split in ("train", "test"))
        train_labels, test_labels = (file[f"{split}_labels"].astype(np.int32) for split in ("train", "test"))
        names = tuple(file["class_names"].tolist())
    return Dataset("fashion_mnist_lt", train, train_labels, test, test_labels, names, imbalance=100.0)
