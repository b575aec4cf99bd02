"""Data sets by name, as arrays in memory: `load('cifar100', 'data')`. One more is one file and one line here."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ncl_jax.data.sources import cifar, embedded
from ncl_jax.data.sources.dataset import Dataset
from ncl_jax.errors import DataError

SOURCES: dict[str, Callable[[Path, bool], Dataset]] = {
    "cifar10": cifar.read_cifar10,
    "cifar100": cifar.read_cifar100,
    "fashion_mnist_lt": embedded.read,
}


def load(name: str, directory: str | Path, *, download: bool = True) -> Dataset:
    """Reads a whole data set into memory.

    Args:
      name: one of `SOURCES`.
      directory: folder of the data. The embedded data set does not use it.
      download: whether the network may be used.

    Raises:
      DataError: the name is unknown, the data is missing, damaged or not what it should be.
    """
    if name not in SOURCES:
        raise DataError(f"data set {name!r} is not known: give one of {', '.join(SOURCES)}")
    directory = Path(directory).expanduser()
    return _checked(SOURCES[name](directory, download), f"{name} in {directory}")


def _checked(dataset: Dataset, place: str) -> Dataset:
    """The data set, if shapes, types and labels are as `Dataset` says. Raises DataError otherwise."""
    num_classes = len(dataset.class_names)
    for split, images, labels in (("train", *dataset[1:3]), ("test", *dataset[3:5])):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise DataError(f"{place}: {split} images are {images.dtype} {images.shape}, not uint8 [N, H, W, 3]")
        if labels.shape != images.shape[:1] or not labels.size:
            raise DataError(f"{place}: {split} has {images.shape[0]} images, but labels of shape {labels.shape}")
        outside = labels[(labels < 0) | (labels >= num_classes)]
        if outside.size:
            raise DataError(
                f"{place}: {split} has a label {outside[0]}, but only {num_classes} class names; the files "
                f"do not belong together: unpack or download them again"
            )
    return dataset
