"""The image files of a run as its directory lists them: what has changed since, and which are as they were."""

import gzip
import os
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncl_jax.data.sources.files import Files, state_of
from ncl_jax.data.types import Split
from ncl_jax.errors import DataError
from ncl_jax.runtime.files import UNDECODABLE, name_text, open_regular
from ncl_jax.storage import contents

ESCAPE = re.compile(r"\\\\|\\x([0-9a-f]{2})")  # what `files.name_text` writes for a backslash and for a byte


class Row(NamedTuple):
    """An image file of a run."""

    split: str
    label: str  # name of its class
    path: str  # below the folder of the data
    size: str  # bytes


def read(path: Path) -> list[str]:
    """The lines of a file of `RunDir.begin`, without its head; none where it cannot be read."""
    try:
        with open_regular(path) as packed, gzip.GzipFile(fileobj=packed) as file:
            content = file.read(contents.MOST_LISTING + 1)
    except (OSError, EOFError, ValueError, zlib.error, DataError):
        return []
    text = "" if len(content) > contents.MOST_LISTING else content.decode("utf-8", "surrogateescape")
    # Older runs wrote names that are not UTF-8 as they are.
    return [name_text(line) if UNDECODABLE.search(line) else line for line in text.split("\n")[1:-1]]


def rows(lines: Sequence[str]) -> list[Row]:
    """What `RunDir.read_files` returns, with names as the file system has them; lines that are damaged are skipped."""
    cells = [_plain(line).split("\t") for line in lines]
    return [Row(*row[:4]) for row in cells if len(row) >= 4 and row[3].isdecimal()]


def _plain(line: str) -> str:
    """The line whose `name_text` is given."""
    if "\\x" not in line:
        return line
    return ESCAPE.sub(lambda found: chr(0xDC00 + int(found[1], 16)) if found[1] else "\\", line)


def pinned(lines: Sequence[str]) -> dict[str, str]:
    """The split of every file, by its path, see `Request.pinned`."""
    return {row.path: row.split for row in rows(lines)}


def left(lines: Sequence[str], split: str, root: Path, class_names: Sequence[str]) -> tuple[Split, int]:
    """The images of a split that are as they were, by their size, and how many there were; nothing outside of `root`
    is looked at."""
    index = {name: number for number, name in enumerate(class_names)}
    wanted = [row for row in rows(lines) if row.split == split and row.label in index]
    kept = [row for row in wanted if _size(root, row.path) == int(row.size)]
    names = np.array([row.path for row in kept], object)
    files = Files(root, names, np.array([int(row.size) for row in kept], np.int64))
    return Split(files, np.array([index[row.label] for row in kept], np.int32)), len(wanted)


def known(lines: Sequence[str], split: str, root: Path, given: Split) -> int:
    """How many of the given image files are of a split of the run: of the size of one, and with its content at both
    ends; where the run's file is no longer below `root`, of its name."""
    sizes = {int(size) for size in given.images.sizes}
    theirs = [row for row in rows(lines) if row.split == split and int(row.size) in sizes]
    ours = {row.size for row in theirs}
    mine = [(str(name), str(size)) for name, size in zip(given.images.names, given.images.sizes, strict=True)]
    mine = [(name, size) for name, size in mine if size in ours]
    with ThreadPoolExecutor(16) as pool:  # of use where the files are far away
        there = pool.map(lambda row: _digest(root, row.path), theirs)
        found = list(pool.map(lambda one: _digest(given.images.root, one[0]), mine))
    keys = {(row.size, digest or _base(row.path)) for row, digest in zip(theirs, there, strict=True)}
    pairs = zip(mine, found, strict=True)
    return sum((size, digest) in keys or (size, _base(name)) in keys for (name, size), digest in pairs)


def _digest(root: Path, path: str) -> str:
    """Of an image file below `root`; empty where it is not there."""
    found = None if _size(root, path) is None else state_of(root / path)
    return found.digest if found else ""


def _base(path: str) -> str:
    return path.rpartition("/")[2].casefold()


def _size(root: Path, path: str) -> int | None:
    inner = os.path.normpath(path)
    if os.path.isabs(inner) or inner.split(os.sep, 1)[0] == os.pardir:  # noqa: PTH117
        return None
    try:
        return os.stat(root / inner).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return None


def changes(before: Sequence[str], after: Sequence[str]) -> str:
    """What differs between two lists of files, in words: the numbers, and the first ones by name."""
    old, new = ({tuple(line.split("\t")[:3]): line for line in lines} for lines in (before, after))
    kinds = {
        "gone": [key for key in old if key not in new],
        "new": [key for key in new if key not in old],
        "changed": [key for key in old if key in new and old[key] != new[key]],
    }
    named = {kind: ", ".join(f"{split} {path}" for split, _, path in keys[:3]) for kind, keys in kinds.items() if keys}
    more = {kind: ", ..." if len(keys) > 3 else "" for kind, keys in kinds.items()}
    return "; ".join(f"files {kind}: {len(kinds[kind])} ({first}{more[kind]})" for kind, first in named.items())
