"""Lists of image files with their labels: text, CSV with a header, or JSON."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ncl_jax.data.sources import labels, layouts, list_files, tables
from ncl_jax.data.sources import names as of_classes
from ncl_jax.data.sources.entries import SPLIT_COLUMNS, Entries, plain
from ncl_jax.data.sources.files import Files
from ncl_jax.data.sources.folder import counts_of, cut
from ncl_jax.data.sources.list_files import parse
from ncl_jax.data.sources.names import MISSING, first_few
from ncl_jax.data.sources.splits import SPLITS
from ncl_jax.data.types import Request, Source, Split
from ncl_jax.errors import DataError

OLDER_SPLIT_COLUMNS = SPLIT_COLUMNS[:3]  # by rules before 3

__all__ = ["build", "class_names", "find", "parse", "parse_all", "read"]


def read(request: Request) -> Source:
    """The files of `data.list.train` and, where they are given, `val` and `test`, below `data.dir`; a single list may
    have a column of splits.

    Labels are numbers from 0, or names of classes. Class names come from `data.list.classes`, a name a line; otherwise
    they are the labels themselves, or the folders that the training images of each class lie in.

    Raises:
      DataError: a list cannot be read, a line has no label or one out of range, a path leaves the root, a file is not
        there, two classes have one name, a class has no training image, an image has several labels.
    """
    if not request.directory.is_dir():
        raise DataError(f"data.dir={request.directory} is not a folder: pass the one that the lists' paths start from")
    return build(request, *parse_all(request))


def parse_all(request: Request) -> tuple[dict[str, Entries], tuple[str, ...]]:
    """The lists that are asked for, by split, and the names of the classes. Raises DataError, see `read`."""
    given = {split: request.lists[split] for split in SPLITS if request.lists.get(split)}
    if "train" not in given:
        raise DataError("data.list.train is missing: pass the file that lists the training images")
    newest = request.rule > 2
    missing = MISSING if newest and not request.lists.get("classes") else ()
    entries = {
        split: parse(find(name, request.directory), request.columns, request.skip, missing)
        for split, name in given.items()
    }
    named = request.columns.get("split", "")
    if not (newest or named) and plain(entries["train"].columns.get("split", "")) not in OLDER_SPLIT_COLUMNS:
        entries["train"] = entries["train"]._replace(splits=())
    unused = tables.unused_splits(entries)
    if request.rule > 1:
        entries = tables.divided(tables.single(entries, request.skip), named)
    entries["train"] = entries["train"]._replace(notes=(*entries["train"].notes, *unused))
    entries = labels.with_categories(labels.as_whole_numbers(entries), keep=bool(request.lists.get("classes")))
    if not request.lists.get("classes"):
        return entries, class_names(entries)
    path = find(request.lists["classes"], request.directory)
    names, notes = list_files.read_names(path)
    train = entries["train"]
    entries["train"] = train._replace(names=names, notes=(*train.notes, *notes))
    return entries, class_names(entries, path)


def find(name: str, root: Path) -> Path:
    """A list's file, looked for as it is given and below the root; it may be compressed (`.gz`)."""
    for path in (Path(name), Path(os.path.expanduser(name)), root / name):  # noqa: PTH111 - raises nothing
        if os.path.exists(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112
            return path
    raise DataError(f"the list {name} was found neither there nor in {root}: pass its path")


def build(request: Request, entries: dict[str, Entries], names: tuple[str, ...]) -> Source:
    """The source of lists that have been read. Raises DataError, see `read`."""
    numbers, splits, notes, left_out = labels.of_splits(entries, names), {}, [], {}
    for split, of_split in entries.items():
        splits[split], left_out[split], found = located(request, of_split, numbers[split], names)
        notes += [*of_split.notes, *found]
    labels.check_classes(entries, numbers["train"], names)
    twice, faults = _listed_twice(splits, names)
    every = tuple(dict.fromkeys([*notes, *of_classes.remarks(names, counts_of(splits, names)), *twice]))
    return Source(names, cut(splits, request), notes=every, left_out=left_out, faults=faults, is_cut=len(splits) == 1)


def located(
    request: Request, entries: Entries, numbers: np.ndarray, names: Sequence[str]
) -> tuple[Split, list[tuple[str, str]], tuple[str, ...]]:
    """The images of a list with their labels, what is skipped of it (see `Source`), and lines to be shown. Raises
    DataError, see `read`."""
    found = layouts.locate(request.directory, entries.paths, entries.place, request.skip)
    groups = tables.groups_of(request, entries.take(found.rows.tolist()), found.names)
    unasked = None if groups is not None else tables.unasked(entries.take(found.rows.tolist()), numbers, found)
    files = Files(request.directory, found.names, found.sizes, groups, unasked)
    left_out = [("rows without a label or path", line) for line in entries.lacking]
    left_out += [(names[numbers[row]], line) for row, line in found.lost.items()]
    return Split(files, numbers[found.rows]), left_out, found.notes


def class_names(entries: dict[str, Entries], path: Path | None = None) -> tuple[str, ...]:
    """The names of the classes: those that the lists have, or else their labels or folders; `path` is the file that
    they are from, for messages. Raises DataError for two alike, and for one that cannot be a name."""
    file = path or entries["train"].file
    names = tuple(of_classes.clean(name) for name in entries["train"].names or _guess_names(entries))
    for row, name in enumerate(names):
        if fault := of_classes.fault(name):
            raise DataError(f"{file}: class {row} would be {fault}: choose another name")
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"two classes have the name {double[0]!r} ({file}): change one of them")
    return names


