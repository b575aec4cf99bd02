"""Data sets by name, as arrays in memory: `load('cifar100', 'data')`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncl_jax.data import archives, tfds
from ncl_jax.data.archives import DataError

NAMES = ("cifar10", "cifar100", "fashion_mnist_lt")


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


def load(name: str, directory: str | Path, *, download: bool = True) -> Dataset:
    """Reads a whole data set into memory.

    CIFAR is looked for in `directory` as the unpacked Python archive (its files, or its folder), as the archive
    (`cifar-100-python.tar.gz`), and as prepared by TensorFlow Datasets (`cifar100/<version>`), in this order; all
    three give the same arrays, row for row. If there is none, the archive is downloaded into `directory`.

    Args:
      name: one of `NAMES`. 'fashion_mnist_lt' comes with the package: 1,236 training images of 28 x 28, classes
        sorted from 500 images to 5, and 100 test images a class (tools/make_fashion_mnist_lt.py).
      directory: folder of the data. Not used by 'fashion_mnist_lt'.
      download: whether the network may be used.

    Raises:
      DataError: the name is unknown, the data is missing, damaged or not what it should be.
    """
    if name not in NAMES:
        raise DataError(f"data set {name!r} is not known: give one of {', '.join(NAMES)}")
    if name == "fashion_mnist_lt":
        return _checked(Dataset(name, *_embedded()), name)
    directory, layout = Path(directory).expanduser(), archives.LAYOUTS[name]
    if place := archives.find(layout, directory):
        fields = archives.read(layout, place)
    elif place := tfds.find(name, directory):
        fields = tfds.read(place)
    else:
        place = archives.fetch(layout, directory, allowed=download)
        fields = archives.read(layout, place)
    return _checked(Dataset(name, *fields), str(place))


def _embedded() -> tuple:
    """Fields of the `Dataset` that comes with the package, images [N, 28, 28] repeated to three channels."""
    with np.load(Path(__file__).with_name("fashion_mnist_lt.npz"), allow_pickle=False) as file:
        train, test = (np.repeat(file[f"{split}_images"][..., None], 3, axis=-1) for split in ("train", "test"))
        train_labels, test_labels = (file[f"{split}_labels"].astype(np.int32) for split in ("train", "test"))
        return train, train_labels, test, test_labels, tuple(file["class_names"].tolist())


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
