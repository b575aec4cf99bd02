"""A file that lists images: text, CSV with a header, or JSON, compressed or not."""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

from ncl_jax.data.sources import entries as of_entries
from ncl_jax.data.sources import list_json, wide
from ncl_jax.data.sources.entries import Entries, check_named, cleaned, columns, full_path, plain, without_missing
from ncl_jax.data.sources.names import MISSING, first_few
from ncl_jax.data.sources.splits import WORDS
from ncl_jax.data.sources.walk import SUFFIXES
from ncl_jax.errors import DataError
from ncl_jax.runtime.files import UNDECODABLE, open_regular

MOST = 2**31  # bytes of a list, when it is unpacked: eight times the longest published one
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}
LINES = re.compile(r"\r\n|\r|\n")
ANOTHER_IMAGE = re.compile(rf"(?:{'|'.join(re.escape(suffix) for suffix in SUFFIXES)})\b", re.IGNORECASE)


def parse(
    path: Path, named: Mapping[str, str] | None = None, skip: bool = False, missing: Collection[str] = MISSING
) -> Entries:
    """A list's paths and labels, whatever its format.

    Args:
      path: the list.
      named, skip: as the fields `columns` and `skip` of `Request`.
      missing: what stands, in small letters, for a label that is missing.

    Raises:
      DataError: it is damaged; the line is named.
    """
    named = named or {}
    text, notes = read_text(path)
    kind = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    if kind.lower() == ".json":
        entries = list_json.parse(text, path, named)
    elif kind.lower() in (".jsonl", ".ndjson"):
        entries = list_json.parse_lines(LINES.split(text), path, named)
    elif kind.lower() == ".csv" or any(named.values()) or _delimiter(text, named):
        entries = _parse_csv(text, path, named)
    else:
        entries = _parse_text(text, path)
    entries = without_missing(entries, missing)
    if entries.lacking and not (skip and entries.paths):
        others = len(entries.lacking) - 1
        more = f" (and so it is in {others:,} more row{'s' * (others > 1)})" if others else ""
        raise DataError(f"{entries.lacking[0]}{more}: write it, or set data.skip_unreadable=True to skip such rows")
    if not entries.paths:
        raise DataError(f"the list {path} names no image")
    return cleaned(entries._replace(notes=(*notes, *entries.notes)))


def read_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """A file's text, UTF-8 or UTF-16 with its mark, and lines to be shown; bytes of file names that are not UTF-8 are
    kept as Python keeps them. Raises DataError for what cannot be read or is not text."""
    raw, notes = content(path), tuple[str, ...]()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            text, notes = raw.decode("utf-16"), (f"{path} is read as UTF-16",)
        except UnicodeDecodeError as error:
            raise DataError(f"the list {path} cannot be read ({error}): save it as UTF-8") from error
    else:
        text = raw.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        line = len(LINES.findall(text[: text.index("\0")])) + 1
        raise DataError(
            f"{path}, line {line} has zero bytes: the file is damaged, is not text, or is UTF-16 without its mark; "
            "save it again as UTF-8"
        )
    return text, notes


def content(path: Path) -> bytes:
    """The bytes of a list, unpacked. Raises DataError where it cannot be read or has more than `MOST`."""
    try:
        with open_regular(path) as file:
            source = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
            raw = bytearray()
            while (part := source.read(2**24)) and len(raw) <= MOST:
                raw += part
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"the list {path} cannot be read ({error})") from error
    if len(raw) > MOST:
        raise DataError(f"the list {path} has more than {MOST:,} bytes, which no list has")
    return bytes(raw)


def _parse_text(text, path):
    """`path label` a line: the label is what follows the tab, where each line has one, or else the last space."""
    lines = [(number, line.strip()) for number, line in enumerate(LINES.split(text), 1) if line.strip()]
    tabs = all(line.count("\t") == 1 for _, line in lines)
    rows = [[part.strip() for part in line.split("\t")] if tabs else line.rsplit(None, 1) for _, line in lines]
    for (number, line), row in zip(lines, rows, strict=True):
        if len(row) == 1:
            raise DataError(
                f"{path}, line {number}: {line[:200]!r} has no label; a line must be: path label (with commas: a "
                "header, path,label, in the first line)"
            )
    first = int(bool(rows) and columns(rows[0]).complete)  # a header
    numbers = [number for number, _ in lines[first:]]
    return Entries([row[0] for row in rows[first:]], [row[1] for row in rows[first:]], file=path, rows=numbers)


def _first_line(text):
    return LINES.split(text[:65536], maxsplit=1)[0]


def _split_line(line, delimiter):
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []


def _delimiter(text, named):
    """What separates the columns, by the header; nothing where the first line is not a header."""
    first, second, *_ = [*LINES.split(text[:65536], maxsplit=2), ""]
    for mark in DELIMITERS:
        header, sample = _split_line(first, mark), _split_line(second, mark)
        chosen = columns(header, named, sample)
        if chosen.complete or wide.fits(header, chosen, sample):
            return mark
    return ""


