"""CIFAR-10 and CIFAR-100, as their authors' archive or as prepared by TensorFlow Datasets."""

from ncl_jax.data import archives, tfds
from ncl_jax.data.sources.source import Request, Source, Split


def read(request: Request) -> Source:
    """Reads what the directory holds, looked for in this order; all three give the same arrays, row for row.

    The unpacked Python archive (its files, or its folder), the archive (`cifar-100-python.tar.gz`), and a data set
    prepared by TensorFlow Datasets (`cifar100/<version>`). If there is none, the archive is downloaded.
    """
    layout = archives.LAYOUTS[request.name]
    if place := archives.find(layout, request.directory):
        fields = archives.read(layout, place)
    elif place := tfds.find(request.name, request.directory):
        fields = tfds.read_in_order(place)
    else:
        fields = archives.read(layout, archives.fetch(layout, request.directory, allowed=request.download))
    train_images, train_labels, test_images, test_labels, names = fields
    return Source(names, {"train": Split(train_images, train_labels), "test": Split(test_images, test_labels)})
