"""A folder of images, a folder for each class."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ncl_jax.data.sources import names as class_names
from ncl_jax.data.sources import splits as layout
from ncl_jax.data.sources.files import Files
from ncl_jax.data.sources.splits import SPLITS
from ncl_jax.data.sources.walk import SUFFIXES, Unused, entries, image_files, is_image
from ncl_jax.data.types import Request, Source, Split
from ncl_jax.errors import DataError, did_you_mean

__all__ = ["SPLITS", "SUFFIXES", "cut", "image_files", "list_classes", "read", "stratified", "takes"]


def read(request: Request) -> Source:
    """`DIR/train/<class>/...`, `DIR/test/<class>/...` and `DIR/val/<class>/...`, of which one of the last two may be
    missing; or classes alone, `DIR/<class>/...` or `DIR/train/<class>/...`, from which a test part is cut.

    The folders of splits may have other names (`splits.find`); `request.lists` names them where that is not clear.
    Classes are sorted by name. Images may lie at any depth below their class; what has no suffix of an image is not
    used, and neither is what begins with a dot or belongs to the system: the source's notes count it. The test part has
    `test_share` of every class, chosen by a generator seeded with 0; a class of one image keeps it for training.

    Raises:
      DataError: there is no such folder, one that may not be read, no class, a class without an image or only in test,
        two of one name, or it is not clear which folders are splits.
    """
    root = request.directory
    if not root.is_dir():
        raise DataError(f"data.dir={root} is not a folder: give the one that holds train/<class>/ or <class>/")
    found, unused = layout.find(root, request.lists), Unused()
    if found.folders and root not in found.folders.values():
        unused.folders += found.beside
        unused.beside += sum(map(is_image, entries(root)[1]))
    if found.folders and "train" not in found.folders:
        raise DataError(f"{root}: no folder of training images is given: pass train=FOLDER too (data.list.train)")
    classes = {name: list_classes(place, unused) for name, place in (found.folders or {"train": root}).items()}
    names = tuple(classes["train"])
    for name, of_split in classes.items():
        if strangers := [c for c in of_split if c not in names]:
            place, near = found.folders[name], did_you_mean(strangers[0], names)
            raise DataError(f"{place} has classes that train has not: {', '.join(strangers[:5])}{near}")
    splits = {name: _split(root, of_split, names, unused) for name, of_split in classes.items()}
    notes = (*found.notes, *class_names.remarks(names), *unused.lines(root))
    return Source(names, cut(splits, len(names), request.test_share), notes=notes)


def takes(root: Path, path: Path, given: Mapping[str, str] | None = None) -> bool:
    """Whether what lies in the folder `path` would be taken for classes or images of `root`."""
    if not path.is_relative_to(root):
        return False
    folders = layout.find(root, given).folders if root.is_dir() else {}
    return not folders or any(path.is_relative_to(place) for place in folders.values())


def list_classes(folder: Path, unused: Unused | None = None) -> dict[str, Path]:
    """The folders of a split's classes by name, sorted; `unused` counts the rest.

    Raises DataError without any, for two of one name, or one that cannot be the name of a class.
    """
    unused = Unused() if unused is None else unused
    folders, files = entries(folder)
    found = [name for name in folders if not unused.skips(str(folder / name))]
    unused.beside += sum(map(is_image, files))
    if not found:
        itself = ", or pass train=. if it is a class itself" if folder.name.lower() in layout.WORDS else ""
        raise DataError(
            f"{folder} has no folder of a class: the images of each class belong in {folder}/<class>/{itself}"
        )
    names = [class_names.clean(name) for name in found]
    for name, entry in zip(names, found, strict=True):
        if fault := class_names.fault(name):
            raise DataError(f"{str(folder / entry)!r:.300} would be {fault}: rename the folder")
        if (folder / entry).is_symlink() and folder.resolve().is_relative_to((folder / entry).resolve()):
            raise DataError(f"{folder / entry} is a link to a folder above it, and would hold every image: remove it")
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{folder} has two folders of the name {double[0]!r} (written in two ways): rename one")
    return {name: folder / entry for name, entry in zip(names, found, strict=True)}


def _split(root, classes, names, unused):
    """The images of one split."""
    paths, sizes, labels = [], [], []
    for name, place in classes.items():
        found = sorted(image_files(place, unused))
        if not found:
            kinds = "no image" if not any(place.iterdir()) else f"no file that ends in {', '.join(SUFFIXES)}"
            raise DataError(f"class {name!r} has {kinds} in {place}: add images, or remove the folder")
        paths += [os.path.relpath(path, root) for path, _ in found]
        sizes += [size for _, size in found]
        labels += [names.index(name)] * len(found)
    return Split(Files(root, np.array(paths, object), np.array(sizes, np.int64)), np.array(labels, np.int32))


def cut(splits: dict[str, Split], num_classes: int, share: float) -> dict[str, Split]:
    """The splits; where nothing but train is there, a test part cut from it, the same share of every class."""
    if splits.keys() != {"train"}:
        return splits
    chosen = stratified(splits["train"].labels, num_classes, share)
    if not chosen.any():
        raise DataError("no class has two images, so that no test part can be cut: add images, or a test split")
    parts = {"train": ~chosen, "test": chosen}
    return {name: splits["train"].take(np.flatnonzero(part)) for name, part in parts.items()}


def stratified(labels: np.ndarray, num_classes: int, share: float) -> np.ndarray:
    """A mask [N] of the same share of every class, always the same: one image at least, and not all of a class."""
    generator = np.random.RandomState(0)  # the same in every NumPy
    chosen = np.zeros(len(labels), bool)
    for label in range(num_classes):
        rows = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        chosen[rows[:count]] = True
    return chosen
