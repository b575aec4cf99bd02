"""CIFAR-10 and CIFAR-100, as their authors' archive or as prepared by TensorFlow Datasets."""

from pathlib import Path

from ncl_jax.data import archives, tfds
from ncl_jax.data.sources.dataset import Dataset


def read_cifar10(directory: Path, download: bool) -> Dataset:
    """See `read`."""
    return read("cifar10", directory, download)


def read_cifar100(directory: Path, download: bool) -> Dataset:
    """See `read`."""
    return read("cifar100", directory, download)


def read(name: str, directory: Path, download: bool) -> Dataset:
    """Reads what `directory` holds, looked for in this order; all three give the same arrays, row for row.

    The unpacked Python archive (its files, or its folder), the archive (`cifar-100-python.tar.gz`), and a data set
    prepared by TensorFlow Datasets (`cifar100/<version>`). If there is none, the archive is downloaded.
    """
    layout = archives.LAYOUTS[name]
    if place := archives.find(layout, directory):
        fields = archives.read(layout, place)
    elif place := tfds.find(name, directory):
        fields = tfds.read(place)
    else:
        fields = archives.read(layout, archives.fetch(layout, directory, allowed=download))
    return Dataset(name, *fields)
