"""Tables whose labels are in no column of their own: a column for each class, and the attributes of VGG's annotator."""

import json
from collections.abc import Mapping, Sequence

from ncl_jax.data.sources.entries import Columns, plain
from ncl_jax.data.sources.names import first_few
from ncl_jax.errors import DataError

ONE, NOT = {"1", "1.0", "true"}, {"0", "0.0", "false", ""}
ATTRIBUTES = ("fileattributes", "regionattributes")  # an object of the image or of a part of it, as `plain` has them


def fits(header: Sequence[str], chosen: Columns, sample: Sequence[str]) -> bool:
    """Whether a table without a column of labels has them in another way, by its first row."""
    if chosen.path is None or chosen.label is not None:
        return False
    if _attributes(header):
        return True
    cells = [sample[place].strip().casefold() for place in _classes(header, chosen) if place < len(sample)]
    return len(cells) > 1 and set(cells) <= ONE | NOT and bool(set(cells) & ONE)


def label(header: Sequence[str], chosen: Columns, row: Sequence[str], where: str) -> str:
    """The label of a row; several with ; between them, none where there is none. Raises DataError for other cells."""
    if places := _attributes(header):
        found = [_of_attributes(row[place], where) for place in places if place < len(row)]
        return next(filter(None, found), "")
    cells = {header[place].strip(): row[place].strip().casefold() for place in _classes(header, chosen)
             if place < len(row)}  # fmt: skip
    if other := [name for name, cell in cells.items() if cell not in ONE | NOT]:
        raise DataError(
            f"{where}: the column {other[0]} of a class says {cells[other[0]]!r}: write 1 or 0, or the class's name of "
            "every row into one column, and pass label_column=NAME"
        )
    return ";".join(name for name, cell in cells.items() if cell in ONE)


def words(header: Sequence[str], chosen: Columns) -> str:
    """How such a table is read."""
    if places := _attributes(header):
        return f"the labels are those in {' or '.join(header[place].strip() for place in places)}"
    names = [header[place].strip() for place in _classes(header, chosen)]
    return f"the labels are the columns that say 1, of {len(names)} ({first_few(names, 8)})"


def hint(header: Sequence[str], chosen: Columns) -> str:
    """What else could be done where no column is one of labels."""
    if chosen.path is None or chosen.label is not None or len(header) < 4:
        return ""
    return " (a column for each class is read where all other columns say 0 or 1)"


def _classes(header: Sequence[str], chosen: Columns) -> list[int]:
    return [place for place in range(len(header)) if place not in chosen]


def _attributes(header: Sequence[str]) -> list[int]:
    names = [plain(name) for name in header]
    return [names.index(name) for name in ATTRIBUTES if name in names]


def _of_attributes(cell: str, where: str) -> str:
    """What the only attribute says, or which of its boxes are ticked. Raises DataError for several attributes."""
    try:
        found = json.loads(cell or "{}")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: the attributes {cell[:60]!r} are not JSON ({error})") from error
    if not isinstance(found, Mapping) or len(found) > 1:
        raise DataError(f"{where}: the attributes {cell[:60]!r} are not one of each image: keep the label alone")
    value = next(iter(found.values()), "")
    return ";".join(str(name) for name, on in value.items() if on) if isinstance(value, Mapping) else str(value)
