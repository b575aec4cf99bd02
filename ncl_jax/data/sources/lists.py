"""Lists of image files with their labels: text, CSV with a header, or JSON."""

import csv
import gzip
import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncl_jax.data.sources import layouts
from ncl_jax.data.sources.files import Files
from ncl_jax.data.sources.folder import SPLITS, cut
from ncl_jax.data.types import Request, Source, Split
from ncl_jax.errors import DataError

PATH_COLUMNS = ("path", "fpath", "file", "filename", "file_name", "image")
LABEL_COLUMNS = ("label", "class", "category_id", "category", "target")


class Entries(NamedTuple):
    """A list as it stands: labels are numbers or names."""

    paths: list[str]
    labels: list[str]
    names: tuple[str, ...] = ()  # of the classes, where the list has them


def read(request: Request) -> Source:
    """The files of `data.list.train` and, where they are given, `val` and `test`, below `data.dir`.

    Labels are numbers from 0, or names of classes. Class names come from `data.list.classes`, a name a line; otherwise
    they are the labels themselves, or the folders that the training images of each class lie in.

    Raises:
      DataError: a list cannot be read, a line has no label or one out of range, a path leaves the root, a file is not
        there, two classes have one name.
    """
    if not request.directory.is_dir():
        raise DataError(f"data.dir={request.directory} is not a folder: give the one that the lists' paths start from")
    return build(request, *parse_all(request))


def parse_all(request: Request) -> tuple[dict[str, Entries], tuple[str, ...]]:
    """The lists that are asked for, by split, and the names of the classes. Raises DataError, see `read`."""
    given = {split: request.lists[split] for split in SPLITS if request.lists.get(split)}
    if "train" not in given:
        raise DataError("data.list.train is missing: give the file that lists the training images")
    entries = {split: parse(find(name, request.directory)) for split, name in given.items()}
    classes = find(request.lists["classes"], request.directory) if request.lists.get("classes") else None
    return entries, class_names(entries, classes)


def find(name: str, root: Path) -> Path:
    """A list's file, looked for as it is given and below the root; it may be compressed (`.gz`)."""
    for path in (Path(name).expanduser(), root / name):
        if path.is_file():
            return path
    raise DataError(f"the list {name} is neither there nor in {root}: give its path")


def build(request: Request, entries: dict[str, Entries], names: tuple[str, ...]) -> Source:
    """The source of lists that have been read."""
    splits, numeric = {}, are_numbers(entries)
    for split, found_entries in entries.items():
        of_list = numbers(found_entries.labels, names, split, numeric)
        found = layouts.locate(request.directory, found_entries.paths)
        splits[split] = Split(Files(request.directory, found.names, found.sizes), of_list)
    return Source(names, cut(splits, len(names), request.test_share))


def class_names(entries: dict[str, Entries], path: Path | None = None) -> tuple[str, ...]:
    """The names of the classes: from a file, a name a line, or from the lists. Raises DataError for two alike."""
    names = _read_names(path) if path else entries["train"].names or _guess_names(entries)
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"two classes have the name {double[0]!r}: change one of them")
    return names


