"""A folder of images, a folder for each class."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ncl_jax.data import holdout
from ncl_jax.data.sources import levels
from ncl_jax.data.sources import names as class_names
from ncl_jax.data.sources import splits as layout
from ncl_jax.data.sources.files import Files, Unasked
from ncl_jax.data.sources.groups import COLUMN, FOLDER, NONE, by_pattern
from ncl_jax.data.sources.names import first_few
from ncl_jax.data.sources.splits import SPLITS
from ncl_jax.data.sources.walk import SUFFIXES, Unused, ending, entries, image_files
from ncl_jax.data.types import Request, Source, Split
from ncl_jax.errors import DataError, did_you_mean

__all__ = ["SPLITS", "SUFFIXES", "cut", "image_files", "read", "read_split", "takes"]


def read(request: Request) -> Source:
    """`DIR/train/<class>/...`, `DIR/test/<class>/...` and `DIR/val/<class>/...`, of which one of the last two may be
    missing; or classes alone, `DIR/<class>/...` or `DIR/train/<class>/...`, from which a test part is cut.

    The folders of splits may have other names (`splits.find`); `request.lists` names them where that is not clear.
    Below a split, folders of groups may lie above those of classes (`levels`). Classes are sorted by name. Images may
    lie at any depth below their class; what has no suffix of an image is not used, and neither is what begins with a
    dot or belongs to the system: the source's notes count it. The test part has `test_share` of every class
    (`holdout`); a class of one image keeps it for training.

    Raises:
      DataError: there is no such folder, one that may not be read, no class, a class without an image or only in test,
        two of one name, or it is not clear which folders are splits or classes, or an image has no group.
    """
    root = request.directory
    if not root.is_dir():
        raise DataError(f"data.dir={root} is not a folder: pass the one that holds train/<class>/ or <class>/")
    found, unused = layout.find(root, request.lists), Unused()
    if found.folders and root not in found.folders.values():
        unused.folders += found.beside
        folders, files = entries(root)
        for name in folders:
            unused.skips(str(root / name))
        unused.add_beside(files)
    if found.folders and "train" not in found.folders:
        raise DataError(f"{root}: the folder of training images is missing: pass train=FOLDER too (data.list.train)")
    places = found.folders or {"train": root}
    if request.layout == "auto" and request.rule > 1 and request.lists.get("train") != ".":
        levels.check(places["train"])
    classes = {name: levels.classes(place, request.layout, unused) for name, place in places.items()}
    classes, empty, left_out = _without_empty(classes, request.skip)
    names = tuple(classes["train"])
    for name, of_split in classes.items():
        if strangers := [c for c in of_split if c not in names]:
            place, near = found.folders[name], did_you_mean(strangers[0], names)
            raise DataError(f"{place} has classes that train has not: {', '.join(strangers[:5])}{near}")
    splits = {name: read_split(root, of_split, names, unused, request) for name, of_split in classes.items()}
    notes = (
        *found.notes, *levels.turned(classes["train"], request.layout), *empty,
        *class_names.remarks(names, counts_of(splits, names)), *unused.lines(root),
    )  # fmt: skip
    return Source(names, cut(splits, request), notes=notes, left_out=left_out, is_cut=len(splits) == 1)


def counts_of(splits: Mapping[str, Split], names: Sequence[str]) -> list[int]:
    """The images of each class in all splits."""
    return np.bincount(np.concatenate([split.labels for split in splits.values()]), minlength=len(names)).tolist()


def _without_empty(
    classes: Mapping[str, dict[str, list[Path]]], skip: bool
) -> tuple[dict[str, dict[str, list[Path]]], list[str], dict[str, list[tuple[str, str]]]]:
    """The folders of classes by split without those that hold no image; a line on empty ones, and what is skipped (see
    `Source`) of those that hold other files.

    Raises DataError for such files unless classes are to be skipped for them, and where fewer than two classes are left
    to train on.
    """
    empty, left = list[str](), dict[str, dict[str, list[Path]]]()
    left_out: dict[str, list[tuple[str, str]]] = {}
    for split, of_split in classes.items():
        lost = {name: where for name, where in of_split.items() if not any(map(_has_image, where))}
        left[split] = {name: where for name, where in of_split.items() if name not in lost}
        lines = {name: _no_image(name, where) for name, where in lost.items()}
        others = [line for line in lines.values() if "no file that ends" in line]
        if lost and (len(left[split]) < (2 if split == "train" else 1) or (others and not skip)):
            raise DataError((others or list(lines.values()))[0])
        empty += [f"{split} {name}" for name, line in lines.items() if line not in others]
        left_out[split] = [("classes without an image", line) for line in others]
    text = f"warning: classes whose folders are empty, which are skipped: {len(empty):,} ({first_few(empty)})"
    return left, [text] * bool(empty), left_out


def _has_image(folder: Path) -> bool:
    return next(image_files(folder), None) is not None


def takes(root: Path, path: Path, given: Mapping[str, str] | None = None) -> bool:
    """Whether what lies in the folder `path` would be taken for classes or images of `root`."""
    if not path.is_relative_to(root):
        return False
    folders = layout.find(root, given).folders if root.is_dir() else {}
    return not folders or any(path.is_relative_to(place) for place in folders.values())


def read_split(
    root: Path, classes: Mapping[str, list[Path]], names: Sequence[str], unused: Unused, request: Request
) -> Split:
    """The images of one split, by the folders of its classes; `names` are those of all classes, `unused` counts what is
    not used. Raises DataError, see `read`."""
    paths, sizes, labels, folders = list[str](), list[int](), list[int](), list[str]()
    index = {name: number for number, name in enumerate(names)}
    by = request.group_by or (FOLDER if request.layout == levels.GROUPS else NONE)
    for name, places in classes.items():
        before = len(paths)
        for place in places:
            found = sorted(image_files(place, unused))
            relative = [os.path.relpath(path, root) for path, _ in found]
            paths += relative
            sizes += [size for _, size in found]
            labels += [index[name]] * len(found)
            of_path = [levels.group_of(path, place, request.layout) for path, _ in found]
            folders += [group or path for group, path in zip(of_path, relative, strict=True)]
        if len(paths) == before:
            raise DataError(_no_image(name, places))
    if by == COLUMN:
        raise DataError(f"data.group_by={COLUMN} is for lists: pass {FOLDER}, or a regular expression of paths")
    groups, unasked = np.array(folders, object), None
    if by == NONE:
        unasked = Unasked("folders", f"group_by={FOLDER}", groups)
    elif by != FOLDER:
        groups = by_pattern(paths, by)
    of_group = None if by == NONE else groups
    files = Files(root, np.array(paths, object), np.array(sizes, np.int64), of_group, unasked)
    return Split(files, np.array(labels, np.int32))


def _no_image(name, places):
    """Says that a class has no image, and what it has instead."""
    others = Counter(
        ending(file) or "none"
        for place in places
        for _, _, files in os.walk(place)
        for file in files
        if not file.startswith(".")
    )
    counts = [f"{kind} {count:,}" for kind, count in others.most_common()]
    kinds = f"no file that ends in {', '.join(SUFFIXES)}, but {first_few(counts, 8)}" if others else "no image"
    return f"class {name!r} has {kinds} in {places[0]}: add images, or remove the folder"


def cut(splits: dict[str, Split], request: Request) -> dict[str, Split]:
    """The splits; where nothing but train is there, a test part cut from it, see `holdout`.

    Raises DataError where no image can be held out.
    """
    if splits.keys() != {"train"}:
        return splits
    train = splits["train"]
    groups, names = getattr(train.images, "groups", None), train.images.names
    chosen = holdout.held_out(
        train.labels, names, request.test_share, "test", groups=groups, rule=request.rule, pinned=request.pinned
    )
    if not chosen.any():
        why = "no class has two images"
        if groups is not None:
            every = sorted(set(groups))
            why = f"each of the {len(every):,} groups is the only one of a class, or the last"
            if len(every) == 1:
                why = f"data.group_by puts all {len(train):,} images into one group ({every[0]!r})"
        raise DataError(f"{why}, so that no test part can be cut: add images, or a test split")
    parts = {"train": ~chosen, "test": chosen}
    return {name: train.take(np.flatnonzero(part)) for name, part in parts.items()}