def _parse_csv(text, path, named):
    """Columns by the names in the header."""
    delimiter = _delimiter(text, named)
    if not delimiter:
        raise DataError(_no_header(path, text, named))
    header = _split_line(_first_line(text), delimiter)
    check_named(header, named, str(path))
    rows = list(_rows(text, delimiter, path))
    chosen = columns(header, named, rows[0][1] if rows else ())
    is_wide = chosen.label is None
    found, numbers, lacking = [], [], []
    for number, row in rows:
        where = f"{path}, line {number}"
        _check_row(row, chosen, header, where)
        cells = [row[place].strip() if place is not None and place < len(row) else "" for place in chosen]
        label = wide.label(header, chosen, row, where) if is_wide else cells[1] and row[chosen.label]
        if absent := [name for name, cell in (("path", cells[0]), ("label", label)) if not cell]:
            lacking.append(f"{where}: the {absent[0]} is missing")
            continue
        found.append([full_path(cells[2], cells[0]), label, *cells[3:]])
        numbers.append(number)
    paths, labels, splits, groups = map(list, zip(*found, strict=True)) if found else ([], [], [], [])
    return Entries(
        paths, labels, file=path, rows=numbers, notes=_notes(path, header, chosen, delimiter, named), lacking=lacking,
        splits=() if chosen.split is None else splits, groups=() if chosen.group is None else groups,
        columns=of_entries.called(header, chosen), like_splits=_like_splits(header, chosen, rows),
    )  # fmt: skip


def _like_splits(header, chosen, rows):
    """The columns that are not used and hold names of splits."""
    others = [place for place in range(len(header)) if place not in chosen]
    found: dict[int, set[str]] = {place: set() for place in others}
    for _, row in rows:
        for place in others:
            if place < len(row) and len(found[place]) <= len(WORDS):
                found[place].add(row[place])
    return [header[place].strip() for place in others if of_entries.looks_like_splits(found[place])]


def _notes(path, header, chosen, delimiter, named):
    """Lines on how a table was read, where that is not plain."""
    marks = f"{path} is read with {DELIMITERS[delimiter]} between its columns"
    if chosen.label is None:
        return (*[marks] * (delimiter != ","), f"{path}: {wide.words(header, chosen)}")
    found = [plain(name) for name in header]
    likely = [header[found.index(name)].strip() for name in of_entries.label_names(found) if name in found]
    ranks = [name.strip() for name in header if plain(name) in of_entries.RANKS]
    label = f"{path}: of the columns {', '.join(likely)} the labels are those of {header[chosen.label].strip()}; "
    choice = f"{label}label_column=NAME chooses another"
    if ranks and "class" in found:
        choice += f" (class is a rank beside {', '.join(ranks)})"
    return (*[marks] * (delimiter != ","), *[choice] * (len(likely) > 1 and not named.get("label")))


def _no_header(path, text, named):
    """Says what is wrong with a first line."""
    line = _first_line(text)
    mark = max(DELIMITERS, key=lambda mark: len(_split_line(line, mark)))
    header = _split_line(line, mark)
    check_named(header, named, str(path))
    if any(cell.strip().lower().endswith(SUFFIXES) for cell in header):
        return f"{path}, line 1: {line[:100]!r} is an image and no header: put the line path,label above it"
    second = LINES.split(text[:65536], maxsplit=2)[1:2]
    chosen = columns(header, named, _split_line(second[0], mark) if second else ())
    shown = first_few([cell.strip() for cell in header], 40)
    return f"{path} has the columns {shown}: {of_entries.advice(header, chosen)}{wide.hint(header, chosen)}"


def _rows(text, delimiter, path):
    """The rows below the header, each with the number of its first line; blank ones are skipped."""
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=True, strict=True)
    number = 1
    try:
        for row in reader:
            if row and number > 1:
                yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {number} cannot be read ({error}): is a quotation mark too many, or not closed?"
        ) from error


def _check_row(row, chosen, header, where):
    """Raises DataError for a row that a stray quotation mark or delimiter may have made."""
    swallowed = any(
        "\n" in cell and (index in chosen or ANOTHER_IMAGE.search(cell.partition("\n")[2]))
        for index, cell in enumerate(row)
    )
    if swallowed:
        raise DataError(f"{where}: a field spans several lines: is there a stray or unclosed quotation mark?")
    if any(cell.strip() for cell in row[len(header) :]):
        raise DataError(f"{where} has {len(row)} fields, the header {len(header)}: put names with commas in quotes")


def read_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of classes, one a line, and lines to be shown. Raises DataError for an empty line among them, and for
    one that is not UTF-8."""
    text, notes = read_text(path)
    lines = [line.strip() for line in LINES.split(text.rstrip())]
    if "" in lines:
        raise DataError(
            f"{path}, line {lines.index('') + 1} is empty: the first line names class 0, the second "
            "class 1; remove the line, or write the name"
        )
    if wrong := [row for row, line in enumerate(lines) if UNDECODABLE.search(line)]:
        raise DataError(
            f"{path}, line {wrong[0] + 1}: the name {lines[wrong[0]]!r} is not UTF-8, but perhaps Windows-1252 or "
            "Latin-1: save the file as UTF-8"
        )
    numbered = [line.split(None, 1)[0].strip(":,.") for line in lines]
    if len(lines) > 1 and numbered in ([str(i) for i in range(len(lines))], [str(i + 1) for i in range(len(lines))]):
        notes += (f"the names in {path} begin with numbers, which are taken for a part of them",)
    return tuple(lines), notes
