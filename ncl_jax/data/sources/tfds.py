"""Any classification set that TensorFlow Datasets prepared, read without TensorFlow."""

import contextlib
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ncl_jax.data.sources import labels, lists, tfds_files
from ncl_jax.data.sources.folder import cut
from ncl_jax.data.sources.layouts import LAYOUTS
from ncl_jax.data.types import Request, Source, Split
from ncl_jax.errors import DataError
from ncl_jax.runtime import caches, progress
from ncl_jax.runtime.files import open_regular, read_file

SPLITS = {"train": ("train",), "val": ("validation", "val"), "test": ("test",)}


def read(request: Request) -> Source:
    """The splits of the folder that holds `dataset_info.json` (`<name>/<version>`), or the images of it that
    `data.list.train` and its like name (Places-LT out of `places365_small`).

    Its features must be an `image` and a `label`, for lists a `filename` as well.

    Raises:
      DataError: there is no such folder, it lacks a feature, a list names an image that it does not hold.
    """
    folder = request.directory
    if not tfds_files.prepared_name(folder):
        raise DataError(f"data.dir={folder} holds no dataset_info.json: pass a folder NAME/VERSION prepared by TFDS")
    return read_lists(request) if any(request.lists.values()) else read_folder(request, folder)


class Records:
    """The encoded images of a TFDS split; `rows` chooses among them."""

    def __init__(self, folder: Path, split: str, rows: np.ndarray, names: np.ndarray | None = None):
        self._folder, self._split, self._rows = folder, split, rows
        self._source: Any = None
        self.names = np.array([f"{split} record {row}" for row in rows], object) if names is None else names

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """One record's image, as its file's bytes, or the `Records` of several rows."""
        if not isinstance(index, int | np.integer):
            return Records(self._folder, self._split, self._rows[index], self.names[index])
        self._source = self._source or open_split(self._folder, self._split)
        return self._source[int(self._rows[index])]["image"]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_source": None}  # opened again in each process


def open_split(folder: Path, split: str) -> Any:
    """A TFDS data source whose images stay encoded."""
    with tfds_files.opened(folder) as builder:
        from tensorflow_datasets import decode

        return builder.as_data_source(split, decoders={"image": decode.SkipDecoding()})


def read_folder(request: Request, folder: Path) -> Source:
    """All splits of a prepared folder; without a test split whose images have labels, `validation` is the test, and
    without that it is cut from train (`folder.cut`)."""
    with tfds_files.opened(folder) as builder:
        features, there = builder.info.features, builder.info.splits
        if not {"image", "label"} <= features.keys():
            raise DataError(f"{folder} has the features {', '.join(features)}: it needs image and label")
        names = tuple(features["label"].names)
    found = {ours: next((t for t in theirs if t in there), None) for ours, theirs in SPLITS.items()}
    splits = {}
    for ours, theirs in found.items():
        if theirs:
            labels = read_columns(folder, theirs, ("label",))["label"].astype(np.int32)
            if (labels >= 0).all():  # some publish test images without labels, as -1
                splits[ours] = Split(Records(folder, theirs, np.arange(len(labels))), labels)
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    return Source(names, cut(splits, request))


def read_lists(request: Request) -> Source:
    """The images that lists name, found by their `filename`."""
    folder, (entries, names) = request.directory, lists.parse_all(request)
    rows: dict[str, tuple[str, int]] = {}
    with tfds_files.opened(folder) as builder:
        there = [name for theirs in SPLITS.values() for name in theirs if name in builder.info.splits]
    for theirs in there:
        for row, name in enumerate(read_columns(folder, theirs, ("filename",))["filename"].tolist()):
            rows[name] = theirs, row
    numbers = labels.of_splits(entries, names)
    splits = {split: Split(_pick(folder, e.paths, rows), numbers[split]) for split, e in entries.items()}
    labels.check_classes(entries, numbers["train"], names)
    notes = tuple(note for e in entries.values() for note in e.notes)
    return Source(names, cut(splits, request), notes=notes)


def _pick(folder, paths, rows):
    """The records of a list's paths, all of one TFDS split."""
    layout = next((f for f in LAYOUTS.values() if f(paths[0]) in rows), LAYOUTS["as listed"])
    for path in paths:
        if layout(path) not in rows:
            raise DataError(f"{folder} holds no image {path} of the list; it has {next(iter(rows), None)}, for example")
    theirs = {rows[layout(path)][0] for path in paths}
    if len(theirs) > 1:
        raise DataError(f"a list names images of several splits of {folder} ({', '.join(sorted(theirs))})")
    chosen = np.array([rows[layout(path)][1] for path in paths])
    return Records(folder, theirs.pop(), chosen, np.array(paths, object))


def read_columns(folder: Path, split: str, features: tuple[str, ...]) -> dict[str, np.ndarray]:
    """A split's features but the image, each `[N]`; read once and kept in the user's cache directory."""
    info = read_file(folder / "dataset_info.json") + str(folder.absolute()).encode()
    key = hashlib.sha256(info + f"{split} {features}".encode()).hexdigest()[:32]
    cache = caches.folder()
    cached = cache and cache / "tfds" / f"{key}.npz"
    if cached and (kept := _kept(cached, features)) is not None:
        return kept
    with tfds_files.opened(folder):
        source = open_split(folder, split)
        bar = progress.counted(len(source), f"reading {', '.join(features)} of {split}")
        rows = [[_plain(example[name]) for name in features] for example in (source[i] for i in bar)]
    columns: dict[str, Any] = {name: np.array([row[i] for row in rows]) for i, name in enumerate(features)}
    if cached is None:
        return columns
    with contextlib.suppress(OSError):  # the labels can be read again
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cached.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **columns)
        Path(file.name).replace(cached)
    return columns


def _kept(path, features):
    """What was kept of a split; None where there is nothing, or something damaged."""
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            if sum(part.file_size for part in arrays.zip.infolist()) > path.stat().st_size:
                raise ValueError("it was never compressed")
            columns = {name: arrays[name] for name in features}
    except Exception:  # of many types; the columns can be read again
        return None
    shapes = {column.shape for column in columns.values()}
    return columns if len(shapes) == 1 and len(shapes.pop()) == 1 else None


def _plain(value):
    return value.decode() if isinstance(value, bytes) else value
