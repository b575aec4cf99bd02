"""Lists in JSON: the authors', COCO's and iNaturalist's, records, and a record a line."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ncl_jax.data.sources import entries as of_entries
from ncl_jax.data.sources.entries import Entries, columns, from_records, label_of, path_of
from ncl_jax.errors import DataError

FORM = '{"annotations": [{"fpath", "category_id"}]}, COCO\'s images, annotations and categories, or [{"path", "label"}]'


def parse(text: str, path: Path, named: Mapping[str, str] | None = None) -> Entries:
    """`{"annotations": [{"fpath", "category_id"}]}`, COCO's `images`, `annotations` and `categories`, or records
    `[{"path", "label"}]`. Raises DataError, naming the record, for anything else."""
    content = _load(text, f"{path}")
    if isinstance(content, list) and content:
        return from_records(content, range(1, len(content) + 1), path, "record", named)
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a list in JSON ({type(content).__name__}): it must be {FORM}")
    notes = _objects(content, "annotations", path)
    if content.get("images"):
        return _coco(content, notes, path, named)
    paths = [path_of(_get(note, "fpath", where), where) for note, where in notes]
    return Entries(paths, _numbers(notes), file=path, unit="annotation")


def parse_lines(lines: Sequence[str], path: Path, named: Mapping[str, str] | None = None) -> Entries:
    """A record a line. Raises DataError, naming the line."""
    numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
    records = [_load(lines[number - 1], f"{path}, line {number}") for number in numbers]
    return from_records(records, numbers, path, "line", named)


def _load(text, where):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"{where} is not a list in JSON ({detail}): see docs/data.md") from error


def _coco(content, notes, path, named):
    """Images and their annotations; an image's annotations of one category count once. Splits and groups are fields of
    images."""
    files: dict[Any, str] = {}
    others: dict[Any, tuple[str, ...]] = {}
    called: dict[str, str] = {}
    for image, where in _objects(content, "images", path):
        key = _key(image, "id", where)
        if key in files:
            raise DataError(f"{where}: the id {key!r} is that of another image too")
        files[key] = path_of(_get(image, "file_name", where), where)
        keys = list(image)
        chosen = columns(keys, named)
        called |= of_entries.called(keys, chosen)
        others[key] = tuple("" if at is None else str(image[keys[at]]) for at in (chosen.split, chosen.group))
    names = _categories(content, path) if content.get("categories") else {}
    labels = _of_categories(notes, list(names)) if names else _numbers(notes)
    images = []
    for note, where in notes:
        images.append(_key(note, "image_id", where))
        if images[-1] not in files:
            raise DataError(f"{where}: there is no image of the id {images[-1]!r}")
    once = {(image, label): row for row, (image, label) in reversed(list(enumerate(zip(images, labels, strict=True))))}
    rows = sorted(once.values())
    remarks = [
        (len(notes) - len(rows), "further annotations of a category that the image has already (it counts once)"),
        (len(files.keys() - set(images)), "images without an annotation (not used)"),
    ]
    lines = tuple(f"{path}: {text}: {count:,}" for count, text in remarks if count)
    paths, numbers = [files[images[row]] for row in rows], [row + 1 for row in rows]
    splits, groups = ([others[images[row]][kind] for row in rows] for kind in (0, 1))
    return Entries(
        paths, [labels[row] for row in rows], tuple(names.values()), path, numbers, "annotation", lines,
        splits if "split" in called else (), groups if "group" in called else (), columns=called,
    )  # fmt: skip


def _categories(content, path):
    """The names of the categories by their id, in the order of the ids."""
    rows = [(_key(one, "id", where), _get(one, "name", where)) for one, where in _objects(content, "categories", path)]
    if double := [key for key, count in Counter(key for key, _ in rows).items() if count > 1]:
        raise DataError(f"{path} is not a list in JSON: two categories have the id {double[0]!r}")
    if len({type(key) for key, _ in rows}) > 1:
        raise DataError(f"{path} is not a list in JSON: some ids of categories are numbers and some are texts")
    return {key: label_of(name, f"{path}, category {key!r}") for key, name in sorted(rows)}


def _of_categories(notes, ids):
    """The place of each annotation's category among them, as a label."""
    places = {key: str(place) for place, key in enumerate(ids)}
    keys = [(_key(note, "category_id", where), where) for note, where in notes]
    if strange := next(((key, where) for key, where in keys if key not in places), None):
        raise DataError(f"{strange[1]}: there is no category of the id {strange[0]!r}")
    return [places[key] for key, _ in keys]


def _numbers(notes):
    return [label_of(_get(note, "category_id", where), where) for note, where in notes]


def _objects(content, name, path):
    """The objects of a part of the file, each with where it stands."""
    part = content.get(name)
    if not isinstance(part, list):
        found = "is missing" if part is None else f"is a {type(part).__name__}, not a list"
        raise DataError(f"{path} is not a list in JSON ({name} {found}): it must be {FORM}")
    one = {"annotations": "annotation", "images": "image", "categories": "category"}[name]
    rows = [(value, f"{path}, {one} {number}") for number, value in enumerate(part, 1)]
    for value, where in rows:
        if not isinstance(value, dict):
            raise DataError(f"{where} is not a list in JSON: {str(value)[:60]!r} is not an object")
    return rows


def _get(value, name, where):
    if name not in value:
        raise DataError(f"{where} is not a list in JSON ({name} is missing)")
    return value[name]


def _key(value, name, where):
    """An id. Raises DataError for one that is neither a whole number nor a text."""
    key = _get(value, name, where)
    label_of(key, f"{where}, {name}")
    return key
