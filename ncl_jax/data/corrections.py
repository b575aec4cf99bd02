"""Corrections of the labels of training images: other classes for some, others taken out. No file is touched."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ncl_jax.data.sources.entries import Entries
from ncl_jax.data.sources.list_files import parse
from ncl_jax.data.sources.names import first_few
from ncl_jax.data.types import Source
from ncl_jax.errors import DataError, did_you_mean, printable
from ncl_jax.runtime.files import name_text

REMOVED = "-"  # the label of an image that is taken out
FORMULA = ("=", "+", "-", "@")  # before which other programs write a quote, so that a spreadsheet takes a cell for text


def name_of(images: object, row: int) -> str:
    """What an image of a split is called for people: its file's name in one line, or its row."""
    names = getattr(images, "names", None)
    return str(row) if names is None else printable(str(names[row]))


def read(path: Path, source: Source) -> np.ndarray:
    """The corrected label of every training image of a source, int32 `[N]`; -1: taken out.

    The file is a list (`list_files.parse`) with the columns `file` and `label`; others do not matter. A label is the
    name of a class, or `-`. Images that it does not name keep their label.

    Raises:
      DataError: it cannot be read, names an image or a class that is not there, or one image twice with two labels.
    """
    if path.suffix.lower() != ".csv":
        raise DataError(f"data.labels={path} must be a CSV file whose name ends in .csv")
    entries, train = parse(path, missing=()), source.splits["train"]
    rows = _rows(entries, [name_text(name_of(train.images, row)) for row in range(len(train))], path)
    corrected = train.labels.copy()
    seen: dict[int, int] = {}
    for index, label in enumerate(_labels(entries, source.class_names, path)):
        for row in rows[index]:
            if seen.setdefault(row, label) != label:
                raise DataError(f"{entries.place(index)}: {entries.paths[index]} has two labels: keep one of them")
            corrected[row] = label
    return corrected


def _labels(entries: Entries, class_names: Sequence[str], path: Path) -> list[int]:
    """The label of every entry, -1 for `REMOVED`. Raises DataError for names of no class."""
    forms = (name_text, str)  # as tables have names, and as they are
    known = {REMOVED: -1} | {form(name): label for form in forms for label, name in enumerate(class_names)}
    found = [known.get(label, known.get(_unquoted(label))) for label in entries.labels]
    strange = [label for label, number in zip(entries.labels, found, strict=True) if number is None]
    if strange:
        different = list(dict.fromkeys(strange))
        raise DataError(
            f"data.labels={path}: {len(strange)} labels are not classes of the data: {first_few(different, 5)}"
            f"{did_you_mean(different[0], known)}; write the name of a class, or {REMOVED} to remove the image"
        )
    return [number for number in found if number is not None]


def _rows(entries: Entries, names: list[str], path: Path) -> list[list[int]]:
    """The rows of every entry's image: a list may hold it twice. Raises DataError for files that are not there."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    found = [rows.get(name) or rows.get(_unquoted(name), []) for name in entries.paths]
    if missing := [name for name, of_name in zip(entries.paths, found, strict=True) if not of_name]:
        raise DataError(
            f"data.labels={path}: {len(missing)} of {len(found)} files are not training images of the data: "
            f"{first_few(missing, 5)}{did_you_mean(missing[0], names[:1000])}; name them as ncl-jax inspect does"
        )
    return found


def _unquoted(text: str) -> str:
    """A cell without the quote that keeps a spreadsheet from taking it for a formula."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text
