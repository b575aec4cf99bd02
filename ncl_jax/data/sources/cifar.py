"""CIFAR-10 and CIFAR-100, as their authors' archive or as prepared by TensorFlow Datasets."""

from ncl_jax.data.sources import cifar_archive, tfds_files
from ncl_jax.data.types import Request, Source, Split


def read(request: Request) -> Source:
    """Reads what the directory holds, looked for in this order; all three give the same arrays, row for row.

    The unpacked Python archive (its files, or its folder), the archive (`cifar-100-python.tar.gz`), and a data set
    prepared by TensorFlow Datasets (`cifar100/<version>`). If there is none, the archive is downloaded.
    """
    layout = cifar_archive.LAYOUTS[request.name]
    if place := cifar_archive.find(layout, request.directory):
        fields = cifar_archive.read(layout, place)
    elif place := tfds_files.find(request.name, request.directory):
        fields = tfds_files.read_in_order(place)
    else:
        fields = cifar_archive.read(layout, cifar_archive.fetch(layout, request.directory, allowed=request.download))
    train_images, train_labels, test_images, test_labels, names = fields
    return Source(names, {"train": Split(train_images, train_labels), "test": Split(test_images, test_labels)})
