"""Folders prepared by TensorFlow Datasets (TFDS), read without TensorFlow.

TFDS shuffles what it stores. CIFAR's `id` (`train_00042`) counts the images of a split in the order of the original
files, batch after batch, so sorting by it restores the rows of the archive, and a long-tailed subset has the same
images whichever source it is chosen from.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ncl_jax.errors import DataError
from ncl_jax.runtime import extras
from ncl_jax.runtime.files import read_file

MOST_OF_INFO = 1 << 26  # bytes of dataset_info.json; with the names of a million classes it has a few
CIFAR_SHAPE = (32, 32, 3)


def find(name: str, directory: Path) -> Path | None:
    """The folder of the newest prepared version: `directory/name/3.0.2`, or `directory` itself; None without one."""
    for folder in (*sorted((directory / name).glob("*.*.*"), key=_version, reverse=True), directory):
        if prepared_name(folder) == name:
            return folder
    return None


def prepared_name(folder: Path) -> str | None:
    """The name of the data set that a folder holds; None if it is not a prepared one."""
    try:
        name = _info(folder)["name"]
    except (DataError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _info(folder: Path) -> dict[str, Any]:
    return json.loads(read_file(folder / "dataset_info.json", MOST_OF_INFO))


def _version(folder: Path) -> tuple[int, ...]:
    """Sorts 3.0.10 behind 3.0.9."""
    return tuple(int(part) for part in folder.name.split(".") if part.isdigit())


@contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """The builder of a prepared folder (array_record).

    Raises:
      DataError: tensorflow-datasets is not installed, or the folder is in another format, incomplete or damaged; also
        for what goes wrong while the caller reads from it.
    """
    info = _info(folder)
    name, file_format = info["name"], info.get("fileFormat", "tfrecord")
    again = f"tfds.builder('{name}', file_format='array_record').download_and_prepare()"
    if file_format != "array_record":
        raise DataError(
            f"{folder} is in the format {file_format}, which only TensorFlow reads: prepare it again with {again}"
        )
    try:
        import array_record  # noqa: F401 - TFDS imports it late, and then fails less clearly
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(
            f"{folder} needs packages that are not installed ({error}): {extras.install('tfds')}, or "
            f"put the files of {name} into the data directory as they are downloaded"
        ) from error
    try:
        yield tensorflow_datasets.builder_from_directory(folder)
    except DataError:
        raise
    except Exception as error:  # TFDS and array_record raise many types for damaged files.
        raise DataError(f"{folder} cannot be read ({error}): prepare it again with {again}") from error


def read_in_order(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Reads CIFAR as prepared, rows in the order of the archive. Raises DataError, see `opened`.

    Returns:
      train_images uint8 [N, 32, 32, 3], train_labels int32 [N], test_images, test_labels, class_names.
    """
    with opened(folder) as builder:
        train, test = (_split(builder.as_data_source(split), split) for split in ("train", "test"))
        return *train, *test, tuple(builder.info.features["label"].names)


def _split(source, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32, 3] and labels [N] of a data source, each in the row that its id names."""
    num_rows = len(source)
    images, labels = np.empty((num_rows, *CIFAR_SHAPE), np.uint8), np.full(num_rows, -1, np.int32)
    for example in source:
        row = int(example["id"].decode().removeprefix(f"{split}_"))
        if not 0 <= row < num_rows or labels[row] >= 0:
            raise ValueError(f"id {example['id'].decode()!r} occurs twice, or does not fit {num_rows} images")
        if example["image"].shape != CIFAR_SHAPE:
            raise ValueError(f"an image has the shape {example['image'].shape}, not {CIFAR_SHAPE}")
        images[row], labels[row] = example["image"], example["label"]
    return images, labels
