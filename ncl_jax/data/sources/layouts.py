"""Where the files of a list are: paths are checked, and mapped between the known forms of the benchmarks."""

import bisect
import difflib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np

from ncl_jax.data.sources.names import first_few
from ncl_jax.data.sources.walk import SUFFIXES
from ncl_jax.errors import DataError

# The same images under other paths; each takes a list's path and gives another one, or the same.
LAYOUTS: dict[str, Callable[[str], str]] = {
    "as listed": lambda path: path,
    # Places365: .../a/apartment_building/outdoor/1.jpg in data_256 and data_large, apartment_building-outdoor in train
    "Places, 256 to standard": lambda path: re.sub(
        r"^data_(?:256|large)/[a-z]/(.+)/([^/]+)$", lambda m: f"train/{m[1].replace('/', '-')}/{m[2]}", path
    ),
    "Places, standard to 256": lambda path: re.sub(
        r"^train/(([a-z])[^/]*)/([^/]+)$", lambda m: f"data_256/{m[2]}/{m[1].replace('-', '/')}/{m[3]}", path
    ),
    "Places, standard to large": lambda path: re.sub(
        r"^train/(([a-z])[^/]*)/([^/]+)$", lambda m: f"data_large/{m[2]}/{m[1].replace('-', '/')}/{m[3]}", path
    ),
    "Places, val to 256": lambda path: re.sub(r"^val/(?:[^/]+/)?(Places365_val_[^/]+)$", r"val_256/\1", path),
    "Places, val to large": lambda path: re.sub(r"^val(?:_256|/[^/]+)/(Places365_val_[^/]+)$", r"val_large/\1", path),
    # ImageNet's validation images: in a folder of their class, or all in one
    "ImageNet, val flat": lambda path: re.sub(r"^val/n\d{8}/(ILSVRC2012_val_[^/]+)$", r"val/\1", path),
    "iNaturalist, without the first folder": lambda path: path.removeprefix("train_val2018/"),
}


DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # how an absolute path of Windows begins
UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of a file
CUT = re.compile(r"/|\?d=")  # after which the rest of another computer's path may lie below the root
MOST_TRIED = 20  # absolute paths of which no end is found below the root


class Located(NamedTuple):
    """Files that are there."""

    names: np.ndarray  # paths [N] relative to the root
    sizes: np.ndarray  # int64 [N], bytes
    notes: tuple[str, ...] = ()  # lines to be shown
    rows: np.ndarray = np.zeros(0, np.int64)  # [N] of the list's
    lost: Mapping[int, str] = {}  # what is missing, by row of the list


def locate(
    root: Path,
    paths: Sequence[str],
    place: Callable[[int], str] = lambda row: f"row {row + 1}",
    skip: bool = False,
) -> Located:
    """The files of a list, in whichever layout its first one is found; `place` says where a row stands. With `skip`,
    those that are not there are skipped, unless that is all.

    Absolute paths of another computer are taken from where the rest of one is found below the root. A path that leads
    to no file is tried with / for \\, in the other Unicode form, with its ending in the other case of letters and
    without what Label Studio adds to names.

    Raises:
      DataError: a path leads out of the root, or a file is not there.
    """
    starts = _foreign(root, paths)
    shown = [start for start in starts if start]
    notes = (f"paths of the list are read without {first_few(shown)}",) * bool(shown)
    paths = [_without(starts, path) for path in paths]
    inside = [_below(root, path, place, row) for row, path in enumerate(paths)]
    layout = next((f for f in LAYOUTS.values() if os.path.isfile(root / f(inside[0]))), None) or _by_name(root)  # noqa: PTH113
    names = [layout(path) for path in inside]
    with ThreadPoolExecutor(16) as pool:  # of use where the files are far away
        sizes = list(pool.map(lambda name: _size(root, name), names, chunksize=256))
        lost = [row for row, size in enumerate(sizes) if size is None]
        found = list(pool.map(lambda row: _respelt(root, paths[row], layout), lost))
    respelt = {row: name for row, name in zip(lost, found, strict=True) if name is not None}
    missing = [row for row in lost if row not in respelt]
    if missing and not (skip and len(missing) < len(names)):
        raise DataError(_missing(root, names, missing, paths, place))
    absent = {row: f"{place(row)}: {root / names[row]} does not exist" for row in missing}
    for row, name in respelt.items():
        names[row], sizes[row] = name, _size(root, name)
    how = Counter(_difference(paths[row], name) for row, name in respelt.items())
    notes += tuple(f"paths of the list that are found {text}: {count:,}" for text, count in how.items())
    rows = np.array([row for row in range(len(names)) if row not in absent], np.int64)
    kept = np.array([sizes[row] for row in rows], np.int64)
    return Located(np.array(names, object)[rows], kept, notes, rows, absent)


def _foreign(root: Path, paths: Sequence[str]) -> list[str]:
    """What the absolute paths of another computer, or of a labelling tool, begin with, where the rest of one is found
    below the root; nothing where there are none."""
    starts: list[str] = []
    lost = 0
    for path in paths:
        if lost == MOST_TRIED:
            break
        if _is_foreign(root, path) and not path.startswith(tuple(starts)):
            start = _start(root, path)
            starts += [start] * bool(start)
            lost += not start
    return starts


