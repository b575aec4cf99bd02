"""A folder of images, a folder for each class."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ncl_jax.data.sources.files import Files
from ncl_jax.data.types import Request, Source, Split
from ncl_jax.errors import DataError

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif",
    ".jp2",
)  # fmt: skip
SPLITS = ("train", "val", "test")


def read(request: Request) -> Source:
    """`DIR/train/<class>/...`, `DIR/test/<class>/...` and `DIR/val/<class>/...`, of which one of the last two may be
    missing; or classes alone, `DIR/<class>/...` or `DIR/train/<class>/...`, from which a test part is cut.

    Classes are sorted by name. Images may lie at any depth below their class; what has no suffix of an image is passed
    over, and so is what begins with a dot. The test part has `test_share` of every class, chosen by a generator seeded
    with 0; a class of one image keeps it for training.

    Raises:
      DataError: there is no such folder, no class, a class without an image or only in test, or two of one name.
    """
    root = request.directory
    if not root.is_dir():
        raise DataError(f"data.dir={root} is not a folder: give the one that holds train/<class>/ or <class>/")
    present = [name for name in SPLITS if (root / name).is_dir()]
    classes = {name: list_classes(root / name) for name in present} or {"train": list_classes(root)}
    if "train" not in classes:
        raise DataError(f"{root} has {' and '.join(present)}, but no train: put the training images into {root}/train")
    names = tuple(classes["train"])
    for name, found in classes.items():
        if strangers := [c for c in found if c not in names]:
            raise DataError(f"{root}/{name} has classes that train has not: {', '.join(strangers[:5])}")
    splits = {name: _split(root, found, names) for name, found in classes.items()}
    return Source(names, cut(splits, len(names), request.test_share))


def takes(root: Path, path: Path) -> bool:
    """Whether what lies in the folder `path` would be taken for classes or images of `root`."""
    if not path.is_relative_to(root):
        return False
    split = any((root / name).is_dir() for name in SPLITS)
    return not split or path.relative_to(root).parts[:1] in {(name,) for name in SPLITS}


def list_classes(folder: Path) -> dict[str, Path]:
    """The folders of a split's classes by name, sorted. Raises DataError without any, or for two of one name."""
    found = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    if not found:
        raise DataError(f"{folder} has no folder of a class: the images of each class belong in {folder}/<class>/")
    names = [unicodedata.normalize("NFC", name) for name in found]
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{folder} has two folders of the name {double[0]!r} (written in two ways): rename one")
    return {name: folder / entry for name, entry in zip(names, found, strict=True)}


def _split(root, classes, names):
    """The images of one split."""
    paths, sizes, labels = [], [], []
    for name, place in classes.items():
        found = sorted(image_files(place))
        if not found:
            kinds = "no image" if not any(place.iterdir()) else f"no file that ends in {', '.join(SUFFIXES)}"
            raise DataError(f"class {name!r} has {kinds} in {place}: add images, or remove the folder")
        paths += [os.path.relpath(path, root) for path, _ in found]
        sizes += [size for _, size in found]
        labels += [names.index(name)] * len(found)
    return Split(Files(root, np.array(paths, object), np.array(sizes, np.int64)), np.array(labels, np.int32))


def image_files(folder: Path) -> Iterator[tuple[str, int]]:
    """The path and size in bytes of every image file below a folder, in no order."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):  # noqa: PTH122 - speed
                path = os.path.join(place, name)  # noqa: PTH118
                try:
                    yield path, os.stat(path).st_size  # noqa: PTH116
                except OSError:  # a link that leads nowhere: an unreadable file, as one that is empty
                    yield path, 0


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
