"""Data sets by name. One more is one file and one line here."""

from collections.abc import Callable

import numpy as np

from ncl_jax.data.sources import benchmarks, cifar, embedded, folder, lists, tfds
from ncl_jax.data.types import Request, Source, Split
from ncl_jax.errors import DataError

__all__ = ["SOURCES", "Request", "Source", "Split", "load"]

SOURCES: dict[str, Callable[[Request], Source]] = {
    "folder": folder.read,
    "list": lists.read,
    "tfds": tfds.read,
    "cifar10": cifar.read,
    "cifar100": cifar.read,
    "imagenet_lt": benchmarks.read,
    "places_lt": benchmarks.read,
    "inaturalist2018": benchmarks.read,
    "fashion_mnist_lt": embedded.read,
}


def load(request: Request) -> Source:
    """A whole data set: in memory, or where its files are.

    Raises:
      DataError: the name is unknown, the data is missing, damaged or not what it should be.
    """
    if request.name not in SOURCES:
        raise DataError(f"data set {request.name!r} is not known: use one of {', '.join(SOURCES)}")
    place = f"{request.name} in {request.directory}"
    try:
        source = _checked(SOURCES[request.name](request), place)
        notes, faults = (tuple(line.replace("\n", "\\n") for line in of) for of in (source.notes, source.faults))
        return source._replace(notes=notes, faults=faults)
    except OSError as error:
        raise DataError(f"{place} cannot be read ({error})") from error


def _checked(source: Source, place: str) -> Source:
    """The data set, if shapes, types and labels are as `Split` says. Raises DataError otherwise."""
    num_classes = len(source.class_names)
    for name, (images, labels) in source.splits.items():
        if isinstance(images, np.ndarray) and (images.dtype != np.uint8 or images.shape[3:] != (3,)):
            raise DataError(f"{place}: {name} images are {images.dtype} {images.shape}, not uint8 [N, H, W, 3]")
        if labels.shape != (len(images),) or not labels.size:
            raise DataError(f"{place}: {name} has {len(images)} images, but labels of shape {labels.shape}")
        outside = labels[(labels < 0) | (labels >= num_classes)]
        if outside.size:
            raise DataError(
                f"{place}: {name} has a label {outside[0]}, but only {num_classes} class names; the files "
                f"do not belong together: unpack or download them again"
            )
    return source
