"""What a list of images holds, whatever its format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncl_jax.data.sources import names as class_names
from ncl_jax.data.sources.walk import SUFFIXES
from ncl_jax.errors import DataError

PATH_COLUMNS = ("path", "fpath", "file", "filename", "file_name", "image")
LABEL_COLUMNS = ("label", "class", "category_id", "category", "target")


class Entries(NamedTuple):
    """A list as it stands: labels are numbers or names."""

    paths: list[str]
    labels: list[str]
    names: tuple[str, ...] = ()  # of the classes, where the list has them
    file: Path = Path()
    rows: Sequence[int] = ()  # the line, or the record, that each entry stands in, from 1
    unit: str = "line"
    notes: tuple[str, ...] = ()  # lines to be shown

    def place(self, index: int) -> str:
        """Where an entry stands, for messages."""
        return f"{self.file}, {self.unit} {self.rows[index] if self.rows else index + 1}"


def columns(header: Sequence[str]) -> tuple[int | None, int | None]:
    """Which columns hold path and label, by their names in any case."""
    found = [name.strip().casefold() for name in header]
    path, label = (
        next((found.index(name) for name in known if name in found), None) for known in (PATH_COLUMNS, LABEL_COLUMNS)
    )
    return path, label


def cleaned(entries: Entries) -> Entries:
    """The entries with clean labels. Raises DataError, naming the line, for a path or a label that can be none."""
    form: dict[str, str] = {}
    for index, label in enumerate(entries.labels):
        if label not in form:
            form[label] = class_names.clean(label)
            if fault := _fault(label, form[label]):
                raise DataError(f"{entries.place(index)}: {fault}")
    for index, path in enumerate(entries.paths):
        if "\0" in path or len(path) > 4096:
            raise DataError(f"{entries.place(index)}: {path[:60]!r} cannot be a path (a zero byte, or too long)")
    return entries._replace(labels=[form[label] for label in entries.labels])


def _fault(label, clean):
    """What is wrong with a label, or nothing."""
    if any("\ud800" <= letter <= "\udfff" for letter in label):
        return f"the label {label!r} is not UTF-8, but perhaps Windows-1252 or Latin-1: save the list as UTF-8"
    if clean.lower().endswith(SUFFIXES):
        return f"the label {clean[-60:]!r} looks like a path: is a quotation mark too many, or are the columns swapped?"
    fault = class_names.fault(clean)
    return f"{fault}: correct the label" if fault else ""


def from_records(records: Sequence[Any], numbers: Sequence[int], file: Path, unit: str) -> Entries:
    """Entries from objects that have a path and a label each, as columns of a table have."""
    paths, labels = [], []
    for record, number in zip(records, numbers, strict=True):
        where = f"{file}, {unit} {number}"
        if not isinstance(record, Mapping):
            raise DataError(f"{where} is not a list in JSON: {str(record)[:60]!r} is not an object with path and label")
        keys = list(record)
        path, label = columns([str(key) for key in keys])
        if path is None or label is None:
            raise DataError(
                f"{where} has the fields {class_names.first_few(keys, 8)}: name one of them {' or '.join(PATH_COLUMNS)}"
                f", and one {' or '.join(LABEL_COLUMNS)}"
            )
        paths.append(path_of(record[keys[path]], where))
        labels.append(label_of(record[keys[label]], where))
    return Entries(paths, labels, file=file, rows=list(numbers), unit=unit)


def path_of(value: object, where: str) -> str:
    """A path from JSON. Raises DataError for something else."""
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: the path is {str(value)[:60]!r} of type {type(value).__name__}, not a text")
    return value


def label_of(value: object, where: str) -> str:
    """A label from JSON, as text. Raises DataError for what is neither a whole number nor a text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(
            f"{where}: the label is {str(value)[:60]!r} of type {type(value).__name__}, not a whole number or a name"
        )
    return str(value)
