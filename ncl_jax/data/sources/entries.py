"""What a list of images holds, whatever its format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncl_jax.data.sources import names as class_names
from ncl_jax.data.sources.names import first_few
from ncl_jax.data.sources.walk import SUFFIXES
from ncl_jax.errors import DataError

# Names of columns in any case, first those of other lists, then those that labelling tools write.
PATH_COLUMNS = (
    "path", "fpath", "file", "filename", "file_name", "image", "filepath", "file_path", "image_path", "img_path",
    "image_name", "img", "relativepath", "relative_path",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "class", "category_id", "category", "target", "choice", "species", "class_name", "label_name", "labels",
    "tag",
)  # fmt: skip
FOLDER_COLUMNS = ("relativepath", "relative_path")  # of the file that another column names
SPLIT_COLUMNS = ("split", "subset", "partition")
GROUP_COLUMNS = (
    "group", "site", "camera", "location", "station", "deployment", "patient", "patient_id", "individual", "sequence",
    "seq_id", "burst",
)  # fmt: skip


class Entries(NamedTuple):
    """A list as it stands: labels are numbers or names."""

    paths: list[str]
    labels: list[str]
    names: tuple[str, ...] = ()  # of the classes, where the list has them
    file: Path = Path()
    rows: Sequence[int] = ()  # the line, or the record, that each entry stands in, from 1
    unit: str = "line"
    notes: tuple[str, ...] = ()  # lines to be shown
    splits: Sequence[str] = ()  # what the columns of splits and of groups say, where there are such
    groups: Sequence[str] = ()
    lacking: Sequence[str] = ()  # lines about rows without a path or a label, which are no entries

    def place(self, index: int) -> str:
        """Where an entry stands, for messages."""
        return f"{self.file}, {self.unit} {self.number(index)}"

    def number(self, index: int) -> int:
        """The line, or the record, of an entry."""
        return self.rows[index] if self.rows else index + 1

    def take(self, chosen: Sequence[int]) -> "Entries":
        """Some of the entries."""
        some = lambda values: [values[index] for index in chosen] if len(values) else values  # noqa: E731
        return self._replace(
            paths=some(self.paths), labels=some(self.labels), rows=[self.number(index) for index in chosen],
            splits=some(self.splits), groups=some(self.groups),
        )  # fmt: skip


class Columns(NamedTuple):
    """The places of a table's columns; None where there is none."""

    path: int | None
    label: int | None
    folder: int | None = None  # that the path starts from
    split: int | None = None
    group: int | None = None

    @property
    def complete(self) -> bool:
        """Whether these are the columns of a list."""
        return self.path is not None and self.label is not None


def columns(header: Sequence[str], named: Mapping[str, str] | None = None) -> Columns:
    """Which columns hold what, by their names in any case; `named` says what some are called."""
    found, named = [name.strip().casefold() for name in header], named or {}

    def place(kind: str, known: Sequence[str]) -> int | None:
        wanted = [named[kind].strip().casefold()] if named.get(kind) else known
        return next((found.index(name) for name in wanted if name in found), None)

    path, folder = place("path", PATH_COLUMNS), None if named.get("path") else place("", FOLDER_COLUMNS)
    return Columns(
        path, place("label", LABEL_COLUMNS), None if folder == path else folder, place("split", SPLIT_COLUMNS),
        place("group", GROUP_COLUMNS),
    )  # fmt: skip


def check_named(header: Sequence[str], named: Mapping[str, str], where: str) -> None:
    """Raises DataError for a column that is named and not there."""
    found = [name.strip().casefold() for name in header]
    for kind, name in named.items():
        if name and name.strip().casefold() not in found:
            raise DataError(f"{where} has the columns {first_few(header, 8)}: none is called {kind}_column={name}")


def full_path(folder: str, file: str) -> str:
    """A file's path from the columns of its folder and its name, which may hold the folder already."""
    folder, plain = folder.replace("\\", "/").strip("/"), file.replace("\\", "/")
    whole = not folder or plain.startswith(("/", f"{folder}/"))
    return file if whole else f"{folder}/{file}"


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


def from_records(
    records: Sequence[Any], numbers: Sequence[int], file: Path, unit: str, named: Mapping[str, str] | None = None
) -> Entries:
    """Entries from objects that have a path and a label each, as columns of a table have."""
    rows: list[list[str]] = []
    for record, number in zip(records, numbers, strict=True):
        where = f"{file}, {unit} {number}"
        if not isinstance(record, Mapping):
            raise DataError(f"{where} is not a list in JSON: {str(record)[:60]!r} is not an object with path and label")
        keys = list(record)
        check_named([str(key) for key in keys], named or {}, where)
        chosen = columns([str(key) for key in keys], named)
        if chosen.path is None or chosen.label is None:
            raise DataError(
                f"{where} has the fields {first_few(keys, 8)}: name one of them {' or '.join(PATH_COLUMNS[:6])}"
                f", and one {' or '.join(LABEL_COLUMNS[:5])}; or pass path_column= and label_column="
            )
        others = ["" if place is None else str(record[keys[place]]) for place in (chosen.split, chosen.group)]
        folder = "" if chosen.folder is None else path_of(record[keys[chosen.folder]], where)
        path = full_path(folder, path_of(record[keys[chosen.path]], where))
        rows.append([path, label_of(record[keys[chosen.label]], where), *others])
    paths, labels, splits, groups = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [])
    return Entries(paths, labels, file=file, rows=list(numbers), unit=unit, splits=splits, groups=groups)


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
