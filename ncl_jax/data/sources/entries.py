"""What a list of images holds, whatever its format."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncl_jax.data.sources import names as class_names
from ncl_jax.data.sources.names import first_few
from ncl_jax.data.sources.splits import WORDS
from ncl_jax.data.sources.walk import SUFFIXES
from ncl_jax.errors import DataError

# Names of columns as `plain` has them, first those of other lists, then those that labelling tools write.
PATH_COLUMNS = (
    "path", "fpath", "file", "filename", "image", "filepath", "imagepath", "imgpath", "imagename", "img",
    "relativepath",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "class", "categoryid", "category", "target", "choice", "species", "classname", "labelname", "labels",
    "tag", "scientificname", "commonname", "vernacularname",
)  # fmt: skip
RANKS = ("kingdom", "phylum", "order", "family", "genus")  # beside which a class is one too, and a species an epithet
OF_RANKS = ("scientificname", "commonname", "vernacularname", "species")  # the labels beside ranks, the first there is
FOLDER_COLUMNS = ("relativepath",)  # of the file that another column names
SPLIT_COLUMNS = ("split", "subset", "partition", "set", "datasplit", "fold", "part", "phase", "usage")
GROUP_COLUMNS = (
    "group", "site", "camera", "location", "station", "deployment", "patient", "patientid", "individual", "sequence",
    "seqid", "burst", "deploymentid", "locationid", "cameraid", "siteid", "stationid", "individualid", "animalid",
    "subject", "subjectid", "sequenceid", "eventid", "burstid",
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
    columns: Mapping[str, str] = {}  # what the columns are called, by kind: `split`, `group`
    like_splits: Sequence[str] = ()  # other columns whose values are names of splits

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


def plain(name: str) -> str:
    """The name of a column without what programs write differently: capitals, blanks, _ and the like."""
    return re.sub(r"[\W_]+", "", name.casefold())


def columns(header: Sequence[str], named: Mapping[str, str] | None = None, sample: Sequence[str] = ()) -> Columns:
    """Which columns hold what, by their names (`plain`).

    Args:
      header: the names.
      named: what some are called.
      sample: the first row. Where no name is that of a path, the only column that holds an image's name has the paths.
    """
    found, named = [plain(name) for name in header], named or {}
    taken: list[int] = []

    def place(kind: str, known: Sequence[str]) -> int | None:
        wanted = [plain(named[kind])] if named.get(kind) else known
        free = (found.index(name) for name in wanted if name in found)
        index = next((index for index in free if named.get(kind) or index not in taken), None)
        taken.extend([] if index is None else [index])
        return index

    path = place("path", PATH_COLUMNS)
    of_images = [index for index, cell in enumerate(sample[: len(found)]) if cell.strip().lower().endswith(SUFFIXES)]
    if path is None and not named.get("path") and len(of_images) == 1:
        path = of_images[0]
        taken.append(path)
    folder = None if named.get("path") else place("", FOLDER_COLUMNS)
    return Columns(
        path, place("label", label_names(found)), folder, place("split", SPLIT_COLUMNS), place("group", GROUP_COLUMNS)
    )


def label_names(found: Collection[str]) -> Sequence[str]:
    """What a column of labels may be called among others, the likeliest first."""
    if not set(RANKS) & set(found):
        return LABEL_COLUMNS
    return [*OF_RANKS, *(name for name in LABEL_COLUMNS if name not in (*OF_RANKS, "class")), "class"]


def looks_like_splits(values: Collection[str]) -> bool:
    """Whether the different values of a column are names of splits, and of several."""
    roles = {WORDS.get(value.strip().casefold()) for value in values if value.strip()}
    return len(roles) > 1 and None not in roles


def check_named(header: Sequence[str], named: Mapping[str, str], where: str) -> None:
    """Raises DataError for a column that is named and not there."""
    found = [plain(name) for name in header]
    for kind, name in named.items():
        if name and plain(name) not in found:
            raise DataError(f"{where} has the columns {first_few(header, 40)}: none is called {kind}_column={name}")


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
    blank = sum(label != label.strip() for label in entries.labels)
    notes = [f"{entries.file}: labels with blanks around them, which are removed: {blank:,}"] * bool(blank)
    return entries._replace(labels=[form[label] for label in entries.labels], notes=(*entries.notes, *notes))


def without_missing(entries: Entries, markers: Collection[str]) -> Entries:
    """The entries without those whose label, in small letters, is a marker that there is none."""
    of = lambda label: entries.names[int(label)] if entries.names else label  # noqa: E731
    missing = {label for label in set(entries.labels) if of(label).strip().casefold() in markers}
    lost = [row for row, label in enumerate(entries.labels) if label in missing]
    if not lost:
        return entries
    lines = [f"{entries.place(row)}: the label is missing ({of(entries.labels[row])!r})" for row in lost]
    kept = entries.take([row for row, label in enumerate(entries.labels) if label not in missing])
    return kept._replace(lacking=(*entries.lacking, *lines))


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
    kept, lacking, named_columns, values = [], [], dict[str, str](), dict[str, set[str]]()
    for record, number in zip(records, numbers, strict=True):
        where = f"{file}, {unit} {number}"
        if not isinstance(record, Mapping):
            raise DataError(f"{where} is not a list in JSON: {str(record)[:60]!r} is not an object with path and label")
        keys = list(record)
        check_named([str(key) for key in keys], named or {}, where)
        chosen = columns([str(key) for key in keys], named, [str(record[key]) for key in keys])
        if chosen.path is None or chosen.label is None:
            raise DataError(f"{where} has the fields {first_few(keys, 40)}: {advice(keys, chosen)}")
        for place, key in enumerate(keys):
            if place not in chosen and len(of := values.setdefault(str(key), set())) <= len(WORDS):
                of.add(str(record[key]))
        named_columns |= called(keys, chosen)
        if absent := [n for n in ("path", "label") if record[keys[getattr(chosen, n)]] in (None, "")]:
            lacking.append(f"{where}: the {absent[0]} is missing")
            continue
        others = ["" if place is None else str(record[keys[place]]) for place in (chosen.split, chosen.group)]
        folder = "" if chosen.folder is None else path_of(record[keys[chosen.folder]], where)
        path = full_path(folder, path_of(record[keys[chosen.path]], where))
        rows.append([path, label_of(record[keys[chosen.label]], where), *others])
        kept.append(number)
    paths, labels, splits, groups = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [])
    alike = [name for name, of in values.items() if looks_like_splits(of)]
    return Entries(
        paths, labels, file=file, rows=kept, unit=unit, splits=splits if "split" in named_columns else (),
        groups=groups if "group" in named_columns else (), lacking=lacking, columns=named_columns, like_splits=alike,
    )  # fmt: skip


def called(header: Sequence[object], chosen: Columns) -> dict[str, str]:
    """What the columns of splits and groups are called, where there are such."""
    places = {"split": chosen.split, "group": chosen.group}
    return {kind: str(header[place]).strip() for kind, place in places.items() if place is not None}


def advice(header: Sequence[object], chosen: Columns) -> str:
    """What to do about columns of which those of paths, of labels or both are not known."""
    have = {"path": chosen.path, "label": chosen.label}
    usual = {"path": PATH_COLUMNS[:4], "label": LABEL_COLUMNS[:2]}
    found = [f"the {kind} is {header[place]!s}" for kind, place in have.items() if place is not None]
    lost = [kind for kind, place in have.items() if place is None]
    names = ", and ".join(f"the {kind} ({' or '.join(usual[kind])})" for kind in lost)
    flags = " and ".join(f"{kind}_column=NAME" for kind in lost)
    return ", ".join([*found, f"none is known as {names}: pass {flags}"])


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