def _guess_names(entries):
    """From the labels, where they are names; else from the training images' folders, where each class has its own."""
    of_train = entries["train"].labels
    if not all(label.isdecimal() for label in of_train):
        return tuple(sorted(set(of_train)))
    every = [int(label) for split in entries.values() for label in split.labels if label.isdecimal()]
    if max(every) >= len(every):
        raise DataError(
            f"a list has the label {max(every)}, but there are {len(every)} images: labels must count the classes from "
            "0; write names instead, or data.list.classes"
        )
    folders: dict[int, set[str]] = {}
    for path, label in zip(entries["train"].paths, of_train, strict=True):
        folders.setdefault(int(label), set()).add(os.path.dirname(path) or ".")  # noqa: PTH120 - speed
    found = [folders.get(c, set()) for c in range(max(every) + 1)]
    single = [next(iter(names)) for names in found if len(names) == 1]
    if len(set(single)) < len(found) or len({os.path.isabs(name) for name in single}) > 1:  # noqa: PTH117
        return tuple(f"class {c}" for c in range(len(found)))
    common = os.path.commonpath(single) if len(single) > 1 else os.path.dirname(single[0])  # noqa: PTH120
    return tuple(os.path.relpath(name, common or ".") for name in single)


def _listed_twice(splits: Mapping[str, Split], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Lines about files that are in a list twice, or in two lists; and about those that are there in two classes."""
    notes: list[str] = []
    faults: list[str] = []
    seen: dict[str, Mapping[str, int]] = {}
    for split, (files, of_split) in splits.items():
        counts = seen[split] = Counter(files.names)
        of_file: dict[str, set[int]] = {}
        for name, number in zip(files.names, of_split.tolist(), strict=True):
            if counts[name] > 1:
                of_file.setdefault(name, set()).add(number)
        two = [f"{name} ({first_few(names[c] for c in sorted(of))})" for name, of in of_file.items() if len(of) > 1]
        double = [name for name, of in of_file.items() if len(of) == 1]
        lines = {f"files that the {split} list has twice": double}
        faults += [f"files that the {split} list has in two classes: {len(two):,} ({first_few(two)})"] * bool(two)
        if split != "train":
            both = [name for name in counts if name in seen["train"]]
            lines[f"files that are both in the train list and in the {split} list"] = both
        notes += [f"{text}: {len(items):,} ({first_few(items)})" for text, items in lines.items() if items]
    return notes, faults