def _is_foreign(root: Path, path: str) -> bool:
    return bool(DRIVE.match(path)) or (path.startswith("/") and not path.startswith(f"{root.absolute()}/"))


def _start(root: Path, path: str) -> str:
    """The part of an absolute path whose rest is found below the root; empty where no rest is."""
    plain = path.replace("\\", "/") if DRIVE.match(path) else path
    for cut in (match.end() for match in CUT.finditer(plain)):
        rest = plain[cut:]
        if rest and not rest.startswith("/") and any(_size(root, name) is not None for name in _spellings(rest)):
            return path[:cut]
    return ""


def _without(starts: Sequence[str], path: str) -> str:
    """A path without what it begins with on another computer."""
    start = next(filter(path.startswith, starts), "")
    return path.removeprefix(start).replace("\\", "/") if DRIVE.match(start) else path.removeprefix(start)


def _respelt(root, path, layout):
    """The same path as another program would write it, if there is such a file."""
    for spelling in _spellings(path):
        name = layout(_below(root, spelling))
        if _size(root, name) is not None:
            return name
    return None


def _spellings(path: str) -> Iterator[str]:
    """A path as it is, and as other programs would write it."""
    folder, slash, name = path.rpartition("/")
    own = f"{folder}{slash}{UPLOADED.sub('', name)}"
    for known in dict.fromkeys((path, path.replace("\\", "/"), own, unquote(own))):
        for form in (known, *(unicodedata.normalize(kind, known) for kind in ("NFC", "NFD"))):
            stem, ending = os.path.splitext(form)  # noqa: PTH122
            yield from (stem + other for other in (ending, ending.lower(), ending.upper()))


def _difference(path: str, found: str) -> str:
    """What is changed in a path that was found in another spelling."""
    if UPLOADED.match(path.rpartition("/")[2]) and not UPLOADED.match(found.rpartition("/")[2]):
        return "without the eight letters that Label Studio puts before names"
    if "\\" in path:
        return "with / for \\"
    return "in another spelling (its ending in other letters, or another Unicode form)"


def _by_name(root):
    """A layout of validation images, whose own names are unique, wherever below `val/` they are."""
    places = {name: os.path.relpath(place, root) for place, _, files in os.walk(root / "val") for name in files}

    def find(path):
        folder, _, name = path.rpartition("/")
        return f"{places[name]}/{name}" if folder.startswith("val") and name in places else path

    return find


def _below(root, path, place=None, row=0):
    """The path relative to the root; absolute ones and `..` are allowed as far as they stay below it."""
    full = os.path.normpath(os.path.join(root, path))  # noqa: PTH118 - does not follow links
    relative = os.path.relpath(full, root)
    if relative.split(os.sep, 1)[0] == os.pardir:
        where = f"{place(row)}: " if place else ""
        advice = "set a root above all images"
        if path.startswith("/"):
            advice = f"it is absolute, and no end of it is a file below that folder: {advice}, or correct the paths"
        raise DataError(f"{where}the path {path!r} of the list leads out of data.dir={root}: {advice}")
    return relative


def _size(root, name):
    """A file's bytes; None where there is none."""
    try:
        found = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118 - a hundred thousand times
    except (OSError, ValueError):
        return None
    return None if stat.S_ISDIR(found.st_mode) else found.st_size


def _missing(root, names, lost, paths, place):
    """Says how many files are missing, which path was tried, what is there instead, and what to do."""
    path = root / names[lost[0]]
    parent = next(p for p in path.parents if os.path.isdir(p))  # noqa: PTH112
    near = _nearest(parent, path.relative_to(parent).parts[0])
    instead = f"the nearest that exists is {near}" if near else f"{parent} is empty"
    count = f"{len(lost):,} of {len(names):,} files of the list are missing: " if len(names) > 1 else ""
    advice = _advice(paths[lost[0]], path, len(lost) == len(names))
    shown = str(path).replace("\n", "\\n")
    return f"{place(lost[0])}: {count}{shown} of the list does not exist; {instead}: {advice}"


def _nearest(folder, wanted):
    """The entry of a folder that is most like a name, of those near it in order."""
    every = sorted(os.listdir(folder))  # noqa: PTH208
    place = bisect.bisect(every, wanted)
    near = difflib.get_close_matches(wanted, every[max(0, place - 1000) : place + 1000], n=1, cutoff=0)
    return folder / near[0] if near else None


def _advice(given, path, every):
    """What to do about a path that leads to no file."""
    if re.match(r"[a-z]{2,}://", given):
        return "download the images; a list names files, not addresses on the web"
    if DRIVE.match(given):
        return "write paths that start from data.dir, with /, instead of those of a Windows computer"
    if any("\ud800" <= letter <= "\udfff" for letter in given):
        return "the path is not UTF-8, but perhaps Windows-1252: save the list as UTF-8"
    if os.path.isdir(path):  # noqa: PTH112
        return "it is a folder; a list names files"
    if ending := next((end for end in SUFFIXES if os.path.isfile(f"{path}{end}")), ""):  # noqa: PTH113
        return f"add the ending {ending} to the paths of the list"
    if every:
        return "set data.dir to the folder that the lists' paths start from"
    return "restore the missing files, remove their lines, or set data.skip_unreadable=True to skip such rows"