def parse(path: Path) -> Entries:
    """A list's paths and labels, whatever its format. Raises DataError, naming the line, where it is damaged."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"the list {path} cannot be read ({error})") from error
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    entries = {".json": _parse_json, ".csv": _parse_csv}.get(kind.lower(), _parse_text)(text, path)
    if not entries.paths:
        raise DataError(f"the list {path} names no image")
    return entries


def _parse_text(text, path):
    """`path label` a line; the label is what follows the last space."""
    rows = [line.strip().rsplit(None, 1) for line in text.splitlines()]
    for number, row in enumerate(rows, 1):
        if len(row) == 1:
            raise DataError(f"{path}, line {number}: {row[0]!r} has no label; a line must be: path label")
    return Entries([row[0] for row in rows if row], [row[1] for row in rows if row])


def _parse_csv(text, path):
    """Columns by the names in the header."""
    reader = csv.DictReader(io.StringIO(text, newline=None))
    header = reader.fieldnames or []
    columns = [next((c for c in names if c in header), None) for names in (PATH_COLUMNS, LABEL_COLUMNS)]
    if None in columns:
        raise DataError(
            f"{path} has the columns {', '.join(header)}: name one of them {' or '.join(PATH_COLUMNS[:2])}, and one "
            f"{' or '.join(LABEL_COLUMNS[:2])}"
        )
    rows = [[(row[column] or "").strip() for column in columns] for row in reader]
    for number, row in enumerate(rows, 2):
        if not all(row):
            raise DataError(f"{path}, line {number}: the {'path' if not row[0] else 'label'} is missing")
    return Entries([row[0] for row in rows], [row[1] for row in rows])


def _parse_json(text, path):
    """`{"annotations": [{"fpath", "category_id"}]}`, or COCO's `images`, `annotations` and `categories`."""
    try:
        content = json.loads(text)
        files = {image["id"]: image["file_name"] for image in content.get("images", ())}
        notes = content["annotations"]
        paths = [files[note["image_id"]] if files else note["fpath"] for note in notes]
        categories = sorted(content.get("categories", ()), key=lambda category: category["id"])
        index = {category["id"]: number for number, category in enumerate(categories)}
        labels = [str(index[note["category_id"]] if index else note["category_id"]) for note in notes]
        return Entries(paths, labels, tuple(str(category["name"]) for category in categories))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a list in JSON ({type(error).__name__}: {error}): see docs/data.md") from error


def _read_names(path):
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.list.classes={path} cannot be read ({error})") from error


def _guess_names(entries):
    """From the labels, where they are names; else from the training images' folders, where each class has its own."""
    labels = entries["train"].labels
    if not all(label.isdecimal() for label in labels):
        return tuple(sorted(set(labels)))
    every = [int(label) for split in entries.values() for label in split.labels if label.isdecimal()]
    if max(every) >= len(every):
        raise DataError(
            f"a list has the label {max(every)}, but there are {len(every)} images: labels must count the classes from "
            "0; give names instead, or data.list.classes"
        )
    folders: dict[int, set[str]] = {}
    for path, label in zip(entries["train"].paths, labels, strict=True):
        folders.setdefault(int(label), set()).add(os.path.dirname(path) or ".")  # noqa: PTH120 - speed
    found = [folders.get(c, set()) for c in range(max(every) + 1)]
    single = [next(iter(names)) for names in found if len(names) == 1]
    if len(set(single)) < len(found) or len({os.path.isabs(name) for name in single}) > 1:  # noqa: PTH117
        return tuple(f"class {c}" for c in range(len(found)))
    common = os.path.commonpath(single) if len(single) > 1 else os.path.dirname(single[0])  # noqa: PTH120
    return tuple(os.path.relpath(name, common or ".") for name in single)


def are_numbers(entries: dict[str, Entries]) -> bool:
    """Whether the labels of all lists are the numbers of classes, as those of the training images are."""
    return all(label.removeprefix("-").isdecimal() for label in entries["train"].labels)


def numbers(labels: Sequence[str], names: tuple[str, ...], split: str, numeric: bool) -> np.ndarray:
    """Labels, numbers of classes or names, as int32 [N]. Raises DataError for one that is no class."""
    index = {str(number) if numeric else name: number for number, name in enumerate(names)}
    found = [index.get(label.lstrip("0") or "0" if numeric else label, -1) for label in labels]
    for row, number in enumerate(found):
        if not 0 <= number < len(names):
            raise DataError(
                f"image {row + 1} of the {split} list has the label {labels[row]!r}, but the {len(names)} classes are "
                f"0 to {len(names) - 1} ({', '.join(names[:3])}, ...): mend the list, or data.list.classes"
            )
    return np.array(found, np.int32)
