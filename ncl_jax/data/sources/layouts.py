"""Where the files of a list are: paths are checked, and mapped between the known forms of the benchmarks."""

import difflib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncl_jax.errors import DataError

# The same images under other paths; each takes a list's path and gives another one, or the same.
LAYOUTS: dict[str, Callable[[str], str]] = {
    "as listed": lambda path: path,
    # Places365: .../a/apartment_building/outdoor/1.jpg in data_256 and data_large, apartment_building-outdoor in train
    "Places, 256 to standard": lambda path: re.sub(
        r"^data_(?:256|large)/[a-z]/(.+)/([^/]+)$", lambda m: f"train/{m[1].replace('/', '-')}/{m[2]}", path
    ),
    "Places, standard to 256": lambda path: re.sub(
        r"^train/(([a-z])[^/]*)/([^/]+)$", lambda m: f"data_256/{m[2]}/{m[1].replace('-', '/')}/{m[3]}", path
    ),
    "Places, standard to large": lambda path: re.sub(
        r"^train/(([a-z])[^/]*)/([^/]+)$", lambda m: f"data_large/{m[2]}/{m[1].replace('-', '/')}/{m[3]}", path
    ),
    "Places, val to 256": lambda path: re.sub(r"^val/(?:[^/]+/)?(Places365_val_[^/]+)$", r"val_256/\1", path),
    "Places, val to large": lambda path: re.sub(r"^val(?:_256|/[^/]+)/(Places365_val_[^/]+)$", r"val_large/\1", path),
    # ImageNet's validation images: in a folder of their class, or all in one
    "ImageNet, val flat": lambda path: re.sub(r"^val/n\d{8}/(ILSVRC2012_val_[^/]+)$", r"val/\1", path),
    "iNaturalist, without the first folder": lambda path: path.removeprefix("train_val2018/"),
}


class Located(NamedTuple):
    """Files that are there."""

    names: np.ndarray  # paths [N] relative to the root
    sizes: np.ndarray  # int64 [N], bytes


def locate(root: Path, paths: Sequence[str]) -> Located:
    """The files of a list, in whichever layout its first one is found.

    Raises:
      DataError: a path leads out of the root, or a file is not there.
    """
    inside = [_below(root, path) for path in paths]
    layout = next((f for f in LAYOUTS.values() if (root / f(inside[0])).is_file()), None) or _by_name(root)
    names = [layout(path) for path in inside]
    with ThreadPoolExecutor(16) as pool:  # of use where the files are far away
        sizes = list(pool.map(lambda name: _size(root, name), names, chunksize=256))
    for name, size in zip(names, sizes, strict=True):
        if size is None:
            raise DataError(_missing(root, name))
    return Located(np.array(names, object), np.array(sizes, np.int64))


def _by_name(root):
    """A layout of validation images, whose own names are unique, wherever below `val/` they are."""
    places = {name: os.path.relpath(place, root) for place, _, files in os.walk(root / "val") for name in files}

    def find(path):
        folder, _, name = path.rpartition("/")
        return f"{places[name]}/{name}" if folder.startswith("val") and name in places else path

    return find


def _below(root, path):
    """The path relative to the root; absolute ones and `..` are allowed as far as they stay below it."""
    full = os.path.normpath(os.path.join(root, path))  # noqa: PTH118 - does not follow links
    relative = os.path.relpath(full, root)
    if relative.startswith(".."):
        raise DataError(f"the path {path!r} of the list leads out of data.dir={root}: give a root above all images")
    return relative


def _size(root, name):
    try:
        return os.stat(os.path.join(root, name)).st_size  # noqa: PTH116, PTH118 - a hundred thousand times
    except OSError:
        return None


def _missing(root, name):
    """Says which path was tried and what is there instead."""
    path = root / name
    parent = next(p for p in path.parents if p.is_dir())
    wanted = path.relative_to(parent).parts[0]
    near = difflib.get_close_matches(wanted, sorted(os.listdir(parent)), n=1, cutoff=0)  # noqa: PTH208
    instead = f"the nearest that exists is {parent / near[0]}" if near else f"{parent} is empty"
    return f"{path} of the list does not exist; {instead}: set data.dir to the folder that the lists' paths start from"
